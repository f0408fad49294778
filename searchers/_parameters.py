"""Typed parameters, as the experiment file writes them.

Every parameter that has more than one value is one coordinate of the unit cube. ``decode`` maps a
coordinate to a value and ``encode`` maps a value back, so strategies work in [0, 1]^d and never
learn about types. Each value of a finite parameter owns an equal share of its axis (of the
logarithmic axis with ``log``); truncation or rounding would give the ends too little.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

from searchers._contract import Json

Values: TypeAlias = Mapping[str, Json]
Scalar: TypeAlias = str | bool | int | float | None


class BaseParameter(BaseModel):
    """Base of all parameters. ``given`` holds the values of the parameters declared before."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def searched(self) -> bool:
        """Whether this parameter is a coordinate of the unit cube."""
        return self.size() != 1

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return False

    @property
    def ordered(self) -> bool:
        """Whether values that are neighbours on the axis are similar ones."""
        return self.numeric

    @property
    def log_scaled(self) -> bool:
        """Whether equal steps along the axis are equal factors, not equal differences."""
        return False

    @property
    def span(self) -> float:
        """The length of the axis in the unit of the parameter; 1 where it has none."""
        return 1.0

    @abstractmethod
    def size(self) -> int | None:
        """Number of values; None for a continuous parameter."""

    @abstractmethod
    def decode(self, unit: float, given: Values) -> Json:
        """The value at ``unit`` in [0, 1]; any ``unit`` will do if not :attr:`searched`."""

    @abstractmethod
    def encode(self, value: Json, given: Values) -> float:
        """A coordinate that decodes to ``value``, which must be legal."""

    @abstractmethod
    def canonical(self, value: Json, given: Values) -> Json:
        """The one way to write ``value``. Raises ``ValueError`` when it is not legal."""

    @abstractmethod
    def grid(self, points: int | None, given: Values) -> Sequence[Json]:
        """All values in order, or ``points`` evenly spaced ones of a continuous parameter.

        Raises ``ValueError`` for a continuous parameter without ``points``.
        """


class FiniteParameter(BaseParameter):
    """A parameter with values numbered from 0."""

    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def at(self, index: int) -> Json: ...

    @abstractmethod
    def index(self, value: Json) -> int: ...

    def decode(self, unit: float, given: Values) -> Json:
        return self.at(bin_of(unit, self.size()))

    def encode(self, value: Json, given: Values) -> float:
        return (self.index(value) + 0.5) / self.size()

    def canonical(self, value: Json, given: Values) -> Json:
        return self.at(self.index(value))

    def grid(self, points: int | None, given: Values) -> Sequence[Json]:
        return [self.at(index) for index in range(self.size())]


class ConstantParameter(FiniteParameter):
    """``{type: constant, value: 128}``: the same in every trial."""

    type: Literal["constant"]
    value: Scalar

    @property
    def numeric(self) -> bool:
        return is_number(self.value)

    def size(self) -> int:
        return 1

    def at(self, index: int) -> Json:
        return self.value

    def index(self, value: Json) -> int:
        if spelled(value) != spelled(self.value):
            raise ValueError(f"must be {spelled(self.value)}, not {spelled(value)}")
        return 0


class BoolParameter(FiniteParameter):
    """``{type: bool}``."""

    type: Literal["bool"]

    def size(self) -> int:
        return 2

    def at(self, index: int) -> Json:
        return bool(index)

    def index(self, value: Json) -> int:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {spelled(value)}")
        return int(value)


class EnumParameter(FiniteParameter):
    """``{type: enum, values: [none, awq, 8]}``: strings, numbers, booleans or null, all distinct.

    ``1``, ``1.0`` and ``true`` are three different values.
    """

    type: Literal["enum"]
    values: tuple[Scalar, ...] = Field(min_length=1, strict=False)

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        texts = [spelled(value) for value in values]
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            raise ValueError(f"every value may stand only once; repeated: {', '.join(twice)}")
        return values

    @property
    def numeric(self) -> bool:
        return all(is_number(value) for value in self.values)

    @property
    def ordered(self) -> bool:
        return self.numeric and _monotone(self.values)

    @property
    def log_scaled(self) -> bool:
        return self.ordered and _geometric(self.values)

    def size(self) -> int:
        return len(self.values)

    def at(self, index: int) -> Json:
        return self.values[index]

    def index(self, value: Json) -> int:
        texts = [spelled(known) for known in self.values]
        if spelled(value) not in texts:
            raise ValueError(f"must be one of {', '.join(texts)}, not {spelled(value)}")
        return texts.index(spelled(value))


def bin_of(unit: float, count: int) -> int:
    return min(int(unit * count), count - 1)


def spelled(value: Any) -> str:
    """The JSON spelling of a value, which tells 1, 1.0 and true apart."""
    return json.dumps(value, ensure_ascii=False, default=repr)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _monotone(values: Sequence[Any]) -> bool:
    return list(values) in (sorted(values), sorted(values, reverse=True))


def _geometric(values: Sequence[Any]) -> bool:
    """Whether the factors between neighbours are more alike than the differences."""
    pairs = list(pairwise(values))
    if len(pairs) < 2 or any(a * b <= 0 for a, b in pairs):
        return False
    factors = [abs(math.log(b / a)) for a, b in pairs]
    steps = [abs(b - a) for a, b in pairs]
    return bool(min(factors) / max(factors) > min(steps) / max(steps))
