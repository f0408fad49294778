"""Attention over a grid of (prefill chunk, its context, decodes, their context).

How points between those of the grid are found was chosen by leaving points out of real tables
and predicting them (``benchmarks/operator_interpolation.py``): linearly in the values of an axis
instead of in their logarithms, as the kernel is bound by the KV cache it reads; along the chunk
linearly in its work, ``chunk * (context + chunk / 2)`` pairs of tokens, and a part per token.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables.latency._operators_fill import complete_grid
from trainables.simulation import Chunk

Number = TypeVar("Number", float, NDArray[np.float64])

TOKEN_WORK = 256.0
"""Work of one token of a chunk that does not grow with its context, in pairs of tokens."""


def work(chunk: float, context: float) -> float:
    """What a chunk costs, in pairs of tokens: each attends to all before it."""
    return chunk * (context + chunk / 2 + TOKEN_WORK)


def _works(chunk: NDArray[np.float64], context: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(chunk * (context + chunk / 2 + TOKEN_WORK))


def as_one_chunk(chunks: Sequence[Chunk]) -> tuple[float, float]:
    """The one chunk, as (tokens, context), that does the attention work of several.

    Of sequences that are prefilled together each attends only to itself, so that their tokens
    cannot simply be added: it has as many pairs of tokens, ``sum(t * (c + t / 2))``, and, as far as
    a context of 0 or more allows it, as many tokens.
    """
    if len(chunks) == 1:
        return float(chunks[0].tokens), float(chunks[0].context)
    tokens, pairs = 0.0, 0.0
    for new, had in chunks:
        tokens += new
        pairs += new * (had + new / 2)
    context = pairs / tokens - tokens / 2
    if context >= 0:
        return tokens, context
    return float((2 * pairs) ** 0.5), 0.0


class DecodeRow:
    """Microseconds over the mean context, for a number of decoding sequences."""

    def __init__(self, xs: list[float], ys: list[float]) -> None:
        self._xs, self._ys = xs, ys
        self._slopes = [
            (ys[place + 1] - ys[place]) / (xs[place + 1] - xs[place])
            for place in range(len(xs) - 1)
        ]
        self._arrays = np.array(xs), np.array(ys), np.array(self._slopes)

    def __call__(self, context: float) -> float:
        place = min(max(bisect_right(self._xs, context) - 1, 0), len(self._slopes) - 1)
        return self._ys[place] + self._slopes[place] * (context - self._xs[place])

    def work(self, context: Number) -> Number:
        """Without what a batch of equal contexts loses because all of it waits at once: from the
        shortest measured context on as fast per token as with the longest ones."""
        return self._ys[1] + self._slopes[-1] * (context - self._xs[1])

    def many(self, contexts: NDArray[np.float64]) -> NDArray[np.float64]:
        xs, ys, slopes = self._arrays
        places = np.clip(np.searchsorted(xs, contexts, side="right") - 1, 0, len(slopes) - 1)
        return np.asarray(ys[places] + slopes[places] * (contexts - xs[places]))


class AttentionGrid:
    """A complete grid, made of one with gaps, that goes on beyond its ends.

    Args:
        points: (prefill chunk, its context, decodes, their context) to microseconds.
    """

    def __init__(self, points: Mapping[tuple[int, int, int, int], float]) -> None:
        grid = complete_grid(points, _works)
        self._chunks, self._before, self._decodes, self._contexts = (
            axis.tolist() for axis in grid.axes
        )
        values = grid.times
        self._decode_values = values[0, 0]
        self._s0, self._s1, self._s2 = (int(np.prod(values.shape[axis:])) for axis in (1, 2, 3))
        self._flat: list[float] = values.ravel().tolist()
        self._rows: dict[int, DecodeRow] = {}

    def decode_row(self, decodes: int) -> DecodeRow:
        """Of a batch that only decodes."""
        row = self._rows.get(decodes)
        if row is None:
            place, share = _between(self._decodes, float(decodes))
            low, high = self._decode_values[place], self._decode_values[place + 1]
            row = DecodeRow(self._contexts, (low + (high - low) * share).tolist())
            self._rows[decodes] = row
        return row

    def __call__(
        self, chunk: float, before: float, decodes: float, *contexts: float
    ) -> list[float]:
        """Microseconds of one layer, with each of these contexts; ``chunk`` is above 0."""
        c0 = min(bisect_right(self._chunks, chunk) - 1, len(self._chunks) - 2)
        low = work(self._chunks[c0], before)
        u = min((work(chunk, before) - low) / (work(self._chunks[c0 + 1], before) - low), 1.0)
        b0, v = _between(self._before, before)
        d0, w = _between(self._decodes, decodes)
        at = c0 * self._s0 + b0 * self._s1 + d0 * self._s2
        times = []
        for context in contexts:
            x0, x = _between(self._contexts, context)
            time = self._face(at + x0, v, w, x)
            if u:
                time += (self._face(at + self._s0 + x0, v, w, x) - time) * u
            times.append(time)
        return times

    def _face(self, at: int, v: float, w: float, x: float) -> float:
        low = self._edge(at, w, x)
        return low + (self._edge(at + self._s1, w, x) - low) * v if v else low

    def _edge(self, at: int, w: float, x: float) -> float:
        flat = self._flat
        low = flat[at]
        low += (flat[at + 1] - low) * x
        if not w:
            return low
        at += self._s2
        high = flat[at]
        return low + (high + (flat[at + 1] - high) * x - low) * w


def _between(axis: list[float], x: float) -> tuple[int, float]:
    """The place of x on an axis, as (index, share of the way to the next one); constant below the
    first and beyond the last one."""
    place = min(max(bisect_right(axis, x) - 1, 0), len(axis) - 2)
    share = (x - axis[place]) / (axis[place + 1] - axis[place])
    return place, min(max(share, 0.0), 1.0)
