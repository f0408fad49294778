"""Which batches are like those a model was trained on."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.latency._features import CONTEXT, FEATURES, Table

_SEEN = tuple(
    FEATURES.index(name) for name in ("prefill_tokens", "prefill_work", "decodes", "context")
)

_seen = operator.itemgetter(*_SEEN)

Cell = tuple[int, ...]


class Hull:
    """The range of each feature, and the cells that hold rows.

    A cell is half an octave wide in each of prompt tokens, their attention, decoding sequences
    and their context: a range alone would also take for known what was only seen apart, such as
    long prompts together with many decodes.

    Args:
        low, high: Of each feature.
        cells: Those with rows.
    """

    def __init__(
        self, low: Sequence[float], high: Sequence[float], cells: Iterable[Sequence[int]]
    ) -> None:
        self.low = tuple(float(value) for value in low)
        self.high = tuple(float(value) for value in high)
        self._cells = {tuple(int(part) for part in cell) for cell in cells}
        self._near: dict[Cell, bool] = {}
        if len(self.low) != len(FEATURES) or len(self.high) != len(FEATURES):
            raise ValueError("the ranges are not those of the features")
        if not all(low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("a range ends before it begins")

    def document(self) -> dict[str, Any]:
        """As JSON; ``Hull(**document)`` is the same again."""
        return {"low": self.low, "high": self.high, "cells": sorted(self._cells)}

    def holds(self, values: Sequence[float]) -> bool:
        """Whether each value is within its range."""
        return all(map(operator.le, self.low, values)) and all(map(operator.le, values, self.high))

    def clamped(self, values: Sequence[float]) -> tuple[float, ...]:
        """The nearest values within the ranges."""
        return tuple(
            low if value < low else min(value, high)
            for value, low, high in zip(values, self.low, self.high, strict=True)
        )

    def near(self, values: Sequence[float]) -> bool:
        """Whether the cell of a batch, or one that touches it, holds rows."""
        return self._touched(tuple(map(_place, _seen(values))))

    def near_along(self, values: Sequence[float], contexts: NDArray[np.float64]) -> int:
        """Of batches that differ in their context only, how many are near."""
        first = [_place(values[index]) for index in _SEEN]
        places, counts = np.unique(_places(contexts), return_counts=True)
        found = 0
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            first[_SEEN.index(CONTEXT)] = place
            found += count if self._touched(tuple(first)) else 0
        return found

    def _touched(self, cell: Cell) -> bool:
        known = self._near.get(cell)
        if known is None:
            around = itertools.product(*((part - 1, part, part + 1) for part in cell))
            known = self._near[cell] = any(other in self._cells for other in around)
        return known


def hull_of(table: Table) -> Hull:
    """The hull of rows, shape (rows, features)."""
    cells = np.unique(_places(table[:, _SEEN]), axis=0)
    return Hull(table.min(axis=0).tolist(), table.max(axis=0).tolist(), cells.tolist())


def _place(value: float) -> int:
    """Half octaves from 1 on: the bits of the square."""
    return int(value * value).bit_length()


def _places(values: NDArray[np.float64]) -> NDArray[np.int64]:
    _, bits = np.frexp(np.floor(values * values))
    return bits.astype(np.int64)
