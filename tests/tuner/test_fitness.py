"""The cost of the original optimizer, against values computed by hand from its formula."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from tuner._fitness import Fitness, fitness, speed_target

SHIPPED = Fitness(ttft_slo=1, tpot_slo=0.05, ttft_penalty=1, tpot_penalty=0)


def measured(**changes: float) -> dict[str, float]:
    values = {
        "output_tokens_per_s": 2500.0,
        "ttft_mean_s": 1.0,
        "tpot_mean_s": 0.05,
        "success_rate": 1.0,
    }
    return values | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 0.4 * 5000 / 2500 + 0.2 * 1 + 0.3 * 1 + 0.1 * 1
        ({}, 1.4),
        # 0.2 * e
        ({"ttft_mean_s": 2.0}, 0.8 + 0.2 * 2.718281828459045 + 0.4),
        # 0.2 * e ** -0.5
        ({"ttft_mean_s": 0.5}, 0.8 + 0.2 * 0.6065306597126334 + 0.4),
        # a penalty of 0 is a constant
        ({"tpot_mean_s": 5.0}, 1.4),
        # 0.1 * e ** (5 * (1 / 0.8 - 1)) = 0.1 * e ** 1.25
        ({"success_rate": 0.8}, 1.3 + 0.1 * 3.4903429574618414),
        ({"output_tokens_per_s": 50000.0}, 0.04 + 0.6),
    ],
)
def test_the_shipped_settings(changes: dict[str, float], expected: float) -> None:
    assert fitness(measured(**changes), SHIPPED) == pytest.approx(expected, rel=1e-12)


def test_the_defaults_of_the_code() -> None:
    # 0.4 * 5000 / 1240.1267 + 0.2 * e ** (3 * (0.1461383 / 0.5 - 1))
    #  + 0.3 * e ** (3 * (0.0213 / 0.05 - 1)) + 0.1 * e ** (5 * (1 / 0.99 - 1))
    values = measured(
        output_tokens_per_s=1240.1267,
        ttft_mean_s=0.1461383,
        tpot_mean_s=0.0213,
        success_rate=0.99,
    )
    by_hand = 1.612738440355 + 0.2 * 0.119651706775 + 0.3 * 0.178708373509 + 0.1 * 1.051802175474
    assert fitness(values, Fitness()) == pytest.approx(by_hand, abs=1e-9)


def test_without_a_latency_it_costs_nothing() -> None:
    values = measured()
    del values["ttft_mean_s"], values["tpot_mean_s"]
    assert fitness(values, SHIPPED) == pytest.approx(0.9, rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"output_tokens_per_s": 0.0},
        {"output_tokens_per_s": -1.0},
        {"output_tokens_per_s": math.nan},
        {"success_rate": 0.0},
        {"success_rate": 1e-6},
        {"ttft_mean_s": 1000.0},
        {"ttft_mean_s": math.nan},
    ],
)
def test_it_is_infinite_beyond_all_measure(changes: dict[str, float]) -> None:
    assert fitness(measured(**changes), SHIPPED) == math.inf
    for name in ("output_tokens_per_s", "success_rate"):
        values = measured()
        del values[name]
        assert fitness(values, SHIPPED) == math.inf


def test_a_percentile_may_count() -> None:
    options = SHIPPED.model_copy(update={"ttft_metric": "ttft_p90_s"})
    assert fitness(measured(ttft_p90_s=2.0), options) == fitness(measured(ttft_mean_s=2.0), SHIPPED)


def test_the_target_is_ten_times_the_baseline() -> None:
    options = SHIPPED.model_copy(update={"generate_speed_target": "baseline"})
    assert options.needs_baseline
    assert speed_target(options, {"output_tokens_per_s": 300.0}) == 3000.0
    # 0.4 * 3000 / 2500 + 0.6
    assert fitness(measured(), options, {"output_tokens_per_s": 300.0}) == pytest.approx(1.08)
    for nothing in (None, {}, {"output_tokens_per_s": 0.0}):
        assert speed_target(options, nothing) == 5000.0


def test_options_are_checked() -> None:
    wrong = {"ttft_slo": 0, "tpot_penalty": -1, "generate_speed_target": "best", "slo": 1}
    with pytest.raises(ValidationError) as refused:
        Fitness.model_validate(wrong)
    assert {fault["loc"][0] for fault in refused.value.errors()} == set(wrong)
