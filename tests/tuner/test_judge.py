"""When a measurement meets the objective."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner._judge import BaselineMissing, demands, judge
from tuner.experiment import Objective


def objective(**block: object) -> Objective:
    return Objective.model_validate(block)


def demand(**expectation: object) -> Objective:
    return objective(expectations=[{"dataset": "gsm8k", **expectation}])


@pytest.mark.parametrize(
    ("accuracy", "target", "tolerance", "satisfied"),
    [
        (81.0, 83, 2, True),
        (80.99, 83, 2, False),
        (99.0, 83, 0, True),
        (0.7, "0.8", "0.1", True),
        (0.3, 0.4, 0.1, True),
        (0.29999, 0.4, 0.1, False),
        (95.0, 100, "5%", True),
        (94.9, 100, "5%", False),
    ],
)
def test_an_expectation_is_one_sided_and_exact_in_decimals(
    accuracy: float, target: object, tolerance: object, satisfied: bool
) -> None:
    verdict = judge(demand(target=target, tolerance=tolerance), {"gsm8k/accuracy": accuracy}, None)
    assert verdict.satisfied is satisfied


def test_perplexity_is_better_when_lower_and_the_tolerance_widens_upwards() -> None:
    wanted = demand(metric="perplexity", target="baseline", tolerance="5%")
    baseline = {"gsm8k/perplexity": 10.0}
    assert judge(wanted, {"gsm8k/perplexity": 10.5}, baseline).satisfied
    assert judge(wanted, {"gsm8k/perplexity": 3.0}, baseline).satisfied
    assert not judge(wanted, {"gsm8k/perplexity": 10.51}, baseline).satisfied


def test_the_direction_of_an_unknown_metric_can_be_named() -> None:
    wanted = demand(metric="toxicity", target=0.1, direction="lower")
    assert judge(wanted, {"gsm8k/toxicity": 0.05}, None).satisfied


def test_a_missing_metric_never_satisfies() -> None:
    verdict = judge(demand(target=0), {"other/accuracy": 1.0}, None)
    assert not verdict.satisfied
    assert "missing" in str(verdict.checks[0])


def test_a_relative_demand_without_its_baseline_is_not_guessed() -> None:
    with pytest.raises(BaselineMissing, match="gsm8k/accuracy"):
        judge(demand(target="baseline"), {"gsm8k/accuracy": 1.0}, None)


def test_all_demands_and_limits_have_to_be_met_while_one_metric_is_maximised() -> None:
    wanted = objective(
        maximize="throughput",
        limits=[{"metric": "ttft_ms", "max": 500}, {"metric": "success_rate", "min": 0.99}],
    )
    good = {"throughput": 7.0, "ttft_ms": 500.0, "success_rate": 0.99}
    assert judge(wanted, good, None).satisfied
    assert judge(wanted, good, None).objective == 7.0
    assert not judge(wanted, good | {"ttft_ms": 500.1}, None).satisfied
    assert not judge(wanted, good | {"success_rate": 0.98}, None).satisfied
    without = {key: value for key, value in good.items() if key != "throughput"}
    assert not judge(wanted, without, None).satisfied


def test_minimising_turns_the_sign() -> None:
    assert judge(objective(minimize="bytes"), {"bytes": 5.0}, None).objective == -5.0


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3))
def test_the_baseline_itself_always_meets_a_demand_relative_to_it(
    value: float, tolerance: float
) -> None:
    for metric in ("accuracy", "perplexity"):
        wanted = demand(metric=metric, target="baseline", tolerance=tolerance)
        metrics = {f"gsm8k/{metric}": value}
        assert judge(wanted, metrics, metrics).satisfied


@given(
    value=st.floats(-1e6, 1e6, allow_nan=False),
    target=st.decimals(1, 100, places=3),
    tolerance=st.decimals(0, 10, places=3),
    lower=st.booleans(),
)
def test_a_trial_never_ends_early_on_a_demand_it_meets(
    value: float, target: object, tolerance: object, lower: bool
) -> None:
    direction = "lower" if lower else "higher"
    wanted = demand(target=target, tolerance=tolerance, direction=direction)
    (limit,) = demands(wanted, None)
    worse = value > limit["limit"] if lower else value < limit["limit"]
    if worse:
        assert not judge(wanted, {"gsm8k/accuracy": value}, None).satisfied


def test_a_relative_demand_is_unknown_until_its_baseline_is_measured() -> None:
    wanted = objective(
        expectations=[
            {"dataset": "a", "target": "baseline", "tolerance": 1},
            {"dataset": "b", "target": 50},
        ]
    )
    assert [each["metric"] for each in demands(wanted, None)] == ["b/accuracy"]
    assert demands(wanted, {"a/accuracy": 80.0}) == [
        {"metric": "a/accuracy", "limit": 79.0, "direction": "higher"},
        {"metric": "b/accuracy", "limit": 50.0, "direction": "higher"},
    ]
