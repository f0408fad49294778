"""The stage program, and evaluators by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainables import StageError
from trainables.engines.testing import drive
from trainables.evaluation import (
    EvaluationResult,
    StopRule,
    Subject,
    evaluation_schema,
    evaluator_type,
    evaluator_types,
    make_evaluator,
    paired_difference,
    register_evaluator,
    resolved_block,
)
from trainables.evaluation.evaluate import evaluate
from trainables.evaluation.testing import check_block

ROOT = Path(__file__).parents[3]
DATASETS = {
    "prose": {"kind": "text", "path": "builtin:prose", "tokens": 256, "window": 64},
    "choice": {
        "kind": "multiple_choice",
        "path": "builtin:choice",
        "items": 12,
        "prompt": "{question}",
    },
}


def block(**changes):
    return {"type": "transformers", "datasets": DATASETS, **changes}


def request(model, *, evaluation=None, **changes):
    return {"model": str(model), "evaluation": block(**(evaluation or {})), **changes}


def run_program(folder, document):
    (folder / "request.json").write_text(json.dumps(document), encoding="utf-8")
    argv = [sys.executable, "-m", "trainables.evaluation.evaluate"]
    ended = subprocess.run(
        [*argv, str(folder / "request.json"), str(folder / "result.json")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        check=False,
        timeout=240,
    )
    return ended.returncode, json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_a_whole_evaluation_in_its_own_process(tiny_checkpoint, tmp_path):
    code, document = run_program(tmp_path, request(tiny_checkpoint, threads=1))
    assert (code, document["ok"]) == (0, True)
    result = document["result"]
    names = {
        f"prose/{name}{suffix}"
        for name in ("perplexity", "nll", "next_token_accuracy")
        for suffix in ("", "_se")
    }
    names |= {
        f"choice/{name}{suffix}"
        for name in ("accuracy", "accuracy_normalized")
        for suffix in ("", "_se")
    }
    assert set(result["metrics"]) == names
    assert result["tokens"] == sum(each["tokens"] for each in result["datasets"].values())
    assert result["datasets"]["prose"]["items"] == 4
    assert result["environment"]["scheme"] == {"scheme": "float"}
    assert set(result["seconds"]) == {"import", "load", "verify", "evaluate"}
    assert result["skipped"] == []
    again = evaluate(request(tiny_checkpoint))
    assert again["metrics"] == pytest.approx(result["metrics"], rel=1e-5)
    for name, record in result["per_item"].items():
        changes = paired_difference(record, again["per_item"][name])
        assert all(change.value == pytest.approx(0, abs=1e-3) for change in changes.values())


def test_failures_reach_the_result_file(tmp_path):
    code, document = run_program(tmp_path, request(tmp_path / "absent"))
    assert (code, document["ok"]) == (1, False)
    assert document["error"]["class"] == "input"
    assert "absent" in document["error"]["message"]


@pytest.mark.parametrize(
    ("limit", "direction", "skipped"),
    [(1.0, "lower", ("choice",)), (1e300, "lower", ()), (1.0, "higher", ())],
)
def test_a_broken_rule_ends_the_evaluation(tiny_checkpoint, limit, direction, skipped):
    rule = {"dataset": "prose", "metric": "perplexity", "limit": limit, "direction": direction}
    result = evaluate(request(tiny_checkpoint, stop_when=[rule]))
    assert result["skipped"] == skipped
    assert set(result["per_item"]) == set(DATASETS) - set(skipped)


def test_order_decides_what_is_evaluated_first(tiny_checkpoint):
    rule = {"dataset": "choice", "metric": "accuracy", "limit": 1.1, "direction": "higher"}
    datasets = {name: DATASETS[name] for name in ("choice", "prose")}
    result = evaluate(request(tiny_checkpoint, evaluation={"datasets": datasets}, stop_when=[rule]))
    assert list(result["per_item"]) == ["choice"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"type": "guess"}}, "there is no evaluator"),
        ({"evaluation": {"dtpye": "float32"}}, "dtpye"),
        ({"evaluation": {"datasets": {}}}, "datasets"),
        ({"evaluation": {"datasets": {"a": {"kind": "text", "path": "x", "widow": 3}}}}, "widow"),
        (
            {"evaluation": {"datasets": {"a": {"kind": "text", "path": "/nowhere.txt"}}}},
            "/nowhere.txt",
        ),
        (
            {"evaluation": {"datasets": {"a": {"kind": "text", "path": "x", "tokens": 500}}}},
            "500 tokens do not fill",
        ),
        (
            {
                "stop_when": [
                    {"dataset": "prose", "metric": "wit", "limit": 1, "direction": "lower"}
                ]
            },
            "prose/wit",
        ),
        (
            {
                "evaluation": {
                    "datasets": {"a": {"kind": "multiple_choice", "path": "x", "prompt": "Say:"}}
                }
            },
            "must contain {question}",
        ),
    ],
)
def test_wrong_requests_are_told_apart_from_failures(tiny_checkpoint, changes, message):
    with pytest.raises(StageError, match=message) as caught:
        evaluate(request(tiny_checkpoint) | request(tiny_checkpoint, **changes))
    assert caught.value.failure == "input"


def test_problems_are_found_without_a_model(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text("{}\nx\n", encoding="utf-8")
    good = {"kind": "text", "path": "builtin:prose"}
    bad = {"kind": "multiple_choice", "path": str(file)}
    assert make_evaluator(block(datasets={"good": good})).problems() == []
    found = make_evaluator(block(datasets={"good": good, "bad": bad})).problems()
    assert {place for place, _ in found} == {"datasets.bad.path"}
    assert {message.split(":")[1] for _, message in found} == {"1", "2"}


def test_paths_are_absolute_for_nodes_with_another_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets = {
        "own": {"kind": "text", "path": "own.txt"},
        "shipped": {"kind": "text", "path": "builtin:prose"},
    }
    resolved = resolved_block({"datasets": datasets})
    assert resolved["datasets"]["own"]["path"] == str(tmp_path / "own.txt")
    assert resolved["datasets"]["shipped"]["path"] == "builtin:prose"
    assert resolved["type"] == "transformers"
    assert resolved_block(resolved) == resolved


def test_identity_follows_what_decides_the_numbers(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    for file in (one, two):
        file.write_text("The same text.", encoding="utf-8")

    def identity(path, window=512, **options):
        dataset = {"kind": "text", "path": str(path), "window": window}
        return make_evaluator({"datasets": {"a": dataset}, **options}).identity()

    same = identity(one)
    assert same == identity(two)
    assert same == identity(one, batch_tokens=1)
    assert same != identity(one, window=64)
    assert same != identity(one, dtype="bfloat16")
    two.write_text("Another text.", encoding="utf-8")
    assert same != identity(two)


def test_a_trial_carries_it_out_as_one_stage(tiny_checkpoint, trial):
    evaluator = make_evaluator(block())
    rule = StopRule(dataset="prose", metric="perplexity", limit=1.0, direction="lower")
    subject = Subject(tiny_checkpoint, threads=1, stop_when=(rule,))
    result = drive(evaluator.carry_out(trial, subject, timeout=200), within_s=200)
    assert isinstance(result, EvaluationResult)
    assert result.skipped == ("choice",)
    assert set(result.per_item) == {"prose"}
    assert [stage["name"] for stage in trial.stages] == list(evaluator.stage_names())
    assert evaluator.datasets()["choice"] == {"accuracy", "accuracy_normalized"}


def test_the_contract_of_an_evaluator_is_kept(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("Some text.", encoding="utf-8")
    dataset = {"kind": "text", "path": str(file)}
    check_block(
        block(),
        matters=[{"dtype": "bfloat16"}, {"datasets": {"own": dataset}}],
        neutral=[{"batch_tokens": 7}],
    )


PLUG_IN = """
from typing import Literal
from trainables.evaluation import EvaluationOptions, EvaluationResult, InProcessEvaluator

class Options(EvaluationOptions):
    type: Literal["constant"]
    score: float

class Constant(InProcessEvaluator):
    Options = Options

    def evaluate(self, request):
        scores = {f"{name}/score": self.options.score for name in request.datasets}
        return EvaluationResult(scores, {}, {})
"""


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A package that is installed in ``tmp_path`` and brings two evaluators, one of them broken."""
    from trainables.evaluation import _evaluator

    known = dict(_evaluator._EVALUATORS._classes)
    monkeypatch.setattr(_evaluator._EVALUATORS, "_classes", known)
    metadata = tmp_path / "constant_evaluator-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: constant-evaluator\n")
    (metadata / "entry_points.txt").write_text(
        "[npu_tuner.evaluators]\n"
        "constant = constant_evaluator:Constant\n"
        "broken = constant_evaluator:Missing\n"
    )
    (tmp_path / "constant_evaluator.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)


def test_installed_packages_bring_their_own_evaluators(plug_in):
    assert {"broken", "constant", "transformers"} <= set(evaluator_types())
    result = evaluate(request("any", evaluation={"type": "constant", "score": 0.5}))
    assert result["metrics"] == {"prose/score": 0.5, "choice/score": 0.5}
    with pytest.raises(ImportError, match="constant_evaluator:Missing"):
        evaluator_type("broken")
    types = [one["properties"]["type"]["const"] for one in evaluation_schema()["oneOf"]]
    assert types == ["aisbench", "constant", "transformers"]


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="is taken"):
        register_evaluator("transformers")(evaluator_type("transformers"))


def test_importing_needs_no_torch():
    code = "import trainables.evaluation, sys; sys.exit('torch' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        check=True,
        timeout=60,
    )
