"""Rankings by ``msmodelslim analyze``, with a stub in its place."""

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.tiny_qwen3 import write_tiny_qwen3
from trainables import StageError
from trainables.analysis import AnalysisOptions, table, write_picture
from trainables.analysis._msmodelslim import parse_scores
from trainables.analysis.analyze import analyze
from trainables.quantization import practice_from_scheme

STUB = Path(__file__).parents[2] / "stubs" / "msmodelslim.py"
LOG = """\
2026-11-24 16:08:43,270 - msmodelslim.app.analysis.application - INFO - Total layers analyzed: 3
2026-11-24 16:08:43,270 - msmodelslim.app - INFO -   1. model.layers.2      | Score:   4.3665e-05
2026-11-24 16:08:43,270 - msmodelslim.app - INFO -   2. model.layers.0      | Score:   4.3665e-05
2026-11-24 16:08:43,270 - msmodelslim.app - INFO -  10. model.layers.1      | Score:  -1.0000e+00
2026-11-24 16:08:43,270 - msmodelslim.app - INFO - Top 3 most sensitive layers selected
top 3:
  - 'model.layers.2.*'
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_qwen3(tmp_path_factory.mktemp("qwen3"), hidden=64, head_dim=16)


@pytest.fixture
def run(model, tmp_path):
    """The result of an analysis by the stub, and the arguments it was called with."""

    def run(behaviour=None, **changes):
        record = tmp_path / "calls"
        how = {"record": str(record), **(behaviour or {})}
        env = {f"MSMODELSLIM_STUB_{k.upper()}": json.dumps(v) for k, v in how.items()}
        tool = {"command": [sys.executable, str(STUB)], "env": env}
        request = {
            "model": str(model),
            "scheme": "w8a8_static",
            "source": "msmodelslim",
            "msmodelslim": tool,
            "calibration": {"samples": 2, "length": 8},
        }
        result = analyze(request | changes)
        (call,) = [json.loads(line) for line in record.read_text().splitlines()]
        return result, call

    return run


def steps(result):
    return [step["layers"] for step in result["ranking"]]


def test_blocks_in_the_order_of_the_tool(run):
    scores = {f"model.layers.{n}": s for n, s in enumerate([0.5, 4.3665e-05, 2.0, 0.5])}
    result, call = run({"scores": scores})
    blocks = [f"model.layers.{n}" for n in (2, 0, 3, 1)]
    assert steps(result) == [[blocks[0]], [blocks[1], blocks[2]], [blocks[3]]]
    assert [step["score"] for step in result["ranking"]] == [2.0, 0.5, 4.3665e-05]
    assert call["arguments"][:2] == ["analyze", "layer"]
    assert call["arguments"][call["arguments"].index("--metrics") + 1] == "mse_layer_wise"
    assert result["scheme"] == "MXFP4 (msmodelslim)"
    assert (result["unit"], result["source"], result["tokens"]) == ("block", "msmodelslim", None)


def test_linear_layers_in_groups_that_engines_run_as_one(run):
    result, call = run(metric="kurtosis")
    assert call["arguments"][:2] == ["analyze", "linear"]
    groups = {frozenset(group) for group in steps(result)}
    attention = {f"model.layers.3.self_attn.{leaf}_proj" for leaf in "qkv"}
    assert frozenset(attention) in groups
    assert result["groups"] == 16
    assert sum(len(group) for group in groups) == 28


def test_every_layer_alone_where_asked(run):
    result, _ = run(metric="std", unit="layer")
    assert result["groups"] == 28


def test_what_is_ranked_is_what_the_practice_quantizes_and_include_covers(run):
    document = practice_from_scheme("w8a8_static").document()
    document["spec"]["process"][0]["exclude"] = ["*.layers.0.*"]
    result, _ = run(scheme=None, practice=document, include=["*.0.*", "*.3.mlp.*"])
    assert steps(result) == [["model.layers.3"]]


def test_a_ranking_without_any_candidate_says_so(run):
    with pytest.raises(StageError, match=r"none of which the practice quantizes") as caught:
        run(include=["*.9.*"])
    assert caught.value.failure == "input"


def test_the_calibration_of_the_trial_is_shown_to_the_tool(run):
    _, call = run()
    given = call["arguments"][call["arguments"].index("--calib_dataset") + 1]
    assert given.endswith("/calibration.jsonl")
    assert not Path(given).exists()


@pytest.mark.parametrize(
    ("device", "visible", "kind", "shown"),
    [
        ("cpu", None, "cpu", None),
        ("cpu", "4,5", "cpu", "4,5"),
        ("npu", "4,5", "npu", "4,5"),
        ("npu:1", None, "npu", "1"),
        ("npu:1", "4,5", "npu", "5"),
    ],
)
def test_a_numbered_device_is_the_only_one_the_tool_sees(
    run, monkeypatch, device, visible, kind, shown
):
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    _, call = run(device=device)
    assert call["arguments"][call["arguments"].index("--device") + 1] == kind
    assert call["environment"].get("ASCEND_RT_VISIBLE_DEVICES") == shown


def test_a_device_that_is_not_shown_is_refused(run, monkeypatch):
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,5")
    with pytest.raises(StageError, match="npu:2 names more devices"):
        run(device="npu:2")


@pytest.mark.parametrize(
    ("behaviour", "failure_class"),
    [
        ({"fail": ["UnsupportedError", 301, "no such interface", "x"]}, "input"),
        ({"cause": "RuntimeError: NPU out of memory."}, "out_of_memory"),
    ],
)
def test_failures_of_the_tool_are_classed(run, behaviour, failure_class):
    with pytest.raises(StageError) as caught:
        run(behaviour)
    assert caught.value.failure == failure_class


def test_a_missing_command_is_named(run):
    with pytest.raises(StageError, match="'/nowhere/msmodelslim' is not there"):
        run(msmodelslim={"command": ["/nowhere/msmodelslim"]})


def test_the_log_is_read_line_by_line():
    scores = parse_scores(LOG.splitlines(keepends=True))
    assert scores == {
        "model.layers.2": 4.3665e-05,
        "model.layers.0": 4.3665e-05,
        "model.layers.1": -1.0,
    }


@pytest.mark.parametrize("log", ["", "nothing to see", LOG.replace("analyzed: 3", "analyzed: 4")])
def test_a_log_without_a_whole_ranking_is_a_failure(log):
    with pytest.raises(StageError, match="printed the scores of") as caught:
        parse_scores(log.splitlines())
    assert caught.value.failure == "tool"


def test_a_ranking_of_blocks_can_be_shown(run, tmp_path):
    result, _ = run()
    assert "model.layers.3" in table(result)
    write_picture(result, tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("given", "scope", "unit"),
    [
        ({}, "layer", "block"),
        ({"metric": "kurtosis"}, "linear", "fused"),
        ({"unit": "block"}, "layer", "block"),
        ({"scope": "layer", "metric": "mse_model_wise"}, "layer", "block"),
        ({"scope": "linear", "metric": "std", "unit": "layer"}, "linear", "layer"),
    ],
)
def test_scope_and_unit_follow_from_each_other(given, scope, unit):
    options = AnalysisOptions.model_validate({"source": "msmodelslim", **given})
    assert (options.scope, options.unit) == (scope, unit)
    assert AnalysisOptions.model_validate(options.model_dump()) == options


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"scope": "linear"}, "scope belongs to source msmodelslim"),
        ({"metric": "mse_layer_wise"}, "belongs to source msmodelslim"),
        ({"source": "msmodelslim", "metric": "fisher"}, "knows mse, mse_layer_wise"),
        ({"source": "msmodelslim", "scope": "linear", "metric": "mse"}, "knows std, quantile"),
        ({"source": "msmodelslim", "scope": "layer", "unit": "fused"}, "not rank by unit fused"),
        ({"source": "msmodelslim", "unit": "block", "metric": "std"}, "scope layer knows"),
        ({"source": "msmodelslim", "metric": "std", "on": "weights"}, "activations only"),
        ({"fused": "off"}, "fused"),
    ],
)
def test_combinations_without_a_meaning_are_refused(given, complaint):
    with pytest.raises(ValidationError, match=complaint):
        AnalysisOptions.model_validate(given)


def test_identity_leaves_out_where_the_tool_lies():
    def identity(command, **more):
        tool = {"command": command, **more}
        return AnalysisOptions(source="msmodelslim", msmodelslim=tool).identity()

    assert identity(["/a/msmodelslim"]) == identity(["/b/msmodelslim"])
    assert identity(["x"], model_type="Qwen3-32B") != identity(["x"])
    assert "msmodelslim" not in AnalysisOptions().identity()
