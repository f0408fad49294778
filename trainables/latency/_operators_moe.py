"""Blocks of experts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from trainables.latency._operators_curve import Curve


def distinct_experts(tokens: float, top_k: int, experts: int) -> float:
    """Experts that at least one token is routed to, expected.

    Each token chooses ``top_k`` different ones of ``experts``, all alike and independently: an
    expert is left out by one token with probability ``1 - top_k / experts`` (the occupancy
    problem). Real routers prefer some, and reach a few less.
    """
    left_out = float((1.0 - top_k / experts) ** tokens)
    return experts * (1.0 - left_out)


class ExpertTable:
    """Microseconds of one rank's block of experts, over tokens and distinct experts.

    A rank that has one part in p of the work, be it that it has its share of the experts or a
    slice of each, computes as much as for one in p of the tokens and reads as many weights as of
    one in p of the experts: it is looked up there.

    Args:
        points: (tokens, activated experts) to time. Each number of tokens has been measured for
            the numbers of experts that it can activate.
    """

    def __init__(self, points: Mapping[tuple[int, int], float]) -> None:
        rows: dict[int, dict[float, float]] = {}
        for (tokens, experts), time in points.items():
            rows.setdefault(tokens, {})[float(experts)] = time
        self._tokens = sorted(rows)
        measured = [rows[tokens] for tokens in self._tokens]
        ends = sorted({1.0, *(experts for row in measured for experts in row)})
        step = Curve(_to_one(max(measured, key=lambda row: max(row) - min(row))))
        self._rows = [_completed(row, ends, step) for row in measured]

    def __call__(self, tokens: float, experts: float) -> float:
        """Microseconds for so many tokens that reach so many experts."""
        counts = self._tokens
        if len(counts) == 1 or tokens <= counts[0]:
            return self._rows[0](experts)
        if tokens >= counts[-1]:
            place = max(bisect_right(counts, counts[-1] / 2) - 1, 0)
        else:
            place = bisect_right(counts, tokens) - 1
        after = place + 1 if tokens < counts[-1] else len(counts) - 1
        low, high = self._rows[place](experts), self._rows[after](experts)
        share = (tokens - counts[place]) / (counts[after] - counts[place])
        return low + (max(high - low, 0.0) if share > 1 else high - low) * share


def _to_one(row: Mapping[float, float]) -> dict[float, float]:
    """A row carried on to a single expert, as it falls from its third to its first point."""
    xs = sorted(row)
    first, other = xs[0], xs[min(2, len(xs) - 1)]
    slope = (row[other] - row[first]) / (other - first) if other > first else 0.0
    least = row[first] / first
    return {1.0: max(row[first] - max(slope, 0.0) * (first - 1.0), least), **row}


def _completed(row: Mapping[float, float], ends: list[float], step: Curve) -> Curve:
    """A row over all numbers of experts: outside of its own it changes as the widest row does."""
    low, high = min(row), max(row)
    points = dict(row)
    for experts in ends:
        if experts < low:
            points[experts] = max(row[low] + step(experts) - step(low), row[low] * experts / low)
        elif experts > high:
            points[experts] = row[high] + max(step(experts) - step(high), 0.0)
    return Curve(points)
