"""The search for a split: against trying everything, on made-up and on simulated rates."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.simulation import (
    Batch,
    Instance,
    Judged,
    LatencyLimits,
    LatencyModel,
    Pool,
    Request,
    Role,
    SchedulerSettings,
    Served,
    Shape,
    Split,
    SplitJudge,
    Transfer,
    all_splits,
    best_split,
    decode_rate,
    guessed_rates,
    matched_rate,
    prefill_rate,
    simulated_rates,
)
from trainables.simulation._split_judge import Watch

ROLES: tuple[Role, ...] = ("prefill", "decode", "mixed")


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


class Line(LatencyModel):
    """An iteration's seconds: fixed, per prompt token, per token of context."""

    def seconds(self, batch: Batch) -> float:
        return 0.01 + 1e-4 * batch.prefill_tokens + 2e-6 * batch.context

    def decode_seconds(self, batch: Batch, iterations: int) -> np.ndarray:
        return 0.01 + 2e-6 * (batch.context + batch.decodes * np.arange(iterations))


def workload(count: int) -> list[Request]:
    draw = random.Random(5)
    at = 0.0
    found = []
    for number in range(count):
        at += draw.expovariate(1.0)
        found.append(Request(number, draw.randint(100, 900), draw.randint(20, 120), at))
    return found


SERVING = SchedulerSettings(max_num_seqs=64, num_blocks=1500, prefix_caching=False)
TABLE: dict[tuple[str, Role], Instance] = {
    ("tp1", role): Instance("any", SERVING, Line()) for role in ROLES
}
LIMITS = LatencyLimits(ttft=0.5, tpot=0.03)
REQUESTS = workload(300)


class TestSimulated:
    @pytest.mark.parametrize("first_token", ["prefill", "decode"])
    def test_it_is_the_best_of_all(self, first_token: str) -> None:
        judge = SplitJudge(
            TABLE,
            REQUESTS,
            LIMITS,
            transfer=Transfer(1e5, 10.0, 0.002),
            first_token=first_token,  # type: ignore[arg-type]
        )
        splits = all_splits([Shape("tp1", 1)], 4)
        rates = simulated_rates(TABLE, REQUESTS, LIMITS, share=4)
        found = best_split(splits, judge, lambda split: matched_rate(split, rates))[0]
        kept = {
            rate: [split for split in splits if judge(split, rate).kept]
            for rate in (found.rate, found.bound * 1.02)
        }
        assert found.split in kept[found.rate]
        assert kept[found.bound * 1.02] == []

    def test_what_limits_a_split_is_told(self) -> None:
        judge = SplitJudge(TABLE, REQUESTS, LIMITS)
        few, many = (Split(_pool(count), _pool(4 - count)) for count in (1, 3))
        assert judge(few, 60.0) == Judged(None, "ttft", "prefill")
        told = judge(many, 24.0)
        assert not told.kept
        assert told.pool == "decode"
        assert judge(many, 0.5).kept

    def test_requests_that_do_not_fit_anywhere_are_told(self) -> None:
        small = {key: Instance("any", SchedulerSettings(num_blocks=20), Line()) for key in TABLE}
        judge = SplitJudge(small, REQUESTS, LIMITS)
        for split in all_splits([Shape("tp1", 1)], 2):
            assert judge(split, 1.0).limit == "refused"

    def test_single_instances_are_about_as_fast_as_guessed(self) -> None:
        guessed = guessed_rates(TABLE, REQUESTS, LIMITS)
        simulated = simulated_rates(TABLE, REQUESTS, LIMITS, share=1)
        for key, rate in simulated.items():
            assert guessed[key] / 3 < rate < guessed[key] * 1.5

    def test_a_workload_needs_a_rate(self) -> None:
        together = [Request(number, 10, 2, 1.0) for number in range(3)]
        for requests in ([], REQUESTS[:1], together, [Request(0, 10, 2, None)] * 2):
            with pytest.raises(ValueError, match="request rate needs"):
                SplitJudge(TABLE, requests, LIMITS)


def _pool(count: int) -> Pool:
    return Pool(Shape("tp1", 1), count)


values = st.lists(
    st.tuples(st.floats(0.001, 4), st.integers(1, 3), st.floats(0.001, 4)), min_size=1, max_size=40
)


@settings(deadline=None)
@given(values, st.sampled_from([None, 50.0, 90.0, 99.0]), st.booleans())
def test_a_run_is_only_stopped_when_its_limits_are_broken(
    drawn: list[tuple[float, int, float]], percentile: float | None, joint: bool
) -> None:
    limits = LatencyLimits(2.0, 2.0, percentile, joint and percentile is not None)
    served = [
        Served(
            Request(number, 10, answer),
            0.0,
            0.0,
            ttft,
            ttft + tpot * (answer - 1),
            np.full(answer - 1, tpot),
        )
        for number, (ttft, answer, tpot) in enumerate(drawn)
    ]
    watch = Watch(limits, [one.request for one in served])
    stopped = max(list(map(watch, served)))
    margin, _ = limits.broken(served)
    if stopped:
        assert margin > 0
    elif percentile is None:
        assert margin <= 1e-9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ttft": 0.0}, "above 0"),
        ({"percentile": 100.0}, "between 0 and 100"),
        ({"percentile": None, "joint": True}, "joint limit needs"),
    ],
)
def test_limits_that_cannot_be(options: dict[str, float | bool | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LatencyLimits(**options)  # type: ignore[arg-type]
