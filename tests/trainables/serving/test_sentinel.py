"""A run is ended early when its outcome is decided, and hardly ever otherwise."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.serving._sentinel import Sentinel, Verdict
from trainables.serving._slo import Limit


def percentile(values: Sequence[float], percent: int) -> float:
    """Linear interpolation, as numpy and the benchmarks do it."""
    ordered = sorted(values)
    at = percent / 100 * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def looks(values: Sequence[float], limit: Limit, width: int = 4) -> Iterator[Verdict | None]:
    """Verdicts while TTFTs come in, a few at a time."""
    sentinel = Sentinel((limit,), len(values), width)
    for start in range(0, len(values), 5):
        part = values[start : start + 5]
        sentinel.add(
            completed=len(part),
            failed=0,
            seconds=1.0,
            output_tokens=10 * len(part),
            latencies={"ttft": part},
        )
        yield sentinel.verdict()


def first(values: Sequence[float], limit: Limit) -> Verdict | None:
    return next((verdict for verdict in looks(values, limit) if verdict), None)


LATENCIES = st.lists(st.floats(0.001, 10), min_size=1, max_size=120)


@settings(max_examples=300, deadline=None)
@given(values=LATENCIES, limit=st.floats(0.01, 5), percent=st.sampled_from([50, 75, 90, 95, 99]))
def test_a_certain_verdict_about_a_percentile_is_never_wrong(
    values: list[float], limit: float, percent: int
) -> None:
    verdict = first(values, Limit(f"ttft_p{percent}_s", max=limit))
    if verdict is not None:
        assert verdict.certain
        assert percentile(values, percent) > limit


@settings(max_examples=300, deadline=None)
@given(values=LATENCIES, limit=st.floats(0.01, 5))
def test_a_certain_verdict_about_a_mean_is_never_wrong(values: list[float], limit: float) -> None:
    verdict = first(values, Limit("ttft_mean_s", max=limit))
    if verdict is not None and verdict.certain:
        assert statistics.fmean(values) > limit


def test_a_run_that_keeps_its_limit_is_given_up_in_at_most_one_of_a_hundred() -> None:
    wrong = kept = 0
    for seed in range(500):
        rng = random.Random(seed)
        level, values = 1.0, []
        for _ in range(300):  # the latencies of neighbours are alike
            level = 0.8 * level + 0.2 * rng.lognormvariate(0, 0.5)
            values.append(level * rng.uniform(0.9, 1.1))
        limit = statistics.fmean(values) * rng.uniform(1.0, 1.1)
        kept += 1
        wrong += first(values, Limit("ttft_mean_s", max=limit)) is not None
    assert wrong <= 0.01 * kept


def test_a_run_far_beyond_its_limit_ends_after_a_fraction() -> None:
    rng = random.Random(1)
    values = [rng.uniform(1.8, 2.2) for _ in range(400)]
    spent = [n for n, verdict in enumerate(looks(values, Limit("ttft_mean_s", max=1.0))) if verdict]
    assert spent[0] * 5 <= 100
    spent = [n for n, verdict in enumerate(looks(values, Limit("ttft_p99_s", max=1.0))) if verdict]
    assert spent[0] * 5 <= 10


def test_an_idle_engines_first_requests_do_not_speak_for_the_rest() -> None:
    values = [5.0] * 4 + [0.5] * 200
    assert first(values, Limit("ttft_mean_s", max=1.0)) is None


def test_failed_requests_beyond_what_the_success_rate_allows_end_the_run() -> None:
    sentinel = Sentinel((Limit("success_rate", min=0.99),), 200)
    sentinel.add(completed=50, failed=2, seconds=1, output_tokens=1, latencies={})
    assert sentinel.verdict() is None
    sentinel.add(completed=50, failed=1, seconds=1, output_tokens=1, latencies={})
    verdict = sentinel.verdict()
    assert verdict is not None
    assert (verdict.metric, verdict.certain) == ("success_rate", True)


@pytest.mark.parametrize(("speed", "given_up"), [(50.0, True), (100.0, False)])
def test_a_throughput_that_cannot_reach_the_best_ends_the_run(speed: float, given_up: bool) -> None:
    rng = random.Random(2)
    sentinel = Sentinel((), None, 4, ("output_tokens_per_s", 98.0))
    found = None
    for _ in range(30):
        sentinel.add(
            completed=4,
            failed=0,
            seconds=1.0,
            output_tokens=round(speed * rng.uniform(0.9, 1.1)),
            latencies={},
        )
        found = found or sentinel.verdict()
    assert (found is not None) is given_up


def test_means_of_several_requests_say_nothing_about_percentiles() -> None:
    sentinel = Sentinel((Limit("ttft_p50_s", max=1.0),), 4, means_only=True)
    sentinel.add(completed=4, failed=0, seconds=1, output_tokens=1, latencies={"ttft": [9.0] * 4})
    assert sentinel.verdict() is None
