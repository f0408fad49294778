"""Curves through the measured times of one operator, that go on where the measurements end."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

FAR = 1024.0
"""An axis is carried on to so many times its last measured value."""
TILE = 64
"""Tokens that kernels of matrix products compute together, at least; some use 128 or 256."""

Points = Mapping[float, float]


class Curve:
    """A curve through points of rising x.

    Below the first point it is constant: a kernel that is bound by its weights or its launch
    takes as long for one token as for the first measured number of them. Beyond the last one it
    goes on along the chord from half of the last x, which neighbouring points, a few per cent of
    noise apart on a fine grid, cannot tilt; it never falls.

    Args:
        points: x to y; at least one.
        stepped: Whether it steps up right after a point instead of rising to the next one, where
            points are a tile or less apart.
    """

    def __init__(self, points: Points, *, stepped: bool = False) -> None:
        xs = sorted(points)
        ys = [points[x] for x in xs]
        last = xs[-1]
        slope = _rising_slope(xs, ys)
        self.stepped = stepped
        self._xs = [*xs, last * FAR + 1.0]
        self._ys = [*ys, ys[-1] + slope * (last * (FAR - 1) + 1.0)]
        self._slopes = [
            (self._ys[place + 1] - self._ys[place]) / (self._xs[place + 1] - self._xs[place])
            for place in range(len(xs))
        ]

    @property
    def knots(self) -> list[float]:
        """x of the measured points."""
        return self._xs[:-1]

    def __call__(self, x: float) -> float:
        if x <= self._xs[0]:
            return self._ys[0]
        place = min(bisect_left(self._xs, x) - 1, len(self._slopes) - 1)
        if self.stepped and self._xs[place + 1] - self._xs[place] <= TILE:
            return self._ys[place + 1]
        return self._ys[place] + self._slopes[place] * (x - self._xs[place])


def measured_curve(points: Points) -> Curve:
    """The curve of an operator, in steps if its points follow them.

    A matrix product takes the time of whole tiles: as long for 257 tokens as for 384, and often a
    third longer than for 256. Whether an operator does is seen in its points: those inside of
    windows of one or half a tile are predicted from the window's ends, as a step and on a line.
    """
    line = step = 0.0
    for width in (TILE // 2, TILE):
        for x, y in points.items():
            low = x // width * width
            high = low + width
            if low < x and low in points and high in points:
                share = (x - low) / width
                step += abs(points[high] - y)
                line += abs(points[low] + (points[high] - points[low]) * share - y)
    return Curve(points, stepped=step < line)


def weighted_sum(curves: Iterable[tuple[Curve, float]]) -> Callable[[float], float]:
    """The curve of a sum, on all their points, up to the last point that all have."""
    parts = [(curve, weight) for curve, weight in curves if weight]
    sums = [
        _sum_of([part for part in parts if part[0].stepped is stepped], stepped)
        for stepped in (False, True)
    ]
    lines, steps = sums
    return lambda x: lines(x) + steps(x)


def _sum_of(parts: Sequence[tuple[Curve, float]], stepped: bool) -> Curve:
    if not parts:
        return Curve({0.0: 0.0})
    end = min(curve.knots[-1] for curve, _ in parts)
    knots = sorted({x for curve, _ in parts for x in curve.knots if x <= end})
    points = {x: sum(curve(x) * weight for curve, weight in parts) for x in knots}
    return Curve(points, stepped=stepped)


def chord_start(xs: Sequence[float]) -> int:
    """Where the chord begins along which points are carried on: the last of them that is at no
    more than half of the last x, the first one where there is none."""
    return max(min(bisect_right(xs, xs[-1] / 2), len(xs) - 1) - 1, 0)


def _rising_slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    if len(xs) == 1:
        return ys[0] / xs[0] if xs[0] > 0 else 0.0
    start = chord_start(xs)
    return max((ys[-1] - ys[start]) / (xs[-1] - xs[start]), 0.0)
