"""Parameters that are numbers in a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from searchers._contract import Json
from searchers._parameters import BaseParameter, FiniteParameter, Values, bin_of, spelled

_DIGITS = 10
"""Significant digits of a continuous value: far more than any measurement resolves, and few enough
that encoding and decoding one restores it exactly."""

_NARROWEST = 1e-6
"""The smallest width of a continuous range, relative to its larger end."""

_WIDEST = 2**40
"""Whole numbers up to here are told apart by a coordinate, on a logarithmic axis too."""


class _WholeNumbers(FiniteParameter):
    """low, low + step, ... up to at most high."""

    type: str
    low: int = Field(ge=-_WIDEST, le=_WIDEST)
    high: int = Field(ge=-_WIDEST, le=_WIDEST)
    step: int = Field(1, ge=1)

    @property
    def last(self) -> int:
        """The greatest value: high, or a little less."""
        return self.high - (self.high - self.low) % self.step

    @property
    def numeric(self) -> bool:
        return True

    @property
    def span(self) -> float:
        return float(self.high - self.low)

    def size(self) -> int:
        return (self.high - self.low) // self.step + 1

    def at(self, index: int) -> Json:
        return self.low + index * self.step

    def index(self, value: Json) -> int:
        return stepped_index(value, self.low, self.last, self.step)


class IntParameter(_WholeNumbers):
    """``{type: int, low: 1, high: 64, step: 1, log: false}``, both ends included."""

    type: Literal["int"]
    log: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> IntParameter:
        _check_range(self.low, self.high, log=self.log, stepped=self.step != 1)
        if self.last != self.high:
            raise ValueError(
                f"high {self.high} is not low plus a multiple of step {self.step}; "
                f"use {self.last} or {self.last + self.step}"
            )
        return self

    @property
    def log_scaled(self) -> bool:
        return self.log

    def decode(self, unit: float, given: Values) -> Json:
        if not self.log:
            return super().decode(unit, given)
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(bottom + unit * (top - bottom))), self.low), self.high)

    def encode(self, value: Json, given: Values) -> float:
        if not self.log:
            return super().encode(value, given)
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return (math.log(self.canonical(value, given)) - bottom) / (top - bottom)


class RangeParameter(_WholeNumbers):
    """``{type: range, low: 0, high: 1000, step: 10}``: low, low + step, ... up to at most high."""

    type: Literal["range"]

    @model_validator(mode="after")
    def _consistent(self) -> RangeParameter:
        _check_range(self.low, self.high, log=False, stepped=True)
        return self


class FloatParameter(BaseParameter):
    """``{type: float, low: 0.5, high: 0.95, step: 0.05, log: false}``; no step: continuous."""

    type: Literal["float"]
    low: float
    high: float
    step: float | None = Field(None, gt=0)
    log: bool = False

    @field_validator("low", "high")
    @classmethod
    def _unsigned_zero(cls, end: float) -> float:
        return end + 0.0

    @model_validator(mode="after")
    def _consistent(self) -> FloatParameter:
        _check_range(self.low, self.high, log=self.log, stepped=self.step is not None)
        if self.step is None:
            if 0 < self.high - self.low < max(abs(self.low), abs(self.high)) * _NARROWEST:
                raise ValueError(f"{self.low}..{self.high} is too narrow; use an enum of values")
            return self
        if self.step < 10.0**-self._decimals:
            raise ValueError(f"step {self.step} is too small beside {self.low} and {self.high}")
        steps = (self.high - self.low) / self.step
        if abs(steps - round(steps)) > 1e-6:
            under, over = (self.low + math.floor(steps + k) * self.step for k in (0, 1))
            raise ValueError(
                f"high {self.high} is not low plus a multiple of step {self.step}; "
                f"use {under:.{_DIGITS}g} or {over:.{_DIGITS}g}"
            )
        return self

    @property
    def numeric(self) -> bool:
        return True

    @property
    def log_scaled(self) -> bool:
        return self.log

    @property
    def span(self) -> float:
        return self.high - self.low

    @property
    def _decimals(self) -> int:
        largest = max(abs(self.low), abs(self.high))
        return _DIGITS - 1 - math.floor(math.log10(largest)) if largest else _DIGITS

    def _shorten(self, value: float) -> float:
        return float(f"{value:.{_DIGITS - 1}e}") if self.log else round(value, self._decimals)

    def _round(self, value: float) -> float:
        """The canonical neighbour of ``value``: an end of the range, or a short number."""
        short = self._shorten(value)
        ends = (end for end in (self.low, self.high) if self._shorten(end) == short)
        return next(ends, short) + 0.0  # turns -0.0 into 0.0

    def size(self) -> int | None:
        if self.low == self.high:
            return 1
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def _at(self, index: int, size: int) -> float:
        assert self.step is not None or size == 1
        last = index == size - 1
        return self.high if last else self._round(self.low + index * (self.step or 0.0))

    def decode(self, unit: float, given: Values) -> Json:
        size = self.size()
        if size is not None:
            return self._at(bin_of(unit, size), size)
        if unit in (0.0, 1.0):
            return self.high if unit else self.low
        if self.log:
            bottom, top = math.log(self.low), math.log(self.high)
            return self._round(math.exp(bottom + unit * (top - bottom)))
        return self._round(self.low + unit * (self.high - self.low))

    def encode(self, value: Json, given: Values) -> float:
        legal: float = self.canonical(value, given)
        size = self.size()
        if size == 1:
            return 0.5
        if size is not None and self.step is not None:
            return (round((legal - self.low) / self.step) + 0.5) / size
        if self.log:
            bottom, top = math.log(self.low), math.log(self.high)
            return (math.log(legal) - bottom) / (top - bottom)
        return (legal - self.low) / (self.high - self.low)

    def canonical(self, value: Json, given: Values) -> Json:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, not {spelled(value)}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must lie in {self.low}..{self.high}, not {value}")
        size = self.size()
        if size is None or size == 1 or self.step is None:
            return self._round(float(value))
        stepped = self._at(round((value - self.low) / self.step), size)
        if abs(stepped - value) > self.step * 1e-6:
            raise ValueError(f"must be {self.low} plus a multiple of {self.step}, not {value}")
        return stepped

    def grid(self, points: int | None, given: Values) -> Sequence[Json]:
        size = self.size()
        if size is not None:
            return [self._at(index, size) for index in range(size)]
        if points is None:
            raise ValueError("is continuous: give it a step, or the grid a number of points")
        if points == 1:
            return [self.decode(0.5, given)]
        values = (self.decode(index / (points - 1), given) for index in range(points))
        return list(dict.fromkeys(values))


def stepped_index(value: Json, low: int, high: int, step: int = 1) -> int:
    """Which of low, low + step, ..., high ``value`` is, from 0. Raises ``ValueError`` if none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {spelled(value)}")
    if not low <= value <= high:
        raise ValueError(f"must lie in {low}..{high}, not {value}")
    index, over = divmod(value - low, step)
    if over:
        raise ValueError(f"must be {low} plus a multiple of {step}, not {value}")
    return index


def _check_range(low: float, high: float, *, log: bool, stepped: bool) -> None:
    if low > high:
        raise ValueError(f"low {low} is greater than high {high}")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range must start above 0, not at {low}")
    if log and stepped:
        raise ValueError("log and step exclude each other")
