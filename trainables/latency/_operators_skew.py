"""What it costs that the sequences of a decode batch have contexts of unequal length."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np
from numpy.typing import NDArray

_LABEL = re.compile(r"(n|sr|kvB|kp)(<=|=|>)(\d+(?:\.\d+)?)([kKmM%]?)$")
_UNITS = {"": 1.0, "k": 1024.0, "m": 1024.0**2, "%": 0.01}
AXES = ("n", "sr", "kvB", "kp")


@dataclass(frozen=True)
class SkewRow:
    """One bucket of a skew fit.

    Attributes:
        chunk: Tokens of the prefill chunk beside the decodes; 0: none.
        labels: Of decodes, skew rate, longest context and the chunk's context, with their bounds:
            ``n<=128``, ``sr<=15%``, ``kvB<=4k``, ``kp=0``, ``n>256``.
        alpha: How far from a batch of only mean to one of only longest contexts.
    """

    chunk: int
    labels: tuple[str, str, str, str]
    alpha: float


@cache
def label_bound(label: str) -> tuple[str, float]:
    """The axis of a bucket's label and its upper bound, infinite for ``>``; k is 1024.

    Raises:
        ValueError: It is none.
    """
    found = _LABEL.match(label.strip())
    if found is None:
        raise ValueError(f"{label!r} is no bucket: expected such as n<=128, sr<=15%, kvB<=4k, kp=0")
    axis, relation, number, unit = found.groups()
    return axis, np.inf if relation == ">" else float(number) * _UNITS[unit.lower()]


class Skew:
    """``alpha`` in ``t = t(mean) + alpha * (t(longest) - t(mean))``.

    The form, and the skew rate ``(mean - min) / (max - min)`` that buckets are made by, are those
    of the tables' profiler (LLMServingSim 2.0). ``alpha`` is kept within 0 and 1: the fits hold
    values far outside, from buckets where the two times differ by less than their noise.

    Args:
        rows: Buckets.
        default: Of a batch that is in no bucket; None: the median of all.
    """

    def __init__(self, rows: Iterable[SkewRow], default: float | None = None) -> None:
        rows = list(rows)
        bounds: dict[str, set[float]] = {axis: set() for axis in AXES}
        alphas: dict[tuple[float, ...], float] = {}
        for row in rows:
            key = tuple(label_bound(label)[1] for label in row.labels)
            for axis, bound in zip(AXES, key, strict=True):
                bounds[axis].add(bound)
            alphas[key[0], float(row.chunk), *key[1:]] = min(max(row.alpha, 0.0), 1.0)
        self._alphas = alphas
        self._lines: dict[tuple[float, int, float, float], tuple[list[float], list[float]]] = {}
        self._chunks = sorted({float(row.chunk) for row in rows if row.chunk > 0})
        self._decodes, self._rates, self._longest, self._before = (
            sorted(bounds[axis]) for axis in AXES
        )
        if default is None:
            default = median(row.alpha for row in rows)
        self._default = min(max(default, 0.0), 1.0)

    def alpha(
        self, chunk: float, before: float, decodes: int, rate: float, longest: float
    ) -> float:
        """Of a batch with that chunk, its context, decodes, skew rate and longest context.

        Between buckets it is interpolated in the logarithm of the decodes, as each was measured
        at its bound, and of the longest context, as each holds the points of a doubling sweep at
        its bound and half of it. A fit of few noisy points would else jump at the bounds.
        """
        centres, alphas = self._over_longest(chunk, before, decodes, rate)
        at = math.log(max(longest, 1.0))
        place = bisect_left(centres, at)
        if place in (0, len(centres)):
            return alphas[min(place, len(centres) - 1)]
        low, high = centres[place - 1], centres[place]
        return alphas[place - 1] + (alphas[place] - alphas[place - 1]) * (at - low) / (high - low)

    def alphas(
        self, decodes: int, rate: float, longest: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Of batches that only decode and differ in their longest context."""
        centres, alphas = self._over_longest(0.0, 0.0, decodes, rate)
        return np.asarray(np.interp(np.log(np.maximum(longest, 1.0)), centres, alphas))

    def _over_longest(
        self, chunk: float, before: float, decodes: int, rate: float
    ) -> tuple[list[float], list[float]]:
        """Centres of the buckets of the longest context, as logarithms, and alpha at each."""
        key = (
            self._chunk(chunk),
            decodes,
            _bucket(self._rates, rate),
            _bucket(self._before, before),
        )
        found = self._lines.get(key)
        if found is None:
            known = [(centre, self._at(key, bound)) for centre, bound in self._centres()]
            line = [(centre, alpha) for centre, alpha in known if alpha is not None]
            line = line or [(0.0, self._default)]
            found = [centre for centre, _ in line], [alpha for _, alpha in line]
            self._lines[key] = found
        return found

    def _centres(self) -> Iterator[tuple[float, float]]:
        last = 1.0
        for bound in self._longest:
            last = bound if bound < math.inf else 2 * last
            yield math.log(last / math.sqrt(2.0)), bound

    def _at(self, key: tuple[float, int, float, float], longest: float) -> float | None:
        chunk, decodes, *others = key
        rest = (chunk, others[0], longest, others[1])
        place = min(bisect_left(self._decodes, decodes), len(self._decodes) - 1)
        bound, least = self._decodes[place], self._decodes[max(place - 1, 0)]
        above, below = self._alphas.get((bound, *rest)), self._alphas.get((least, *rest))
        if above is None:
            return below
        if below is None or not least < decodes < bound < math.inf:
            return above
        return below + (above - below) * math.log(decodes / least) / math.log(bound / least)

    def _chunk(self, chunk: float) -> float:
        """The nearest profiled one, by ratio."""
        chunks = self._chunks
        if chunk <= 0 or not chunks:
            return 0.0
        place = bisect_left(chunks, chunk)
        if place in (0, len(chunks)):
            return chunks[min(place, len(chunks) - 1)]
        low, high = chunks[place - 1], chunks[place]
        return low if chunk * chunk < low * high else high


def _bucket(bounds: list[float], x: float) -> float:
    """The upper bound of the bucket that x is in; infinite beyond all."""
    place = bisect_left(bounds, x)
    return bounds[place] if place < len(bounds) else np.inf
