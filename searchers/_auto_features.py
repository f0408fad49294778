"""Points of a space as numbers a model can use."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchers import _auto_lore as lore
from searchers._contract import Json

Array = NDArray[np.float64]

_DECADES = 4.0
"""A positive range at least this wide, largest over smallest, is seen on a logarithmic scale."""

_MORE = 1.0
"""How much a metric to be made large is expected to rise along the whole range of a number, as a
logarithm. Most numbers count something, and more of it does more work. What the work costs has no
such direction: more load costs time, more devices save it."""

_ELSEWHERE = 0.15
"""How far all measurements of other runs may be off, as a logarithm."""


@dataclass(frozen=True)
class Linear:
    """One column of the linear part of the model.

    Attributes:
        effect: What it stands for, see :mod:`searchers._auto_lore`; empty: unknown.
        spread: How steep it may be.
        rise: How steeply a metric to be made large is expected to rise along it, when its name
            says nothing.
        numeric: Which number it is the logarithm of; None: none.
    """

    effect: str
    spread: float
    rise: float = 0.0
    numeric: int | None = None


@dataclass(frozen=True)
class Encoded:
    """``n`` points. ``unit`` (n, numeric) lies in [0, 1]; ``codes`` (n, categorical) are whole
    numbers; ``linear`` (n, columns) is centred; ``load`` and ``seqs`` (n,) are logarithms;
    ``believed`` (n, metrics) is what a simulator says, less its mean; None: there is none."""

    unit: Array
    codes: NDArray[np.int64]
    linear: Array
    load: Array | None
    seqs: Array | None
    believed: Array | None = None

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Encoded:
        def some(values: Array | None) -> Array | None:
            return None if values is None else values[rows]

        return Encoded(
            self.unit[rows],
            self.codes[rows],
            self.linear[rows],
            some(self.load),
            some(self.seqs),
            some(self.believed),
        )

    def near(self, other: Encoded, row: int) -> NDArray[np.bool_]:
        """Which points differ from that row of ``other`` in at most one parameter."""
        apart = (self.unit != other.unit[row]).sum(axis=1)
        apart += (self.codes != other.codes[row]).sum(axis=1)
        return np.asarray(apart <= 1)

    def beside(self, other: Encoded) -> Encoded:
        """These points, then the others."""

        def both(one: Array | None, two: Array | None) -> Array | None:
            return None if one is None or two is None else np.concatenate([one, two])

        return Encoded(
            np.concatenate([self.unit, other.unit]),
            np.concatenate([self.codes, other.codes]),
            np.concatenate([self.linear, other.linear]),
            both(self.load, other.load),
            both(self.seqs, other.seqs),
            both(self.believed, other.believed),
        )


@dataclass(frozen=True)
class _Numeric:
    name: str
    log: bool
    low: float
    high: float
    role: lore.Role

    def scaled(self, value: Json) -> float:
        number = value if isinstance(value, int | float) else math.nan
        if self.log:
            number = math.log(number) if number > 0 else self.low
        return self.low if math.isnan(number) else float(number)

    def unit(self, value: Json) -> float:
        return (self.scaled(value) - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class _Categorical:
    name: str
    levels: tuple[str, ...]
    known: tuple[str, tuple[float, ...]] | None

    def code(self, value: Json) -> int:
        spelled = _spelled(value)
        return self.levels.index(spelled) if spelled in self.levels else len(self.levels)


class Features:
    """How the points of one space are encoded, found from a sample that shows its ends.

    Numbers are ordered and get a scale; everything else is a category. With ``hints``, names and
    values say more, see :mod:`searchers._auto_lore`.
    """

    def __init__(self, sample: Sequence[Mapping[str, Json]], *, hints: bool) -> None:
        self._numeric: list[_Numeric] = []
        self._categorical: list[_Categorical] = []
        for name in sample[0]:
            values = [point[name] for point in sample]
            distinct = {_spelled(value): value for value in values}
            if len(distinct) > 1:
                self._add(name, list(distinct.values()), hints)
        self._load = self._only("load")
        self._seqs = self._only("seqs")
        self.counts_requests = self._load is None or lore.counts_requests(self._load.name)
        self.columns = self._columns()

    @property
    def dimensions(self) -> int:
        return len(self._numeric) + len(self._categorical)

    @property
    def numeric(self) -> int:
        return len(self._numeric)

    @property
    def categorical(self) -> int:
        return len(self._categorical)

    @property
    def load_range(self) -> tuple[float, float] | None:
        """Logarithms of the ends of the load, or of the limit of sequences; None: no such."""
        leading = self._load or self._seqs
        return None if leading is None else (leading.low, leading.high)

    def encode(
        self, points: Sequence[Mapping[str, Json]], elsewhere: Sequence[bool] | None = None
    ) -> Encoded:
        """The points; ``elsewhere`` tells which of them were measured by other runs."""
        rows = len(points)
        unit = np.empty((rows, len(self._numeric)))
        for j, numeric in enumerate(self._numeric):
            unit[:, j] = [numeric.unit(point[numeric.name]) for point in points]
        codes = np.empty((rows, len(self._categorical)), dtype=np.int64)
        for j, category in enumerate(self._categorical):
            codes[:, j] = [category.code(point[category.name]) for point in points]
        origin = np.array(elsewhere or [False] * rows, dtype=float)
        linear = np.column_stack([self._linear(unit, codes), origin])
        load, seqs = self._log(points, self._load), self._log(points, self._seqs)
        return Encoded(unit, codes, linear, load, seqs)

    def _add(self, name: str, values: list[Json], hints: bool) -> None:
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values):
            self._categorical.append(_category(name, values, hints))
            return
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low >= _DECADES
        role = lore.role(name) if hints else ""
        if role and low > 0:
            log = True
        ends = (math.log(low), math.log(high)) if log else (float(low), float(high))
        self._numeric.append(_Numeric(name, log, *ends, role if log else ""))

    def _only(self, role: str) -> _Numeric | None:
        return next((numeric for numeric in self._numeric if numeric.role == role), None)

    def _columns(self) -> tuple[Linear, ...]:
        columns = []
        for j, numeric in enumerate(self._numeric):
            if numeric is self._load or numeric is self._seqs:
                continue
            spread = lore.spread(numeric.role)
            wide = 1.0 / max(numeric.high - numeric.low, 1e-9)
            if spread is None:
                columns.append(Linear("", wide, _MORE * wide, j))
            else:
                columns.append(Linear(numeric.role, spread, 0.0, j))
        for category in self._categorical:
            if category.known is not None:
                effect = category.known[0]
                columns.append(Linear(effect, lore.spread(effect) or 0.3))
        return (*columns, Linear("", _ELSEWHERE))

    def _linear(self, unit: Array, codes: NDArray[np.int64]) -> Array:
        columns = []
        for j, numeric in enumerate(self._numeric):
            if numeric is not self._load and numeric is not self._seqs:
                columns.append((unit[:, j] - 0.5) * (numeric.high - numeric.low))
        for j, category in enumerate(self._categorical):
            if category.known is not None:
                logs = np.log([*category.known[1], np.exp(np.mean(np.log(category.known[1])))])
                columns.append((logs - logs.mean())[codes[:, j]])
        return np.stack(columns, axis=1) if columns else np.empty((len(unit), 0))

    def _log(self, points: Sequence[Mapping[str, Json]], of: _Numeric | None) -> Array | None:
        if of is None:
            return None
        return np.array([of.scaled(point[of.name]) for point in points])


def _category(name: str, values: list[Json], hints: bool) -> _Categorical:
    levels = tuple(_spelled(value) for value in values)
    known: tuple[str, tuple[float, ...]] | None = None
    bits = lore.bits(values) if hints else None
    speeds = lore.speeds(values) if hints and bits is None else None
    if bits is not None:
        known = ("bits", tuple(bits))
    elif speeds is not None:
        known = ("speed", tuple(speeds))
    return _Categorical(name, levels, known)


def _spelled(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
