"""Splits, and the search for the best: against trying everything, on made-up rates."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import (
    Judged,
    Pool,
    Shape,
    Split,
    all_splits,
    best_split,
    decode_rate,
    matched_rate,
    prefill_rate,
)


class TestSplits:
    def test_eight_instances_of_one_shape(self) -> None:
        found = all_splits([Shape("tp1", 1)], 8)
        assert [str(split) for split in found] == ["8 x tp1 mixed"] + [
            f"{count} x tp1 prefill + {8 - count} x tp1 decode" for count in range(1, 8)
        ]

    def test_shapes_have_the_roles_they_are_given(self) -> None:
        shapes = [Shape("small", 1, frozenset({"prefill"})), Shape("big", 4, frozenset({"decode"}))]
        assert [str(split) for split in all_splits(shapes, 9)] == [
            f"{count} x small prefill + {(9 - count) // 4} x big decode" for count in range(1, 6)
        ]

    @settings(deadline=None, max_examples=30)
    @given(st.sets(st.sampled_from([1, 2, 4, 8]), min_size=1), st.integers(1, 16))
    def test_every_split_that_could_be_best_is_there(self, sizes: set[int], devices: int) -> None:
        shapes = [Shape(f"tp{size}", size) for size in sorted(sizes)]
        found = all_splits(shapes, devices)
        assert len(set(found)) == len(found)
        assert all(split.devices <= devices for split in found)
        for first in shapes:
            for second in shapes:
                for prefill in range(1, devices + 1):
                    for decode in range(1, devices + 1):
                        if prefill * first.devices + decode * second.devices <= devices:
                            assert any(
                                split.prefill == Pool(first, prefill)
                                and split.decode is not None
                                and split.decode.shape == second
                                and split.decode.count >= decode
                                for split in found
                            )

    def test_a_split_is_one_of_two_kinds(self) -> None:
        pool = Pool(Shape("tp1", 1), 1)
        for pools in ({}, {"prefill": pool}, {"decode": pool, "mixed": pool}):
            with pytest.raises(ValueError, match="prefill and decode, or mixed"):
                Split(**pools)

    def test_names_have_to_differ(self) -> None:
        with pytest.raises(ValueError, match="names of their own"):
            all_splits([Shape("a", 1), Shape("a", 2)], 4)


def test_rates_are_matched() -> None:
    assert prefill_rate(4, 0.5) == 8
    assert decode_rate(100, 0.05, 201) == 10
    shape = Shape("tp1", 1)
    rates = {("tp1", "prefill"): 3.0, ("tp1", "decode"): 1.0, ("tp1", "mixed"): 0.9}
    best = max(all_splits([shape], 8), key=lambda split: matched_rate(split, rates))  # type: ignore[arg-type]
    assert str(best) == "8 x tp1 mixed"
    rates["tp1", "mixed"] = 0.7
    best = max(all_splits([shape], 8), key=lambda split: matched_rate(split, rates))  # type: ignore[arg-type]
    assert str(best) == "2 x tp1 prefill + 6 x tp1 decode"


class Known:
    """Splits whose highest rates are known; latency over limit is (rate / highest) ** power."""

    def __init__(self, seed: int, power: float, *, telling: bool) -> None:
        self.splits = all_splits([Shape("tp1", 1), Shape("tp2", 2)], 8)
        draw = random.Random(seed)
        self.rates = {split: draw.uniform(1, 30) for split in self.splits}
        self.guesses = {split: rate * draw.uniform(0.75, 1.5) for split, rate in self.rates.items()}
        self._power, self._telling = power, telling
        self.runs = 0

    def judge(self, split: Split, rate: float) -> Judged:
        self.runs += 1
        margin = self._power * math.log(rate / self.rates[split])
        return Judged(margin if self._telling or margin <= 0 else None, "ttft", "prefill")

    @property
    def best(self) -> float:
        return max(self.rates.values())


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 1.0, 5.0]), st.booleans())
def test_the_best_is_found_with_few_runs(seed: int, power: float, telling: bool) -> None:
    known = Known(seed, power, telling=telling)
    ranking = best_split(known.splits, known.judge, known.guesses.__getitem__, precision=0.02)
    assert known.rates[ranking[0].split] >= known.best / 1.02**2
    assert ranking[0].rate <= known.rates[ranking[0].split] < ranking[0].bound
    assert ranking[0].bound <= ranking[0].rate * 1.02 + 1e-9
    assert {one.split for one in ranking} == set(known.splits)
    for one in ranking:
        assert one.rate <= known.rates[one.split] <= one.bound
    every = Known(seed, power, telling=telling)
    exhaustive = best_split(every.splits, every.judge, every.guesses.__getitem__, exhaustive=True)
    assert [one.rate for one in exhaustive] == sorted(
        (one.rate for one in exhaustive), reverse=True
    )
    assert all(one.bound <= one.rate * 1.02 + 1e-9 for one in exhaustive)
    assert known.runs < every.runs / 2


def test_a_split_that_is_not_expected_to_come_near_the_best_is_not_run() -> None:
    known = Known(1, 1.0, telling=True)
    ranking = best_split(known.splits, known.judge, known.rates.__getitem__, allowance=0.1)
    hopeless = [one for one in ranking if known.rates[one.split] * 1.1 < known.best / 1.02]
    assert hopeless
    assert all(one.runs == 0 and one.bound == math.inf for one in hopeless)


def test_a_split_that_refuses_requests_is_given_up_at_once() -> None:
    splits = all_splits([Shape("tp1", 1)], 2)

    def judge(split: Split, rate: float) -> Judged:
        if not split.disaggregated:
            return Judged(math.inf, "refused", "mixed")
        return Judged(math.log(rate / 3), "tpot", "decode")

    ranking = best_split(splits, judge, lambda split: 5.0 - split.disaggregated)
    assert [(str(one.split), one.limit) for one in ranking] == [
        ("1 x tp1 prefill + 1 x tp1 decode", "tpot"),
        ("2 x tp1 mixed", "refused"),
    ]
    assert ranking[0].rate == pytest.approx(3, rel=0.02)
    assert (ranking[1].rate, ranking[1].runs) == (0.0, 1)


def test_searches_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="no split"):
        best_split([], lambda split, rate: Judged(0.0, "ttft", "mixed"), lambda split: 1.0)
    with pytest.raises(ValueError, match="precision"):
        best_split(
            all_splits([Shape("a", 1)], 1),
            lambda split, rate: Judged(0.0, "ttft", "mixed"),
            lambda split: 1.0,
            precision=0.0,
        )
