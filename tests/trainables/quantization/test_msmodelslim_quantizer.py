"""The quantizer msmodelslim with a stub in the tool's place: what goes in, and what is left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from trainables import StageError
from trainables.quantization import (
    Calibration,
    default_rollback_path,
    make_quantizer,
    parse_practice,
    practice_from_scheme,
    with_fallback,
)
from trainables.quantization._calibration import calibration_texts
from trainables.quantization._msmodelslim_plan import calibration_lines
from trainables.quantization.quantize import quantize

FALLBACK = "model.layers.1.mlp.down_proj"
ASCEND, COMPRESSED = "ascendv1_saver", "compressed_tensors"


def practice_of(scheme, saver=COMPRESSED, fallback=(), **changes):
    document = practice_from_scheme(scheme).document()
    document["spec"]["save"] = [{"type": saver}]
    document["spec"] |= changes
    practice = parse_practice(document)
    return with_fallback(practice, default_rollback_path(practice), fallback)


@pytest.fixture
def run(tiny_qwen3: Path, tmp_path: Path, msmodelslim_stub):
    """Quantize the tiny Qwen3; ``behaviour`` is the stub's, other keywords change the request."""

    def run(practice, behaviour=None, **changes: Any):
        request = {
            "model": str(tiny_qwen3),
            "practice": practice.document(),
            "quantizer": msmodelslim_stub(**(behaviour or {})),
            "output": str(tmp_path / "weights"),
            "calibration": {"dataset": "builtin:calibration", "samples": 4, "length": 16},
        }
        return quantize(request | changes)

    return run


def calls(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text().splitlines()]


def option(call: dict[str, Any], name: str) -> str:
    arguments = call["arguments"]
    return arguments[arguments.index(f"--{name}") + 1]


def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.arange(40).view(2, 20)).logits


@pytest.mark.parametrize("saver", [ASCEND, COMPRESSED])
@pytest.mark.parametrize("scheme", ["w8a8_static", "w8a8_dynamic"])
def test_fallback_layers_are_in_float_and_all_others_are_not(run, tiny_qwen3, scheme, saver):
    result = run(practice_of(scheme, saver, fallback=(FALLBACK, "model.layers.2")))
    folder = Path(result["artifact"])
    stored = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    source = load_file(tiny_qwen3 / "model.safetensors")
    assert len(result["fallback_layers"]) == 1 + 7
    assert len(result["quantized_layers"]) == 4 * 7 - 8
    for name in result["fallback_layers"]:
        assert torch.equal(stored[f"{name}.weight"], source[f"{name}.weight"])
    for name in result["quantized_layers"]:
        assert stored[f"{name}.weight"].dtype == torch.int8
    assert result["unmatched_patterns"] == []
    assert result["calibration"]["tokens"] is None
    assert result["tools"] == {"msmodelslim": "unknown"}
    assert {path.name for path in folder.parent.iterdir()} == {"weights"}
    assert not list(folder.glob("*best_practice.yaml"))
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (tiny_qwen3 / name).read_bytes()


@pytest.mark.parametrize("saver", [ASCEND, COMPRESSED])
def test_a_practice_may_leave_everything_in_float(run, saver):
    """The far end of a search over fallback layers."""
    result = run(practice_of("w8a8_static", saver, fallback=("*",)))
    assert result["quantized_layers"] == []
    assert len(result["fallback_layers"]) == 28


def test_the_tool_gets_what_it_asks_for_and_nothing_of_ours(run, tiny_qwen3, tmp_path, monkeypatch):
    checkout = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([checkout, "/cann/python"]))
    record = tmp_path / "calls"
    run(practice_of("w8a8_dynamic"), {"record": str(record)}, threads=3, device=" cpu :")
    (call,) = calls(record)
    assert call["arguments"][0] == "quant"
    assert option(call, "model_path") == str(tiny_qwen3)
    assert option(call, "device") == "cpu"
    assert option(call, "model_type") == "default"
    assert option(call, "trust_remote_code") == "False"
    assert "--quant_type" not in call["arguments"]
    assert call["environment"]["PYTHONPATH"] == "/cann/python"
    assert call["environment"]["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("saver", [ASCEND, COMPRESSED])
def test_our_side_of_it_does_not_wait_for_torch(tiny_qwen3, tmp_path, msmodelslim_stub, saver):
    """Its import takes longer than all that is done here before and after the tool's work."""
    request = {
        "model": str(tiny_qwen3),
        "practice": practice_of("w8a8_static", saver).document(),
        "quantizer": msmodelslim_stub(),
        "output": str(tmp_path / "weights"),
    }
    (tmp_path / "request").write_text(json.dumps(request))
    files = [str(tmp_path / name) for name in ("request", "result")]
    program = (
        "import runpy, sys; sys.modules['torch'] = None;"
        "runpy.run_module('trainables.quantization.quantize', run_name='__main__', alter_sys=True)"
    )
    subprocess.run([sys.executable, "-c", program, *files], check=True)
    assert json.loads((tmp_path / "result").read_text())["ok"]


def test_options_reach_the_tool(run, tmp_path, msmodelslim_stub):
    record = tmp_path / "calls"
    block = msmodelslim_stub(record=str(record)) | {"model_type": "Qwen3-32B"}
    block["env"]["ANSWER"] = "42"
    run(practice_of("w8a8_dynamic"), quantizer=block, trust_remote_code=True)
    (call,) = calls(record)
    assert option(call, "model_type") == "Qwen3-32B"
    assert option(call, "trust_remote_code") == "True"
    assert call["environment"]["ANSWER"] == "42"


def test_the_tools_matcher_is_told_that_a_block_pattern_covers_a_layer(run, tmp_path):
    """``*x.down_proj.*`` matches ``x.down_proj`` for us and, written once only, not for it."""
    record = tmp_path / "calls"
    result = run(practice_of("w8a8_dynamic", fallback=(FALLBACK,)), {"record": str(record)})
    (call,) = calls(record)
    exclude = call["practice"]["spec"]["process"][0]["exclude"]
    assert exclude == [f"*{FALLBACK}.*", f"*{FALLBACK}"]
    assert result["fallback_layers"] == [FALLBACK]


class TestCalibration:
    @pytest.fixture
    def shown(self, run, tmp_path):
        """The texts the tool was shown, from a copy the stub's caller keeps, and its name."""

        def shown(practice, **calibration):
            record = tmp_path / "calls"
            result = run(practice, {"record": str(record)}, calibration=calibration)
            return result, calls(record)[-1]["practice"]["spec"]["dataset"]

        return shown

    def test_the_trials_block_counts_where_the_practice_names_nothing(self, shown):
        result, dataset = shown(practice_of("w8a8_static", dataset="builtin:calibration"))
        assert dataset.endswith("/calibration.jsonl")
        assert result["calibration"]["digest"] is not None

    def test_a_file_of_the_practice_is_taken_as_it_is(self, shown, tmp_path):
        own = tmp_path / "own.jsonl"
        own.write_text('{"inputs_pretokenized": "mine"}\n')
        practice = practice_of("w8a8_static", dataset=str(own))
        _, dataset = shown(practice, dataset="builtin:calibration")
        assert dataset == str(own)

    def test_a_name_the_tool_knows_is_left_to_it(self, shown):
        result, dataset = shown(practice_of("w8a8_static", dataset="mix_calib.jsonl"))
        assert dataset == "mix_calib.jsonl"
        assert result["calibration"]["digest"] is None

    def test_a_file_of_the_users_wins_over_the_tools_default(self, shown, texts):
        practice = practice_of("w8a8_static", dataset="mix_calib.jsonl")
        _, dataset = shown(practice, dataset=str(texts))
        assert dataset.endswith("/calibration.jsonl")


def test_calibration_lines_are_samples_of_a_length_in_an_order_the_seed_decides(texts):
    def pieces(**changes):
        calibration = Calibration(dataset=str(texts), samples=5, length=10, **changes)
        lines = calibration_lines(calibration).splitlines()
        return [json.loads(line)["inputs_pretokenized"] for line in lines]

    assert [len(piece) for piece in pieces()] == [40] * 5
    assert pieces() == pieces() != pieces(seed=1)
    everything = Calibration(dataset=str(texts), samples=10**6, length=10)
    stream = "\n\n".join(calibration_texts(str(texts)))
    assert len(calibration_lines(everything).splitlines()) == len(stream) // 40


def test_identity_is_about_versions_and_contents_not_places(tmp_path, msmodelslim_stub, texts):
    here = make_quantizer(msmodelslim_stub())
    assert "command" not in json.dumps(here.identity())
    assert here.identity()["options"]["model_type"] == "default"
    own = tmp_path / "own.jsonl"
    practice = practice_of("w8a8_static", dataset=str(own))
    seen = set()
    for text in ("one", "two", "one"):
        own.write_text(text)
        seen.add(json.dumps(here.calibration_identity(practice, Calibration())))
    assert len(seen) == 2
    block = practice_of("w8a8_static", dataset=str(texts))
    calibration = Calibration(dataset=str(texts), samples=3)
    assert here.calibration_identity(block, calibration)["samples"] == 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"save": []}, "writes nothing and reports success"),
        ({"save": [{"type": ASCEND}, {"type": COMPRESSED}]}, "name one saver"),
        ({"save": [{"type": "mindie_format_saver"}]}, "spec.save.0.type: mindie_format_saver"),
        ({"dataset": "/nowhere/texts.jsonl"}, "spec.dataset: '/nowhere/texts.jsonl' is no file"),
    ],
)
def test_practices_that_would_leave_nothing_of_use_are_refused(
    msmodelslim_stub, changes, complaint
):
    document = practice_of("w8a8_static").document()
    document["spec"] |= changes
    (problem,) = make_quantizer(msmodelslim_stub()).problems(parse_practice(document))
    assert complaint in problem


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16"])
def test_what_the_compressed_tensors_saver_cannot_write_is_refused(msmodelslim_stub, scheme):
    """It would write integers that no configuration speaks of, and report success."""
    quantizer = make_quantizer(msmodelslim_stub())
    (problem,) = quantizer.problems(practice_of(scheme))
    assert problem.startswith("spec.process.0.qconfig: compressed_tensors takes INT8")
    assert quantizer.problems(practice_of(scheme, ASCEND)) == []


def test_any_processor_is_the_tools_business(msmodelslim_stub):
    document = practice_of("w8a8_static").document()
    document["spec"]["process"].insert(0, {"type": "iter_smooth", "alpha": 0.9})
    document["spec"]["process"][1]["qconfig"]["weight"]["method"] = "ssz"
    assert make_quantizer(msmodelslim_stub()).problems(parse_practice(document)) == []


def test_a_command_that_is_not_there_is_named(run):
    block = {"type": "msmodelslim", "command": ["/opt/nowhere/msmodelslim"]}
    with pytest.raises(StageError, match="'/opt/nowhere/msmodelslim' is not there") as caught:
        run(practice_of("w8a8_static"), quantizer=block)
    assert caught.value.failure == "input"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"device": "cuda:0"}, "device: 'cuda:0'"),
        ({"device": "npu:0,0"}, "device: .*twice"),
        ({"output": "/tmp/a b/weights"}, r"the output folder .*' '"),
        ({"output": "/tmp/模型/weights"}, "'型'"),
    ],
)
def test_places_the_tool_refuses_are_refused_before_the_work(run, changes, complaint):
    with pytest.raises(StageError, match=complaint) as caught:
        run(practice_of("w8a8_static"), {"fail": ["Never", 500, "reached", ""]}, **changes)
    assert caught.value.failure == "input"


def test_layers_that_engines_join_are_not_torn_apart(run):
    practice = practice_of("w8a8_dynamic", fallback=("*0.mlp.up_proj",))
    with pytest.raises(StageError, match="as one matrix"):
        run(practice)


class TestWhatTheSaverLeavesOut:
    """See ``_msmodelslim_settle``."""

    def config(self, result):
        folder = Path(result["artifact"])
        return json.loads((folder / "config.json").read_text())["quantization_config"]

    def test_symmetric_activations_are_called_so(self, run):
        result = run(practice_of("w8a8_static"))
        (group,) = self.config(result)["config_groups"].values()
        assert group["input_activations"]["symmetric"] is True
        assert logits(Path(result["artifact"])).isfinite().all()

    def test_zero_points_that_are_0_are_there(self, run):
        document = practice_of("w8a8_static").document()
        document["spec"]["process"][0]["qconfig"]["act"]["symmetric"] = False
        result = run(parse_practice(document))
        folder = Path(result["artifact"])
        stored = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        listed = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        for name in result["quantized_layers"]:
            value = 0 if "up_proj" in name else -7
            assert stored[f"{name}.input_zero_point"] == value
            assert f"{name}.input_zero_point" in listed
        assert logits(folder).isfinite().all()

    def test_each_scheme_names_its_layers(self, run):
        static = practice_of("w8a8_static").document()["spec"]["process"][0]
        dynamic = practice_of("w8a8_dynamic").document()["spec"]["process"][0]
        process = [static | {"include": ["*self_attn*"]}, dynamic | {"include": ["*mlp*"]}]
        document = practice_of("w8a8_static").document()
        document["spec"]["process"] = process
        result = run(parse_practice(document))
        groups = self.config(result)["config_groups"].values()
        targets = {name for group in groups for name in group["targets"]}
        assert targets == set(result["quantized_layers"])
        by_strategy = {g["input_activations"]["strategy"]: g["targets"] for g in groups}
        assert all("self_attn" in name for name in by_strategy["tensor"])
        assert all("mlp" in name for name in by_strategy["token"])
