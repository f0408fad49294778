"""Splits judged by simulation: against trying everything, and where the limits are."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import (
    ROLES,
    Judged,
    Pool,
    Role,
    Shape,
    Split,
    all_splits,
    best_split,
    matched_rate,
)
from trainables.simulation import (
    Batch,
    Instance,
    LatencyModel,
    Request,
    SchedulerSettings,
    Served,
    Transfer,
)
from tuner.splits import LatencyLimits, SplitJudge, guessed_rates, simulated_rates
from tuner.splits._judge import Watch


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
