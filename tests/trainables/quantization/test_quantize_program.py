"""Real quantizers on a tiny llama: what is on disk is what the practice asked for."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from trainables import StageError
from trainables.models import verify_digest
from trainables.quantization import (
    default_rollback_path,
    named_scheme,
    parse_practice,
    practice_from_scheme,
    with_fallback,
)
from trainables.quantization._fake import fake_linear, weight_parameters
from trainables.quantization.quantize import quantize

FALLBACK = "model.layers.1.mlp.down_proj"
PROMPT = torch.arange(40).view(2, 20)

Quantize = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tiny_llama: Path, texts: Path, tmp_path: Path) -> Quantize:
    """Quantize the tiny llama; keywords change the request."""

    def run(practice, quantizer="llmcompressor", **changes):
        request = {
            "model": str(tiny_llama),
            "practice": practice.document(),
            "quantizer": {"type": quantizer} if isinstance(quantizer, str) else quantizer,
            "output": str(tmp_path / "artifact"),
        }
        calibration = {"samples": 8, "length": 32, **changes.pop("calibration", {})}
        request["calibration"] = {"dataset": str(texts), **calibration}
        return quantize(request | changes)

    return run


def _practice(scheme: str, smoothquant: bool | float = False, fallback: tuple[str, ...] = ()):
    practice = practice_from_scheme(scheme, smoothquant)
    return with_fallback(practice, default_rollback_path(practice), fallback)


def _logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(PROMPT).logits


def _reference_logits(source: Path, scheme: str, artifact: Path, floats: Iterator[str]) -> Any:
    """The float model with every quantized layer computed by our own arithmetic."""
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    stored = load_file(artifact / "model.safetensors")
    linear = named_scheme(scheme)

    def replace(name: str, module: torch.nn.Linear) -> None:
        static = linear.activation is not None and not linear.activation.dynamic
        scale = stored[f"{name}.input_scale"] if static else None
        qparams = (scale, torch.zeros(1, dtype=torch.int8)) if static else None
        module.forward = lambda x: fake_linear(
            x, module.weight, module.bias, linear, activation_qparams=qparams
        )

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name not in {*floats, "lm_head"}:
            replace(name, module)
    with torch.inference_mode():
        return model(PROMPT).logits


@pytest.mark.parametrize(
    ("scheme", "quantizer"),
    [
        ("w8a8_static", "llmcompressor"),
        ("w8a8_static", "torch_reference"),
        ("w8a8_dynamic", "llmcompressor"),
        ("w8a8_dynamic", "torch_reference"),
        ("w8a16", "llmcompressor"),
        ("w4a16_g32", "llmcompressor"),
    ],
)
def test_the_loaded_checkpoint_computes_what_the_scheme_says(run, tiny_llama, scheme, quantizer):
    result = run(_practice(scheme, fallback=(FALLBACK,)), quantizer)
    artifact = Path(result["artifact"])
    assert result["fallback_layers"] == [FALLBACK]
    assert len(result["quantized_layers"]) == 13
    assert result["compression"] > 1.5
    assert result["calibration"]["tokens"] == (256 if scheme == "w8a8_static" else 0)
    loaded = _logits(artifact)
    expected = _reference_logits(tiny_llama, scheme, artifact, [FALLBACK])
    exact = _logits(tiny_llama)
    assert (loaded - expected).norm() < 0.02 * (exact - expected).norm()


def test_fallback_layers_are_in_float_bit_for_bit(run, tiny_llama):
    result = run(_practice("w8a8_static", fallback=("model.layers.0", FALLBACK)))
    stored = load_file(Path(result["artifact"]) / "model.safetensors")
    source = load_file(tiny_llama / "model.safetensors")
    assert len(result["fallback_layers"]) == 8
    for name in result["fallback_layers"]:
        assert torch.equal(stored[f"{name}.weight"], source[f"{name}.weight"])
        assert f"{name}.weight_scale" not in stored
    for name in result["quantized_layers"]:
        assert stored[f"{name}.weight"].dtype == torch.int8


def test_two_implementations_agree(run, tmp_path):
    practice = _practice("w8a8_static")
    several_passes = {"samples": 120, "length": 32}
    ours, theirs = (
        run(practice, name, output=str(tmp_path / name), calibration=several_passes)
        for name in ("torch_reference", "llmcompressor")
    )
    assert ours["calibration"]["tokens"] == theirs["calibration"]["tokens"] == 3840
    mine, other = (load_file(Path(r["artifact"]) / "model.safetensors") for r in (ours, theirs))
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == other[name].dtype and tensor.shape == other[name].shape, name
        if name.endswith("input_scale"):
            assert torch.allclose(tensor, other[name], rtol=1e-3), name
        else:
            assert torch.equal(tensor, other[name]), name
    configs = [
        json.loads((Path(r["artifact"]) / "config.json").read_text())["quantization_config"]
        for r in (ours, theirs)
    ]
    for key in ("quant_method", "format", "ignore"):
        assert configs[0][key] == configs[1][key]


def test_static_scales_are_those_of_smoothed_activations(run, tiny_llama):
    """In one recipe llm-compressor would take them before smoothing."""
    result = run(_practice("w8a8_static", smoothquant=0.5))
    stored = load_file(Path(result["artifact"]) / "model.safetensors")
    plain = load_file(Path(run(_practice("w8a8_static"))["artifact"]) / "model.safetensors")
    norm, scale = (
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.input_scale",
    )
    assert stored[norm][3] < plain[norm][3] / 2
    assert stored[scale] < plain[scale] / 2
    assert (_logits(Path(result["artifact"])) - _logits(tiny_llama)).norm() > 0


def test_layers_can_have_different_schemes(run):
    static = practice_from_scheme("w8a8_static").document()["spec"]["process"][0]
    dynamic = practice_from_scheme("w8a8_dynamic").document()["spec"]["process"][0]
    process = [static | {"include": ["*self_attn*"]}, dynamic | {"exclude": ["*layers.0.*"]}]
    result = run(parse_practice({"spec": {"process": process}}))
    stored = load_file(Path(result["artifact"]) / "model.safetensors")
    assert "model.layers.0.self_attn.q_proj.input_scale" in stored
    assert "model.layers.1.mlp.up_proj.weight_scale" in stored
    assert "model.layers.1.mlp.up_proj.input_scale" not in stored
    assert len(result["fallback_layers"]) == 3
    assert _logits(Path(result["artifact"])).isfinite().all()


@pytest.mark.parametrize("quantizer", ["llmcompressor", "torch_reference"])
def test_asymmetric_activations(run, tiny_llama, quantizer):
    document = _practice("w8a8_static").document()
    document["spec"]["process"][0]["qconfig"]["act"]["symmetric"] = False
    result = run(parse_practice(document), quantizer)
    stored = load_file(Path(result["artifact"]) / "model.safetensors")
    assert stored["model.layers.0.mlp.down_proj.input_zero_point"].dtype == torch.int8
    exact = _logits(tiny_llama)
    assert 0 < (_logits(Path(result["artifact"])) - exact).norm() < 0.5 * exact.norm()


def test_the_sequential_pipeline_quantizes_the_same_weights(run, tmp_path):
    practice = _practice("w8a8_static")
    block = {"type": "llmcompressor", "pipeline": "sequential"}
    basic, sequential = (
        load_file(
            Path(run(practice, q, output=str(tmp_path / n))["artifact"]) / "model.safetensors"
        )
        for n, q in (("basic", "llmcompressor"), ("sequential", block))
    )
    assert basic.keys() == sequential.keys()
    for name in basic:
        if name.endswith("weight"):
            assert torch.equal(basic[name], sequential[name])


def test_the_artifact_is_complete(run, tiny_llama):
    practice = _practice("w8a8_dynamic", fallback=(FALLBACK,))
    result = run(practice)
    artifact = Path(result["artifact"])
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (artifact / name).read_bytes() == (tiny_llama / name).read_bytes()
    assert parse_practice(yaml.safe_load((artifact / "practice.yaml").read_text())) == practice
    assert not verify_digest(artifact, result["files"])
    assert result["files"].keys() == {path.name for path in artifact.iterdir()}
    assert result["sizes"]["model.safetensors"] == result["bytes"]
    assert [path for path in artifact.parent.iterdir() if path.name.startswith(".")] == []


def test_misspelt_fallback_layers_are_reported(run):
    result = run(_practice("w8a8_dynamic", fallback=("*lm_head*", "model.layers.7", "*dwon_proj")))
    assert result["unmatched_patterns"] == ["*model.layers.7.*", "*dwon_proj"]


def test_what_a_killed_attempt_left_does_not_fill_the_disk(run, tmp_path):
    left = tmp_path / ".artifact.unfinished-x1"
    left.mkdir()
    run(_practice("w8a8_dynamic"))
    assert not left.exists()


def test_a_full_disk_is_noticed_before_the_work(run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StageError, match="0 MiB free"):
        run(_practice("w8a8_dynamic"), quantizer="torch_reference")


@pytest.fixture(scope="module")
def tiny_experts(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-experts")
    config = Qwen3MoeConfig(
        vocab_size=257,
        hidden_size=32,
        moe_intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    for path in tiny_llama.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def test_each_expert_is_quantized_and_routers_are_not(run, tiny_experts):
    practice = _practice("w8a8_static", fallback=("model.layers.0.mlp.experts.2",))
    result = run(practice, model=str(tiny_experts))
    assert len(result["quantized_layers"]) == 4 + 3 * 3
    assert result["fallback_layers"] == [
        f"model.layers.0.mlp.experts.2.{name}_proj" for name in ("up", "gate", "down")
    ]
    stored = load_file(Path(result["artifact"]) / "model.safetensors")
    assert stored["model.layers.0.mlp.experts.3.up_proj.weight"].dtype == torch.int8
    assert stored["model.layers.0.mlp.experts.3.up_proj.input_scale"] > 0
    assert stored["model.layers.0.mlp.experts.2.up_proj.weight"].dtype == torch.float32
    assert stored["model.layers.0.mlp.gate.weight"].dtype == torch.float32
    with pytest.raises(StageError, match="joined experts"):
        run(practice, "torch_reference", model=str(tiny_experts))


def test_a_failed_quantization_leaves_the_output_as_it_was(run, tmp_path, monkeypatch):
    first = run(_practice("w8a8_dynamic"))
    monkeypatch.setattr(
        "trainables.quantization._verify.verify_artifact", lambda *_: ["a layer is wrong"]
    )
    with pytest.raises(StageError, match="a layer is wrong") as caught:
        run(_practice("w8a8_static"))
    assert caught.value.failure == "tool"
    assert not verify_digest(tmp_path / "artifact", first["files"])
    assert {path.name for path in tmp_path.iterdir()} == {"artifact", "texts.json"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"quantizer": {"type": "gptq_for_all"}}, "no quantizer 'gptq_for_all'.*llmcompressor"),
        ({"quantizer": {"type": "llmcompressor", "pipelin": "basic"}}, "pipelin"),
        ({"calibration": {"dataset": "nowhere.txt"}}, r"nowhere\.txt"),
        ({"calibration": {"lenght": 3}}, "lenght"),
        ({"model": "/nowhere"}, "/nowhere does not exist"),
    ],
)
def test_a_request_that_cannot_work_is_refused_as_input(run, change, complaint):
    with pytest.raises(StageError, match=complaint) as caught:
        run(_practice("w8a8_static"), **change)
    assert caught.value.failure == "input"


@pytest.mark.parametrize(
    ("practice", "quantizer", "complaint"),
    [
        (_practice("w4a16"), "llmcompressor", "groups of 128.*group size of 64 or 32"),
        (parse_practice({"spec": {}}), "llmcompressor", "leaves every linear layer"),
        (
            _practice("w8a8_dynamic", fallback=("*0.mlp.up_proj",)),
            "llmcompressor",
            r"gate_proj, model\.layers\.0\.mlp\.up_proj as one matrix",
        ),
        (_practice("w4a16"), "torch_reference", "torch_reference does W8A8"),
        (
            _practice("w8a8_static", smoothquant=True),
            "torch_reference",
            r"spec\.process\.0\.type: torch_reference cannot do smooth_quant",
        ),
    ],
)
def test_a_practice_that_cannot_work_is_refused_as_input(run, practice, quantizer, complaint):
    with pytest.raises(StageError, match=complaint) as caught:
        run(practice, quantizer)
    assert caught.value.failure == "input"


def test_msmodelslims_own_processors_are_refused_by_name(run):
    document = _practice("w8a8_static").document()
    document["spec"]["process"].insert(0, {"type": "iter_smooth", "alpha": 0.5})
    document["spec"]["save"] = [{"type": "ascendv1_saver"}]
    with pytest.raises(StageError) as caught:
        run(parse_practice(document))
    assert "cannot do iter_smooth" in str(caught.value)
    assert "not ascendv1_saver" in str(caught.value)


def test_a_quantized_model_is_not_quantized_again(run):
    artifact = run(_practice("w8a8_dynamic"))["artifact"]
    with pytest.raises(StageError, match="quantized already"):
        run(_practice("w8a8_dynamic"), model=artifact, output=f"{artifact}-again")


def test_an_absent_device_is_a_device_failure(run):
    with pytest.raises(StageError, match="npu:0") as caught:
        run(_practice("w8a8_dynamic"), device="npu:0")
    assert caught.value.failure == "device"


def test_weight_scales_do_not_depend_on_calibration(run, tiny_llama, tmp_path):
    result = run(_practice("w8a8_static"), calibration={"samples": 1, "length": 4, "seed": 9})
    stored = load_file(Path(result["artifact"]) / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    weight = load_file(tiny_llama / "model.safetensors")[f"{name}.weight"]
    scale, _ = weight_parameters(weight, named_scheme("w8a8_static").weight)
    assert torch.equal(stored[f"{name}.weight_scale"], scale)
