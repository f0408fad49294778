"""The metrics of a run from what happened to each of its requests. Pure.

Percentiles are interpolated linearly between the two nearest ranks, as ``numpy.percentile`` does
by default: that of q lies at position ``q / 100 * (n - 1)`` of the n sorted values.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, PositiveFloat

from trainables.benchmarks._benchmark import Load
from trainables.benchmarks._metrics import latency_name

_PERCENTILES = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
_REASONS = 20
"""Different reasons of failures that are told apart."""


class Goodput(BaseModel):
    """Bounds, all of which a request has to keep to count as good.

    Attributes:
        ttft_s, tpot_s, e2el_s: Seconds at most; None: no bound. A request of one output token has
            no TPOT and keeps every bound on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ttft_s: PositiveFloat | None = None
    tpot_s: PositiveFloat | None = None
    e2el_s: PositiveFloat | None = None

    def kept_by(self, record: RequestRecord) -> bool:
        """Whether a request succeeded and kept every bound."""
        pairs = (
            (self.ttft_s, record.ttft),
            (self.tpot_s, record.tpot),
            (self.e2el_s, record.e2el),
        )
        return record.succeeded and all(
            bound is None or value is None or value <= bound for bound, value in pairs
        )


@dataclass(frozen=True)
class RequestRecord:
    """What happened to one request. Times are seconds on one clock.

    Attributes:
        id: Its number in the workload, from 0.
        scheduled: When it was due; in a closed loop, when it was sent.
        sent: From when its latencies count.
        end: When its last token had arrived, or it failed.
        first: When its first token had arrived; None: never.
        input_tokens, output_tokens: Of the prompt, and of the answer as far as it came.
        itl: Gaps between the arrivals of its tokens.
        error: Why it failed; empty when it succeeded.
    """

    id: int
    scheduled: float
    sent: float
    end: float
    first: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    itl: Sequence[float] = ()
    error: str = ""

    @property
    def succeeded(self) -> bool:
        return not self.error

    @property
    def ttft(self) -> float | None:
        return None if self.first is None else self.first - self.sent

    @property
    def e2el(self) -> float:
        return self.end - self.sent

    @property
    def tpot(self) -> float | None:
        if self.first is None or self.output_tokens < 2:
            return None
        return (self.end - self.first) / (self.output_tokens - 1)


def summarize(
    records: Sequence[RequestRecord], load: Load, goodput: Goodput | None = None
) -> dict[str, float]:
    """The metrics of a run, by their names in :mod:`trainables.benchmarks._metrics`.

    Those that no request has a value for are left out; of no records there are none at all.
    """
    if not records:
        return {}
    good = [record for record in records if record.succeeded]
    duration = max(one.end for one in records) - min(one.sent for one in records)
    metrics = {
        "duration_s": duration,
        "requests": float(len(records)),
        "success_rate": len(good) / len(records),
        "input_tokens": float(sum(one.input_tokens for one in good)),
        "output_tokens": float(sum(one.output_tokens for one in good)),
    }
    if load.concurrency is not None:
        metrics["concurrency"] = float(load.concurrency)
    if load.request_rate is not None:
        metrics["request_rate"] = load.request_rate
    if duration > 0:
        metrics |= _rates(metrics, good, duration)
        if goodput is not None:
            metrics["goodput_per_s"] = sum(map(goodput.kept_by, good)) / duration
    return metrics | latencies(good)


def _rates(
    totals: Mapping[str, float], good: Sequence[RequestRecord], duration: float
) -> dict[str, float]:
    both = totals["input_tokens"] + totals["output_tokens"]
    return {
        "requests_per_s": len(good) / duration,
        "output_tokens_per_s": totals["output_tokens"] / duration,
        "total_tokens_per_s": both / duration,
        "mean_concurrency": math.fsum(one.e2el for one in good) / duration,
    }


def latencies(good: Iterable[RequestRecord]) -> dict[str, float]:
    """All statistics of TTFT, TPOT, ITL and E2EL of requests that succeeded."""
    good = list(good)
    values = {
        "ttft": [one.ttft for one in good if one.ttft is not None],
        "tpot": [one.tpot for one in good if one.tpot is not None],
        "itl": [gap for one in good for gap in one.itl],
        "e2el": [one.e2el for one in good],
    }
    return {
        latency_name(latency, statistic): value
        for latency, found in values.items()
        for statistic, value in describe(found).items()
    }


def describe(values: Iterable[float]) -> dict[str, float]:
    """Mean, minimum, maximum and percentiles, by the names of statistics; nothing of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    # The mean of equal values may be rounded out of their range.
    mean = min(max(statistics.fmean(ordered), ordered[0]), ordered[-1])
    found = {"mean": mean, "min": ordered[0], "max": ordered[-1]}
    return found | {name: percentile(ordered, q) for name, q in _PERCENTILES.items()}


def percentile(ordered: Sequence[float], q: float) -> float:
    """The q-th percentile of sorted values, q in [0, 100]; linear between the nearest ranks.

    Raises ``ValueError`` when there are no values.
    """
    if not ordered:
        raise ValueError("there is no percentile of no values")
    position = q / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return min(low + (high - low) * (position - below), high)


def failure_counts(records: Iterable[RequestRecord]) -> dict[str, int]:
    """Reason to number of failed requests, the most frequent first; rare ones under ``others``."""
    counted = Counter(record.error for record in records if record.error).most_common()
    found = dict(counted[:_REASONS])
    if others := sum(count for _, count in counted[_REASONS:]):
        found["others"] = found.get("others", 0) + others
    return found
