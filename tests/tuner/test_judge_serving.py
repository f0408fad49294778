"""Objectives of a serving search: several metrics at once, and the original optimizer's cost."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from searchers import Bound
from tuner._judge import BaselineMissing, judge
from tuner.experiment import Objective

MEASURED = {
    "output_tokens_per_s": 2500.0,
    "ttft_mean_s": 1.0,
    "tpot_mean_s": 0.05,
    "success_rate": 1.0,
}


def objective(**blocks: object) -> Objective:
    return Objective.model_validate(blocks)


def test_several_metrics_make_a_front_and_the_first_decides() -> None:
    wanted = objective(maximize=["output_tokens_per_s"], minimize="tpot_mean_s")
    assert wanted.goal().objectives == (("output_tokens_per_s", 1), ("tpot_mean_s", -1))
    verdict = judge(wanted, MEASURED, None)
    assert verdict.satisfied
    assert verdict.objective == 2500.0
    lacking = {"output_tokens_per_s": 1.0}
    assert not judge(wanted, lacking, None).satisfied


def test_limits_are_told_to_the_strategy() -> None:
    wanted = objective(maximize="x", limits=[{"metric": "ttft_p99_s", "max": 2}])
    assert wanted.goal().bounds == (Bound("ttft_p99_s", max=2.0),)


def test_fitness_is_a_cost_to_be_minimised() -> None:
    wanted = objective(fitness={"ttft_slo": 1.0, "tpot_slo": 0.05, "ttft_penalty": 1.0})
    verdict = judge(wanted, MEASURED, None)
    # 0.4 x 5000/2500 + 0.2 + 0.3 + 0.1, as all latencies are at their SLO
    assert verdict.objective == pytest.approx(-1.4, abs=1e-12)
    assert verdict.derived == {"fitness": pytest.approx(1.4, abs=1e-12)}
    assert verdict.satisfied
    assert wanted.goal().objectives == (("fitness", -1),)


def test_a_fitness_beyond_all_numbers_satisfies_nothing() -> None:
    wanted = objective(fitness={})
    verdict = judge(wanted, MEASURED | {"success_rate": 0.0}, None)
    assert not verdict.satisfied
    assert verdict.objective is None
    assert not any(math.isinf(value) for value in verdict.derived.values())


def test_a_target_from_the_baseline_needs_one() -> None:
    wanted = objective(fitness={"generate_speed_target": "baseline"})
    assert wanted.needs_baseline
    with pytest.raises(BaselineMissing):
        judge(wanted, MEASURED, None)
    twice = MEASURED | {"output_tokens_per_s": 5000.0}
    assert judge(wanted, twice, MEASURED).objective != judge(wanted, MEASURED, MEASURED).objective


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"fitness": {}, "maximize": "x"}, "give one of them"),
        ({"maximize": "x", "minimize": ["y", "x"]}, "stands twice"),
        ({}, "needs expectations"),
    ],
)
def test_what_cannot_be_meant_is_refused(blocks: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        objective(**blocks)
