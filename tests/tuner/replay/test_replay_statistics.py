"""The numbers are exactly what their definitions say."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.replay._statistics import (
    evaluations_to,
    expected_at_random,
    interval_of_median,
    mean_of_means,
    over_tasks,
    quantile,
    regrets,
)

NUMBERS = st.floats(-1e6, 1e6)


def test_the_first_evaluation_that_is_good_enough_counts() -> None:
    assert evaluations_to([None, 90.0, 95.0, 100.0], 95.0) == 3
    assert evaluations_to([None, 90.0], 95.0) is None
    assert evaluations_to([], 95.0) is None


def test_regret_is_a_share_of_the_best_and_100_while_nothing_satisfies() -> None:
    curve = regrets([None, 80.0, 60.0, None, 100.0], best=100.0, scale=100.0, length=7)
    assert curve == [100.0, 20.0, 20.0, 20.0, 0.0, 0.0, 0.0]
    assert regrets([80.0, 100.0], 100.0, 100.0, length=1) == [20.0]


def test_regret_of_what_is_minimised_is_no_more_than_100() -> None:
    assert regrets([-50.0, -15.0, -10.0], best=-10.0, scale=10.0, length=3) == [100.0, 50.0, 0.0]


@given(st.lists(st.none() | NUMBERS, min_size=1), NUMBERS)
def test_regret_never_grows(truths: list[float | None], margin: float) -> None:
    best = max([truth for truth in truths if truth is not None], default=0.0) + abs(margin)
    curve = regrets(truths, best, abs(best) or 1.0, len(truths) + 2)
    assert len(curve) == len(truths) + 2
    assert all(100 >= a >= b >= 0 for a, b in pairwise(curve))


@given(st.lists(NUMBERS, min_size=1), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(float(np.quantile(values, share)), abs=1e-6)


@pytest.mark.parametrize(("configurations", "near"), [(10, 1), (10, 3), (48, 2), (5, 5)])
def test_what_random_needs_is_what_drawing_finds(configurations: int, near: int) -> None:
    chance = random.Random(0)
    draws = []
    for _ in range(5_000):
        order = chance.sample(range(configurations), configurations)
        draws.append(1 + min(order.index(good) for good in range(near)))
    assert fmean(draws) == pytest.approx(expected_at_random(configurations, near), rel=0.05)


def test_the_interval_of_values_that_agree_is_their_value() -> None:
    assert interval_of_median([[7.0] * 20]) == (7.0, 7.0)
    assert interval_of_median([[7.0] * 20, [7.0] * 20]) == (7.0, 7.0)


def test_the_interval_is_the_same_each_time_and_holds_the_median() -> None:
    values = [float(value) for value in range(1, 22)]
    low, high = interval_of_median([values])
    assert (low, high) == interval_of_median([values])
    assert low < median(values) < high


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    chance = random.Random(1)
    hits = 0
    for _ in range(60):
        low, high = interval_of_median([[chance.gauss(0, 1) for _ in range(25)]])
        hits += low <= 0 <= high
    assert 0.85 <= hits / 60 <= 1.0


def test_tasks_count_alike_however_different_they_are() -> None:
    groups = [[1.0, 1.0, 4.0], [10.0, 20.0, 30.0], [3.0, 5.0, 7.0]]
    assert over_tasks(groups, median) == 5.0
    assert mean_of_means(groups) == pytest.approx((2 + 20 + 5) / 3)
