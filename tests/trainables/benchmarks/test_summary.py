"""Metrics of a run mean what their definitions say, whatever happened to its requests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables.benchmarks import METRICS, Load
from trainables.benchmarks._metrics import REQUIRED
from trainables.benchmarks._summary import (
    Goodput,
    RequestRecord,
    describe,
    failure_counts,
    percentile,
    summarize,
)

SECONDS = st.floats(0, 1e4)
GAPS = st.lists(st.floats(0, 10), max_size=8)


@st.composite
def records(draw: st.DrawFn, *, errors: bool = True) -> RequestRecord:
    sent, ttft, itl = draw(SECONDS), draw(st.floats(1e-3, 100)), draw(GAPS)
    error = draw(st.sampled_from(["", "", "HTTP 500"])) if errors else ""
    first = sent + ttft
    burst = draw(st.integers(0, 3))
    return RequestRecord(
        id=draw(st.integers(0, 1000)),
        scheduled=sent,
        sent=sent,
        first=first,
        end=first + math.fsum(itl),
        input_tokens=draw(st.integers(1, 1000)),
        output_tokens=1 + len(itl) + burst,
        itl=itl,
        error=error,
    )


def record(number: int = 0, **more: Any) -> RequestRecord:
    plain: dict[str, Any] = {
        "scheduled": 0.0,
        "sent": 0.0,
        "first": 1.0,
        "end": 3.0,
        "input_tokens": 10,
        "output_tokens": 5,
        "itl": (0.5, 0.5, 0.5, 0.5),
    }
    return RequestRecord(number, **{**plain, **more})


def test_one_run_by_hand() -> None:
    found = summarize(
        [
            record(0),
            record(1, sent=1.0, scheduled=1.0, first=1.5, end=5.0, output_tokens=1, itl=()),
            record(2, sent=2.0, first=None, end=11.0, output_tokens=0, itl=(), error="lost"),
        ],
        Load(concurrency=3),
    )
    assert found["duration_s"] == 11.0
    assert found["success_rate"] == pytest.approx(2 / 3)
    assert found["requests"] == 3
    assert (found["input_tokens"], found["output_tokens"]) == (20, 6)
    assert found["output_tokens_per_s"] == pytest.approx(6 / 11)
    assert found["total_tokens_per_s"] == pytest.approx(26 / 11)
    assert found["requests_per_s"] == pytest.approx(2 / 11)
    assert (found["ttft_min_s"], found["ttft_max_s"]) == (0.5, 1.0)
    assert found["tpot_mean_s"] == 0.5  # (3 - 1) / (5 - 1); the other one has none
    assert found["itl_p50_s"] == 0.5
    assert found["e2el_mean_s"] == 3.5
    assert found["mean_concurrency"] == pytest.approx(7 / 11)
    assert found["concurrency"] == 3
    assert "request_rate" not in found
    assert "goodput_per_s" not in found


def test_tokens_that_come_together_are_one_gap_but_several_tokens() -> None:
    found = summarize([record(output_tokens=9, itl=(1.0, 1.0))], Load())
    assert found["tpot_mean_s"] == 0.25
    assert found["itl_mean_s"] == 1.0


def test_goodput_counts_those_that_keep_every_bound() -> None:
    run = [
        record(0),
        record(1, first=2.0),
        record(2, end=6.0),
        record(3, output_tokens=1),
        record(4, error="lost"),
    ]

    def good(**bounds: float) -> float:
        return summarize(run, Load(), Goodput(**bounds))["goodput_per_s"] * 6.0

    assert good() == pytest.approx(4)
    assert good(ttft_s=1.0) == pytest.approx(3)
    assert good(tpot_s=0.5) == pytest.approx(3)
    assert good(e2el_s=3.0) == pytest.approx(3)
    assert good(ttft_s=1.0, tpot_s=0.5, e2el_s=3.0) == pytest.approx(2)
    with pytest.raises(ValidationError):
        Goodput(itl_s=1.0)  # type: ignore[call-arg]


def test_nothing_is_no_metric() -> None:
    assert summarize([], Load()) == {}
    lost = summarize([record(first=None, itl=(), error="lost")], Load(request_rate=2.0))
    assert lost["success_rate"] == 0
    assert lost["request_rate"] == 2.0
    assert not any(name.startswith(("ttft", "tpot", "itl", "e2el")) for name in lost)
    assert describe([]) == {}
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], q: float) -> None:
    expected = float(np.percentile(values, q))
    assert percentile(sorted(values), q) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(records(), min_size=1, max_size=20))
def test_metrics_are_named_finite_ordered_and_agree(run: list[RequestRecord]) -> None:
    found = summarize(run, Load(concurrency=4, request_rate=1.5), Goodput(ttft_s=5))
    good = [one for one in run if one.succeeded]
    assert set(found) <= METRICS
    assert all(math.isfinite(value) for value in found.values())
    assert found["requests"] == len(run)
    duration = found["duration_s"]
    assert found["requests_per_s"] * duration == pytest.approx(len(good))
    assert found["output_tokens_per_s"] * duration == pytest.approx(found["output_tokens"])
    assert found["goodput_per_s"] <= found["requests_per_s"]
    assert found["mean_concurrency"] <= len(good) * (1 + 1e-9)
    if any(one.tpot is not None for one in good):
        assert set(found) >= REQUIRED
    for latency in ("ttft", "tpot", "itl", "e2el"):
        parts = ("min", "p50", "p75", "p90", "p95", "p99", "max")
        values = [found[f"{latency}_{part}_s"] for part in parts if f"{latency}_min_s" in found]
        assert values == sorted(values)
        if values:
            assert values[0] <= found[f"{latency}_mean_s"] <= values[-1]


@given(st.lists(records(), min_size=1, max_size=12), st.randoms(), st.floats(0, 1000))
def test_neither_order_nor_the_clock_matters(
    run: list[RequestRecord], source: Any, shift: float
) -> None:
    other = [
        RequestRecord(
            **{
                **vars(one),
                "sent": one.sent + shift,
                "end": one.end + shift,
                "first": None if one.first is None else one.first + shift,
            }
        )
        for one in run
    ]
    source.shuffle(other)
    found, again = summarize(run, Load()), summarize(other, Load())
    assert found.keys() == again.keys()
    for name, value in found.items():
        assert again[name] == pytest.approx(value, rel=1e-5, abs=1e-7)


@given(st.lists(st.sampled_from([*map(str, range(40)), ""]), max_size=80))
def test_failures_are_counted_completely(errors: list[str]) -> None:
    run = [record(number, error=error) for number, error in enumerate(errors)]
    counts = failure_counts(run)
    assert sum(counts.values()) == sum(bool(error) for error in errors)
    assert len(counts) <= 21
