"""Whatever happens to msModelSlim is classed by what it said, and no weights are kept."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from cluster import ProcessTree, find_processes
from trainables import StageError
from trainables.quantization import failure_report, practice_from_scheme
from trainables.quantization.quantize import quantize

INVALID_MODEL = [
    "InvalidModelError",
    201,
    "Failed to load the tokenizer",
    "Install protobuf.",
]


@pytest.fixture
def request_of(tiny_qwen3: Path, tmp_path: Path, msmodelslim_stub):
    def request_of(scheme="w8a8_static", saver="compressed_tensors", **behaviour):
        practice = practice_from_scheme(scheme).document()
        practice["spec"]["save"] = [{"type": saver}]
        return {
            "model": str(tiny_qwen3),
            "practice": practice,
            "quantizer": msmodelslim_stub(**behaviour),
            "output": str(tmp_path / "out" / "weights"),
            "calibration": {"samples": 2, "length": 8},
        }

    return request_of


@pytest.fixture
def failure(request_of, tmp_path: Path):
    """The failure of a quantization by a stub that behaves so; nothing may be left of it."""

    def failure(**behaviour):
        with pytest.raises(StageError) as caught:
            quantize(request_of(**behaviour))
        assert list((tmp_path / "out").iterdir()) == []
        return caught.value

    return failure


@pytest.mark.parametrize(
    ("behaviour", "failure_class", "said"),
    [
        ({"fail": INVALID_MODEL}, "input", "InvalidModelError (code 201): Failed to load the tok"),
        ({"fail": ["SpecError", 302, "a\n  b\n  c", "tip"]}, "input", "(code 302): a; b; c"),
        ({"fail": ["ModelslimTimeoutError", 303, "late", ""]}, "timeout", "(code 303): late"),
        (
            {
                "cause": "torch.OutOfMemoryError: NPU out of memory. Tried to allocate 2.00 GiB",
                "fail": ["UnexpectedError", 500, "Unexpected error.", "Report."],
            },
            "out_of_memory",
            "NPU out of memory",
        ),
        (
            {"cause": "RuntimeError: NPU out of memory.", "fail": INVALID_MODEL},
            "out_of_memory",
            "NPU out of memory",
        ),
        ({"cause": "MemoryError"}, "out_of_memory", "MemoryError"),
        ({"cause": "RuntimeError: ACL error: 507018"}, "device", "ACL error: 507018"),
        (
            {
                "cause": "RuntimeError: expected m1 and m2 to have the same dtype, but got: float",
                "fail": ["UnexpectedError", 500, "Unexpected error.", "Report."],
            },
            "input",
            "same dtype",
        ),
        ({"cause": "KeyError: 'q_proj'"}, "tool", "KeyError: 'q_proj'"),
        (
            {"cause": "OSError: [Errno 28] No space left on device: 'x'"},
            "tool",
            "No space left on device",
        ),
        ({"say": "Connection refused, trying again", "exit_code": 7}, "network", "exit code 7"),
        ({"exit_code": 9}, "tool", "exit code 9"),
        ({"kill": signal.SIGKILL}, "out_of_memory", "killed by SIGKILL"),
        ({"kill": signal.SIGSEGV}, "tool", "SIGSEGV"),
        ({"ask": True}, "tool", "EOFError"),
        ({"write": False}, "tool", "reports success, but left no whole checkpoint"),
    ],
)
def test_failures_are_classed_by_what_the_tool_said(failure, behaviour, failure_class, said):
    caught = failure(**behaviour)
    assert (caught.failure, said in str(caught)) == (failure_class, True), str(caught)


def test_a_warning_about_the_network_does_not_make_an_error_one_of_the_network(failure):
    caught = failure(say="Connection refused, trying again", cause="KeyError: 'q_proj'")
    assert caught.failure == "tool"


def test_the_tools_advice_reaches_the_user(failure):
    assert failure(fail=INVALID_MODEL).suggestion == "Install protobuf."


def test_what_the_tool_prints_goes_to_the_stages_log(failure, capfd):
    failure(say="loading shard 1 of 9", fail=INVALID_MODEL)
    printed = capfd.readouterr().out
    assert "loading shard 1 of 9" in printed
    assert "Code: 201" in printed


def test_a_device_that_is_not_there_is_a_failure_of_the_device(request_of):
    with pytest.raises(StageError) as caught:
        quantize(request_of() | {"device": "npu:0"})
    assert caught.value.failure == "device"


@pytest.mark.parametrize("saver", ["ascendv1_saver", "compressed_tensors"])
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"forget": ["*.0.mlp.up_proj.weight"]}, "model.layers.0.mlp.up_proj"),
        ({"forget": ["model.norm.weight"]}, "model.norm.weight"),
        ({"forget": ["*.3.self_attn.q_proj.input_scale"]}, "model.layers.3.self_attn.q_proj"),
        ({"float_too": ["*.2.mlp.down_proj"]}, "model.layers.2.mlp.down_proj"),
        ({"float_too": ["*"]}, "model.layers.0.mlp.down_proj"),
    ],
)
def test_success_that_is_none_is_found_out(failure, saver, behaviour, said):
    caught = failure(saver=saver, **behaviour)
    assert caught.failure == "tool"
    assert "not what was asked for" in str(caught)
    assert said in str(caught)


@pytest.mark.parametrize("saver", ["ascendv1_saver", "compressed_tensors"])
def test_a_fallback_layer_in_integers_is_found_out(request_of, saver):
    request = request_of(saver=saver, integer_too=["*.1.mlp.down_proj"])
    request["practice"]["spec"]["process"][0]["exclude"] = ["*.1.mlp.down_proj"]
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.down_proj should be in float"):
        quantize(request)


def test_what_the_tool_started_ends_with_the_stage(request_of, tmp_path: Path):
    """A hung tool, stopped as a stage that takes too long is."""
    files = [tmp_path / name for name in ("request.json", "result.json", "log")]
    files[0].write_text(json.dumps(request_of(hang=True, say="hanging")))
    module = "trainables.quantization.quantize"
    argv = [sys.executable, "-m", module, *map(str, files[:2])]
    run_id = f"msmodelslim-{os.getpid()}"
    with ProcessTree.start(argv, log=files[2], run_id=run_id, label="quantize") as tree:
        deadline = time.monotonic() + 240
        while "hanging" not in files[2].read_text():
            assert tree.wait(0.1) is None
            assert time.monotonic() < deadline
        assert len(tree.pids()) == 2
    assert not find_processes(run_id)
    assert not (tmp_path / "out" / "weights").exists()


@pytest.mark.parametrize(
    ("failure_class", "message", "code"),
    [
        ("out_of_memory", "msmodelslim quant was killed by SIGKILL", "OOM_ERROR"),
        ("input", "msmodelslim quant: InvalidModelError (code 201): x", "MODEL_LOAD_ERROR"),
        ("input", "the model cannot be loaded: no tokenizer", "MODEL_LOAD_ERROR"),
        ("input", "/m: 1 of 2 weight files of x are missing", "MODEL_LOAD_ERROR"),
        ("input", "msmodelslim quant: InvalidDatasetError (code 202): x", "DATASET_ERROR"),
        ("input", "spec.dataset: 'x' is no file", "DATASET_ERROR"),
        ("input", "there is no calibration file 'x'", "DATASET_ERROR"),
        ("input", "msmodelslim quant: SchemaValidateError (code 203): x", "VALIDATION_ERROR"),
        ("input", "spec.save: without a saver ...", "VALIDATION_ERROR"),
        ("input", "the command 'msmodelslim' is not there or not executable", "MCP_ERROR"),
        ("lost", "the node died", "MCP_ERROR"),
        ("tool", "msmodelslim quant ended with exit code 9", "UNKNOWN_ERROR"),
        ("timeout", "quantize did not finish within 3 s", "UNKNOWN_ERROR"),
    ],
)
def test_a_failure_as_an_orchestrator_reads_it(failure_class, message, code):
    failure = {"class": failure_class, "message": message, "suggestion": "do this"}
    assert failure_report(failure) == {
        "ok": False,
        "error": message,
        "error_code": code,
        "suggestion": "do this",
    }
    assert failure_report({**failure, "suggestion": None, "excerpt": "x"})["suggestion"] == ""
