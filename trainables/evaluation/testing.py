"""Conformance suite of the evaluator contract, for our evaluators and those of third parties.

One call from a test checks everything, with real processes::

    def test_my_evaluator_keeps_the_contract(tmp_path):
        check_evaluator(
            {"type": "mine", "datasets": {...}},
            better=..., worse=..., folder=tmp_path, matters=[...], breaks=[...],
        )

The evaluation is carried out for a good and a bad model, resumed, ended early by a stop rule,
given up, and made to fail. Whatever breaks the contract raises :class:`ContractViolation`.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from cluster import sweep
from trainables._contract import (
    ContractViolation as ContractViolation,
)
from trainables._contract import (
    json_identity,
    require,
    require_nothing_left,
)
from trainables._trial import Json, TrialFailure, TrialRun
from trainables.engines.testing import drive, trial_in
from trainables.evaluation._aisbench_options import PRECHECK
from trainables.evaluation._evaluator import (
    EvaluationResult,
    Evaluator,
    Subject,
    evaluation_schema,
    make_evaluator,
    resolved_block,
)
from trainables.evaluation._options import SE_SUFFIX, StopRule

_TIMEOUT_S = 300.0
_RESUMED_S = 60.0


def check_evaluator(
    block: Mapping[str, Json],
    *,
    better: Path,
    worse: Path,
    folder: Path,
    matters: Iterable[Mapping[str, Json]] = (),
    neutral: Iterable[Mapping[str, Json]] = (),
    breaks: Iterable[Mapping[str, Json]] = (),
) -> None:
    """Check the whole contract.

    Args:
        block: An ``evaluation`` block, of two datasets at least, that can be carried out here.
        better: A model.
        worse: Another one, which gets other numbers on every dataset.
        folder: Empty folder for trials.
        matters: Changes of the block, each of which changes results.
        neutral: Changes of the block that only concern where, or how fast.
        breaks: Changes of the block, each of which makes its infrastructure fail.
    """
    check_block(block, matters=matters, neutral=neutral)
    run_id = f"evaluator-{uuid.uuid4().hex}"
    try:
        evaluator = make_evaluator(block)
        found = _check_life(evaluator, better, folder / "life", run_id)
        _check_difference(evaluator, worse, found, trial_in(folder / "worse", run_id))
        _check_early_end(evaluator, better, found, trial_in(folder / "early", run_id))
        _check_giving_up(evaluator, better, trial_in(folder / "given-up", run_id))
        for number, change in enumerate(breaks):
            trial = trial_in(folder / f"broken-{number}", run_id)
            _check_failure(make_evaluator({**block, **change}), better, trial, change)
    finally:
        sweep(run_id, grace_s=0)


def check_block(
    block: Mapping[str, Json],
    *,
    matters: Iterable[Mapping[str, Json]] = (),
    neutral: Iterable[Mapping[str, Json]] = (),
) -> None:
    """Check what can be checked without a model; arguments as :func:`check_evaluator`."""
    evaluator = make_evaluator(block)
    resolved = resolved_block(block)
    again = resolved_block(json.loads(json.dumps(resolved, allow_nan=False)))
    require(again == resolved, f"options change on the way through JSON: {resolved} -> {again}")
    require(evaluator.problems() == [], f"a sound block has problems: {evaluator.problems()}")
    identity = json_identity(make_evaluator(block))
    require(
        identity == json_identity(make_evaluator(resolved)),
        "resolving the block changes its identity",
    )
    for change in neutral:
        require(
            identity == json_identity(make_evaluator({**block, **change})),
            f"{change} changes the identity",
        )
    for change in matters:
        require(
            identity != json_identity(make_evaluator({**block, **change})),
            f"{change} does not change identity",
        )
    stages = evaluator.stage_names()
    sound = all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", stage) for stage in stages)
    require(bool(stages) and sound, f"stages are no file names: {stages}")
    require(len(set(stages)) == len(stages), f"two stages are called the same: {stages}")
    metrics = evaluator.datasets()
    require(bool(metrics) and all(metrics.values()), f"a dataset without metrics: {metrics}")
    _check_schema(evaluator)


def _check_schema(evaluator: Evaluator) -> None:
    document = evaluation_schema()
    kind = evaluator.options.type
    named = [one for one in document["oneOf"] if one["properties"]["type"]["const"] == kind]
    require(len(named) == 1, f"{kind} is not once in the schema")
    missing = set(type(evaluator.options).model_fields) - set(named[0]["properties"])
    require(not missing, f"the schema lacks {missing}")
    text = json.dumps(document)
    lost = set(re.findall(r'"#/\$defs/([^"]+)"', text)) - set(document["$defs"])
    require(not lost, f"the schema refers to definitions it lacks: {lost}")


def _check_life(evaluator: Evaluator, model: Path, folder: Path, run_id: str) -> EvaluationResult:
    trial = trial_in(folder, run_id)
    found = _carried_out(evaluator, trial, Subject(model))
    _require_sound(evaluator, found)
    require(found.skipped == (), f"without a stop rule, {found.skipped} was skipped")
    names = [stage["name"] for stage in trial.stages]
    require(names == list(evaluator.stage_names()), f"stages are {names}")
    resumed = TrialRun(trial.spec)
    steps = evaluator.carry_out(resumed, Subject(model), timeout=_TIMEOUT_S)
    again = drive(steps, within_s=_RESUMED_S)
    require(again.metrics == found.metrics, "a resumed evaluation gives other numbers")
    fresh = [stage["name"] for stage in resumed.stages if not stage["resumed"]]
    require(not fresh, f"a resumed evaluation ran {fresh} anew")
    return found


def _check_difference(
    evaluator: Evaluator, worse: Path, found: EvaluationResult, trial: TrialRun
) -> None:
    other = _carried_out(evaluator, trial, Subject(worse))
    for dataset, metrics in evaluator.datasets().items():
        keys = [f"{dataset}/{metric}" for metric in metrics]
        same = all(other.metrics.get(key) == found.metrics.get(key) for key in keys)
        require(not same, f"both models get the same numbers on {dataset}")


def _check_early_end(
    evaluator: Evaluator, model: Path, found: EvaluationResult, trial: TrialRun
) -> None:
    """The first dataset fails a demand, so no other one is worth its time."""
    first, *others = evaluator.datasets()
    metric = next(m for m in evaluator.datasets()[first] if f"{first}/{m}" in found.metrics)
    value = found.metrics[f"{first}/{metric}"]
    fine = StopRule(dataset=first, metric=metric, limit=value, direction="higher")
    broken = StopRule(dataset=first, metric=metric, limit=value + 1, direction="higher")
    ended = _carried_out(evaluator, trial, Subject(model, stop_when=(fine, broken)))
    require(ended.skipped == tuple(others), f"{ended.skipped} was skipped instead of {others}")
    require(f"{first}/{metric}" in ended.metrics, "the metric that failed is not reported")


def _check_giving_up(evaluator: Evaluator, model: Path, trial: TrialRun) -> None:
    steps = evaluator.carry_out(trial, Subject(model), timeout=_TIMEOUT_S)
    next(steps)
    steps.close()
    require_nothing_left(trial.spec.run_id)


def _check_failure(
    evaluator: Evaluator, model: Path, trial: TrialRun, change: Mapping[str, Json]
) -> None:
    try:
        found = _carried_out(evaluator, trial, Subject(model))
    except TrialFailure as failure:
        require(bool(str(failure)), "a failure without a message")
        require_nothing_left(trial.spec.run_id)
    else:
        raise ContractViolation(f"{change} gives numbers: {dict(found.metrics)}")


def _carried_out(evaluator: Evaluator, trial: TrialRun, subject: Subject) -> EvaluationResult:
    steps = evaluator.carry_out(trial, subject, timeout=_TIMEOUT_S)
    found = drive(steps, within_s=_TIMEOUT_S)
    require_nothing_left(trial.spec.run_id)
    return found


def _require_sound(evaluator: Evaluator, found: EvaluationResult) -> None:
    document = asdict(found)
    again = EvaluationResult.from_json(json.loads(json.dumps(document, allow_nan=False)))
    require(asdict(again) == document, "the result changes on the way through JSON")
    finite = all(math.isfinite(value) for value in found.metrics.values())
    require(finite, f"not finite: {dict(found.metrics)}")
    declared = {f"{name}/{m}" for name, own in evaluator.datasets().items() for m in own}
    known = declared | {f"{name}{SE_SUFFIX}" for name in declared} | {f"{PRECHECK}/passed"}
    require(set(found.metrics) <= known, f"undeclared metrics: {set(found.metrics) - known}")
    for name in evaluator.datasets():
        measured = any(key.startswith(f"{name}/") for key in found.metrics)
        require(measured, f"{name} has no metric")
