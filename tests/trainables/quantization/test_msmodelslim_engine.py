"""msModelSlim itself on a tiny Qwen3, and the stub beside it."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny_qwen3 import write_tiny_qwen3
from trainables.analysis.analyze import analyze
from trainables.models import read_header
from trainables.quantization import (
    default_rollback_path,
    make_quantizer,
    parse_practice,
    pedigree,
    practice_from_scheme,
    with_fallback,
)
from trainables.quantization._ascend import read_description
from trainables.quantization.quantize import quantize

TOOLS = Path(os.environ.get("TUNER_TOOLS", Path(__file__).parents[3] / ".tools"))
COMMAND = [str(TOOLS / "msmodelslim" / "bin" / "msmodelslim")]
REAL = {"type": "msmodelslim", "command": COMMAND}
FALLBACK = ("model.layers.1", "model.layers.2.mlp.down_proj")

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen3(tmp_path_factory.mktemp("qwen3"))


def practice_of(scheme, saver, smoothquant=False, symmetric=True):
    document = practice_from_scheme(scheme, smoothquant).document()
    document["spec"]["save"] = [{"type": saver, "part_file_size": 4}]
    document["spec"]["process"][-1]["qconfig"]["act"]["symmetric"] = symmetric
    practice = parse_practice(document)
    return with_fallback(practice, default_rollback_path(practice), FALLBACK)


def quantized(model, practice, output, quantizer=REAL):
    return quantize(
        {
            "model": str(model),
            "practice": practice.document(),
            "quantizer": quantizer,
            "output": str(output),
            "calibration": {"samples": 4, "length": 32},
            "threads": 1,
        }
    )


def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.arange(64).view(2, 32)).logits


@pytest.mark.parametrize(
    ("scheme", "options", "most"),
    [
        ("w8a8_dynamic", {}, 0.1),
        ("w8a8_static", {}, 0.5),
        ("w8a8_static", {"symmetric": False}, 0.5),
        ("w8a8_static", {"smoothquant": 0.5}, 0.2),
    ],
)
def test_compressed_tensors_compute_nearly_what_the_model_does(
    model, tmp_path, scheme, options, most
):
    practice = practice_of(scheme, "compressed_tensors", **options)
    result = quantized(model, practice, tmp_path / "weights")
    assert len(result["fallback_layers"]) == 8
    assert len(result["quantized_layers"]) == 20
    assert result["tools"]["msmodelslim"]
    exact, lossy = logits(model), logits(tmp_path / "weights")
    assert 0 < (lossy - exact).norm() < most * exact.norm()


@pytest.mark.parametrize(
    ("scheme", "kind"), [("w8a8_dynamic", "W8A8_DYNAMIC"), ("w8a8_static", "W8A8")]
)
def test_ascend_weights_are_described_tensor_by_tensor(model, tmp_path, scheme, kind):
    result = quantized(model, practice_of(scheme, "ascendv1_saver"), tmp_path / "weights")
    types = read_description(tmp_path / "weights")
    assert {types[f"{name}.weight"] for name in result["quantized_layers"]} == {kind}
    assert {types[f"{name}.weight"] for name in result["fallback_layers"]} == {"FLOAT"}
    assert len(result["quantized_layers"]) == 20


def test_it_writes_the_same_bytes_however_it_is_called(model, tmp_path):
    """Our way of calling its console script changes when it imports, and no more."""
    practice = practice_of("w8a8_static", "ascendv1_saver", smoothquant=0.5)
    python = str(Path(COMMAND[0]).with_name("python"))
    plain = REAL | {"command": [python, *COMMAND]}
    assert make_quantizer(REAL).options.program() != COMMAND
    assert make_quantizer(plain).options.program() == plain["command"]
    results = [
        quantized(model, practice, tmp_path / name, block)
        for name, block in (("launched", REAL), ("plain", plain))
    ]
    assert results[0]["files"] == results[1]["files"]


@pytest.mark.parametrize("saver", ["ascendv1_saver", "compressed_tensors"])
@pytest.mark.parametrize("scheme", ["w8a8_static", "w8a8_dynamic"])
def test_the_stub_writes_what_the_tool_writes(model, tmp_path, msmodelslim_stub, scheme, saver):
    practice = practice_of(scheme, saver)
    real, stub = (
        Path(quantized(model, practice, tmp_path / name, block)["artifact"])
        for name, block in (("real", REAL), ("stub", msmodelslim_stub()))
    )
    assert {path.name for path in real.iterdir()} == {path.name for path in stub.iterdir()}
    for file in real.glob("*.safetensors"):
        form = [
            {name: (tensor["dtype"], tensor["shape"]) for name, tensor in header.items()}
            for header in (read_header(file), read_header(stub / file.name))
        ]
        assert form[0] == form[1]
    for file in real.glob("quant_model_description.json"):
        assert json.loads(file.read_text()) == json.loads((stub / file.name).read_text())
    for file in real.glob("*.index.json"):
        maps = [json.loads(f.read_text())["weight_map"] for f in (file, stub / file.name)]
        assert maps[0] == maps[1]


def test_what_is_known_of_an_installation(model):
    quantizer = make_quantizer(REAL)
    assert quantizer.versions()["msmodelslim"].startswith("26.")
    assert pedigree(COMMAND, "Qwen3-32B") == ("qwen3", "")
    assert pedigree(COMMAND, "default") == ("default", "")
    practice = practice_from_scheme("w8a8_static", dataset="mix_calib.jsonl")
    assert quantizer.problems(practice) == []


@pytest.mark.parametrize(
    ("options", "steps", "first"),
    [
        ({"metric": "mse"}, 4, "model.layers."),
        ({"metric": "mse_model_wise", "include": ["*.layers.3.*"]}, 1, "model.layers.3"),
        ({"metric": "kurtosis"}, 16, "model.layers."),
    ],
)
def test_rankings_of_the_tool(model, options, steps, first):
    result = analyze(
        {
            "model": str(model),
            "scheme": "w8a8_static",
            "source": "msmodelslim",
            "msmodelslim": {"command": COMMAND},
            "calibration": {"samples": 4, "length": 32},
            "threads": 1,
            **options,
        }
    )
    assert len(result["ranking"]) == steps
    assert result["ranking"][0]["layers"][0].startswith(first)
    scores = [step["score"] for step in result["ranking"]]
    assert scores == sorted(scores, reverse=True)
