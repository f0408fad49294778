"""The gaps of a measured attention grid, filled.

Recorded grids have gaps of three sorts: shapes that did not fit into the profiled engine, shapes
that make no sense (decodes without a context), and, where two sweeps were merged, shapes that
belong to one sweep only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.latency._operators_curve import FAR, chord_start

Array = NDArray[np.float64]
Places = NDArray[np.intp]
Points = Mapping[tuple[int, int, int, int], float]
CHUNK, BEFORE, DECODES, CONTEXT = range(4)


@dataclass
class Grid:
    """A grid on its way to be complete.

    Attributes:
        axes: Values of prefill chunk, its context, decodes, their context; 0 is in each.
        times: One per point; nan where there is none yet.
        work: Of a chunk of so many tokens after so many: what is linear along the chunk axis.
    """

    axes: list[Array]
    times: Array
    work: Callable[[Array, Array], Array]

    def along(self, axis: int) -> tuple[Array, Array]:
        """Coordinates and times with that axis last; the times are the grid's own."""
        times = np.moveaxis(self.times, axis, -1)
        if axis != CHUNK:
            return np.broadcast_to(self.axes[axis], times.shape), times
        cost = self.work(self.axes[CHUNK], self.axes[BEFORE][:, np.newaxis])
        return np.broadcast_to(cost[:, np.newaxis, np.newaxis, :], times.shape), times


def complete_grid(points: Points, work: Callable[[Array, Array], Array]) -> Grid:
    """The grid of measured points, complete and carried on far beyond its end.

    Between measured points along a line of the grid times are interpolated, first along the
    contexts, then along the chunk, then along the number of decodes; before the first one of a
    line they are constant, beyond its last one they rise as they did; lines with a single
    measured point come last. Decodes without a context take as long as with the shortest one.

    Args:
        points: (prefill chunk, its context, decodes, their context) to microseconds.
        work: See :class:`Grid`.
    """
    grid = _measured(points, work)
    unmeasured = np.isnan(grid.times[:, :, 1:, :1])
    for fill in (_interpolate, _carry_on_lines, _carry_on):
        _until_settled(grid, fill)
    without = grid.times[:, :, 1:, :1]
    shortest = min(1, len(grid.axes[CONTEXT]) - 1)
    without[...] = np.where(unmeasured, grid.times[:, :, 1:, [shortest]], without)
    for axis in (CONTEXT, DECODES, BEFORE, CHUNK):
        _append_far(grid, axis)
    return grid


def _measured(points: Points, work: Callable[[Array, Array], Array]) -> Grid:
    places = np.array(list(points))
    axes = [np.unique([0, *places[:, axis]]).astype(np.float64) for axis in range(4)]
    times = np.full([len(axis) for axis in axes], np.nan)
    index = tuple(np.searchsorted(axes[axis], places[:, axis]) for axis in range(4))
    times[index] = list(points.values())
    _broadcast(times[0], axis=0)
    _broadcast(times[:, :, 0], axis=2)
    if len(axes[CHUNK]) > 1:
        times[0, :, 0] = times[1, :, 0]
    return Grid(axes, times, work)


def _broadcast(plane: Array, axis: int) -> None:
    """Along a context that no sequence has, nothing changes."""
    first = np.take(plane, [0], axis=axis)
    plane[...] = np.where(np.isnan(plane), first, plane)


def _until_settled(grid: Grid, fill: Callable[[Array, Array, Places, Places], None]) -> None:
    missing = int(np.isnan(grid.times).sum())
    while missing:
        for axis in (CONTEXT, BEFORE, CHUNK, DECODES):
            _fill_lines(*grid.along(axis), fill)
        left = int(np.isnan(grid.times).sum())
        if left == missing:
            return
        missing = left


def _fill_lines(
    xs: Array, times: Array, fill: Callable[[Array, Array, Places, Places], None]
) -> None:
    """Fill lines along the last axis: those with the same gaps at once."""
    gaps = np.isnan(times)
    some = np.nonzero(gaps.any(axis=-1) & ~gaps.all(axis=-1))
    if not some[0].size:
        return
    alike: dict[bytes, list[int]] = {}
    for number, pattern in enumerate(gaps[some]):
        alike.setdefault(pattern.tobytes(), []).append(number)
    for pattern, numbers in alike.items():
        lines = tuple(place[numbers] for place in some)
        part, missing = times[lines], np.frombuffer(pattern, dtype=np.bool_)
        fill(xs[lines], part, np.flatnonzero(~missing), np.flatnonzero(missing))
        times[lines] = part


def _interpolate(xs: Array, times: Array, known: Places, gaps: Places) -> None:
    for gap in gaps[(gaps > known[0]) & (gaps < known[-1])]:
        after = int(np.searchsorted(known, gap))
        low, high = known[after - 1], known[after]
        share = (xs[:, gap] - xs[:, low]) / (xs[:, high] - xs[:, low])
        times[:, gap] = times[:, low] + (times[:, high] - times[:, low]) * share


def _carry_on_lines(xs: Array, times: Array, known: Places, gaps: Places) -> None:
    if len(known) > 1:
        _carry_on(xs, times, known, gaps)


def _carry_on(xs: Array, times: Array, known: Places, gaps: Places) -> None:
    first, last = known[0], known[-1]
    times[:, :first] = times[:, [first]]
    start = known[chord_start(xs[0, known].tolist())]
    if start == last:
        slope = np.divide(times[:, last], xs[:, last], where=xs[:, last] > 0, out=0 * xs[:, last])
    else:
        slope = (times[:, last] - times[:, start]) / (xs[:, last] - xs[:, start])
    for gap in gaps[gaps > last]:
        rise = np.maximum(slope, 0.0) * (xs[:, gap] - xs[:, last])
        times[:, gap] = times[:, last] + rise


def _append_far(grid: Grid, axis: int) -> None:
    far = max(grid.axes[axis][-1], FAR) * FAR
    grid.axes[axis] = np.append(grid.axes[axis], far)
    gap = np.full_like(np.take(grid.times, [0], axis=axis), np.nan)
    grid.times = np.concatenate([grid.times, gap], axis=axis)
    _fill_lines(*grid.along(axis), _carry_on)
