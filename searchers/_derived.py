"""Parameters whose values follow from those of parameters declared before them.

Only a ``ratio`` is a coordinate of its own. A quotient of whole numbers has no value for some of
its targets; the space then moves the targets, see :mod:`searchers._repair`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from searchers._contract import Json
from searchers._numbers import stepped_index
from searchers._parameters import BaseParameter, Values, bin_of, is_number, spelled

_DIGITS = 10
_FUZZ = 1e-9
"""What a product of decimal fractions may miss a half by and still be rounded up."""


_LARGEST_PRODUCT = 2**31
"""Its divisors are listed by trial."""


Pair: TypeAlias = Annotated[tuple[str, str], Field(strict=False)]


class UnsuitableError(ValueError):
    """A derived parameter has no legal value for these values of its targets."""


class DerivedParameter(BaseParameter):
    """Base of parameters that are not searched: their one value follows from others."""

    @property
    @abstractmethod
    def references(self) -> tuple[str, ...]:
        """The parameters that this one is derived from; all are declared before."""

    @abstractmethod
    def value(self, given: Values) -> Json:
        """The value that follows. Raises :class:`UnsuitableError` when there is none."""

    @abstractmethod
    def formula(self, given: Values) -> str:
        """Where the value comes from, for people."""

    @property
    def numeric(self) -> bool:
        return True

    def size(self) -> int:
        return 1

    def decode(self, unit: float, given: Values) -> Json:
        return self.value(given)

    def encode(self, value: Json, given: Values) -> float:
        return 0.5

    def canonical(self, value: Json, given: Values) -> Json:
        return self.agreed(value, self.value(given), given)

    def agreed(self, value: Json, right: Json, given: Values) -> Json:
        """``right``, of which ``value`` must be another spelling; else raises ``ValueError``."""
        if not is_number(value) or not math.isclose(value, right, rel_tol=_FUZZ, abs_tol=_FUZZ):
            told = f"must be {spelled(right)} ({self.formula(given)}), not {spelled(value)}"
            raise ValueError(told)
        return right

    def grid(self, points: int | None, given: Values) -> Sequence[Json]:
        try:
            return [self.value(given)]
        except UnsuitableError:
            return []


class RatioParameter(BaseParameter):
    """``{type: ratio, of: max_batch_size, low: 0.1, high: 0.7, minimum: 1}``: a share of another.

    The values are the whole numbers from ``low`` times the target to ``high`` times the target,
    both rounded, but none below ``minimum``. Each owns an equal share of the axis.
    """

    type: Literal["ratio"]
    of: str
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    minimum: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> RatioParameter:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is greater than high {self.high}")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        return (self.of,)

    @property
    def searched(self) -> bool:
        return self.low < self.high

    @property
    def numeric(self) -> bool:
        return True

    @property
    def span(self) -> float:
        return self.high - self.low

    def size(self) -> int | None:
        return None if self.searched else 1

    def count(self, points: int | None, given: Values) -> int:
        low, high = self.ends(given)
        return high - low + 1

    def ends(self, given: Values) -> tuple[int, int]:
        """The least and the greatest value beside the given target."""
        target = given[self.of]
        ends = (max(_rounded(share * target), self.minimum) for share in (self.low, self.high))
        low, high = sorted(ends)
        return low, high

    def decode(self, unit: float, given: Values) -> Json:
        return self.ends(given)[0] + bin_of(unit, self.count(None, given))

    def encode(self, value: Json, given: Values) -> float:
        low, high = self.ends(given)
        return (int(value) - low + 0.5) / (high - low + 1)

    def canonical(self, value: Json, given: Values) -> Json:
        low, high = self.ends(given)
        try:
            return low + stepped_index(value, low, high)
        except ValueError as error:
            shares = f"{self.low} to {self.high} of {self.of} {spelled(given[self.of])}"
            raise ValueError(f"{error} ({shares})") from None

    def grid(self, points: int | None, given: Values) -> Sequence[Json]:
        low, high = self.ends(given)
        return range(low, high + 1)


class ShareParameter(DerivedParameter):
    """``{type: share, of: default_p_rate, total: 4}``: what the target leaves of a total.

    Without a total the two sum up to the low plus the high of the target, as mirrored ranges do;
    the space fills that in as it reads the experiment.
    """

    type: Literal["share"]
    of: str
    total: int | float | None = None

    @property
    def references(self) -> tuple[str, ...]:
        return (self.of,)

    def value(self, given: Values) -> Json:
        assert self.total is not None
        return _short(self.total - given[self.of])

    def formula(self, given: Values) -> str:
        return f"{self.total} - {self.of} {spelled(given[self.of])}"


class _ProductParameter(DerivedParameter):
    """Base of products with, and quotients by, one or two targets."""

    product: int | float
    dtype: Literal["int", "float"] = "int"

    def _of_targets(self, given: Values) -> Any:
        return math.prod(given[name] for name in self.references)

    def _spelled_targets(self, given: Values) -> str:
        targets = [f"{name} {spelled(given[name])}" for name in self.references]
        return targets[0] if len(targets) == 1 else f"({' * '.join(targets)})"


class _Multiple(_ProductParameter):
    def value(self, given: Values) -> Json:
        exact = self.product * self._of_targets(given)
        return _rounded(exact) if self.dtype == "int" else float(_short(exact))

    def formula(self, given: Values) -> str:
        return f"{self.product} * {self._spelled_targets(given)}"


class TimesParameter(_Multiple):
    """``{type: times, of: tp, product: 2}``: the target times a number, rounded to a whole number
    unless ``dtype: float`` is given."""

    type: Literal["times"]
    of: str

    @property
    def references(self) -> tuple[str, ...]:
        return (self.of,)


class TernaryTimesParameter(_Multiple):
    """``{type: ternary_times, of: [a, b], product: 1}``: the product of two targets and a number,
    else as ``times``."""

    type: Literal["ternary_times"]
    of: Pair

    @property
    def references(self) -> tuple[str, ...]:
        return self.of


class QuotientParameter(_ProductParameter):
    """Base of quotients.

    With ``dtype: int`` the targets must divide ``product`` exactly, into a quotient from ``low``
    (default 1) to ``high``. The space moves targets that do not to the nearest values that do.
    Where no values of the targets do, the experiment is refused, or, with ``clamp: true``, the
    quotient is rounded down and brought into the range. ``dtype: float`` has no such demands.
    """

    low: int | None = None
    high: int | None = None
    clamp: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> QuotientParameter:
        if self.dtype == "float":
            if self.low is not None or self.high is not None or self.clamp:
                raise ValueError("low, high and clamp are for dtype int")
            if self.product == 0:
                raise ValueError("a quotient of 0 is always 0; use a constant")
            return self
        if not isinstance(self.product, int) or not 1 <= self.product <= _LARGEST_PRODUCT:
            raise ValueError(
                f"product must be a whole number from 1 to {_LARGEST_PRODUCT}, not {self.product}; "
                "other numbers need dtype float"
            )
        if self.high is not None and self.high < self.least:
            raise ValueError(f"low {self.least} is greater than high {self.high}")
        return self

    @property
    def exact(self) -> bool:
        """Whether some targets have no legal quotient."""
        return self.dtype == "int"

    @property
    def kept_first(self) -> tuple[str, ...] | None:
        """The targets in the order in which they are kept when some must be moved; None: the one
        that stands higher on its axis is kept."""
        return self.references

    @property
    def least(self) -> int:
        return 1 if self.low is None else self.low

    def value(self, given: Values) -> Json:
        divisor = self._of_targets(given)
        if divisor == 0:
            raise UnsuitableError(f"{self._spelled_targets(given)} divides nothing")
        if not self.exact:
            return float(_short(self.product / divisor))
        quotient, rest = divmod(self.product, divisor)
        if rest:
            told = f"{self.product} is not divisible by {self._spelled_targets(given)}"
            raise UnsuitableError(told)
        if self._in_range(quotient) != quotient:
            found = f"{self.formula(given)} is {quotient}"
            raise UnsuitableError(f"{found}, beyond low {self.least} or high {self.high}")
        return int(quotient)

    def clamped(self, given: Values) -> int:
        """The value where no legal one exists."""
        divisor = self._of_targets(given)
        return self._in_range(int(self.product // divisor) if divisor else self.least)

    def formula(self, given: Values) -> str:
        return f"{self.product} / {self._spelled_targets(given)}"

    def _in_range(self, quotient: int) -> int:
        low = max(quotient, self.least)
        return low if self.high is None else min(low, self.high)


class FactoriesParameter(QuotientParameter):
    """``{type: factories, of: tp, product: 16}``: what the target divides the product into."""

    type: Literal["factories"]
    of: str

    @property
    def references(self) -> tuple[str, ...]:
        return (self.of,)


class TernaryFactoriesParameter(QuotientParameter):
    """``{type: ternary_factories, of: [tp, pp], product: 16, low: 1, high: 16}``: what two targets
    together divide the product into.

    When they do not, the target of the higher priority is kept if any value of the other suits,
    the nearest one; else both are moved, as little as possible. ``priority: [pp, tp]`` names the
    targets in their order; with ``balanced``, the target that stands higher on its axis is kept,
    which is each of them equally often.
    """

    type: Literal["ternary_factories"]
    of: Pair
    priority: Literal["balanced"] | Pair = "balanced"

    @model_validator(mode="after")
    def _complete(self) -> TernaryFactoriesParameter:
        if self.priority != "balanced" and sorted(self.priority) != sorted(self.of):
            named = f"{self.of[0]} and {self.of[1]}"
            raise ValueError(f"priority must be balanced, or {named} in their order")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        return self.of

    @property
    def kept_first(self) -> tuple[str, ...] | None:
        return None if self.priority == "balanced" else self.priority


def _rounded(number: float) -> int:
    return math.floor(number + 0.5 + _FUZZ)


def _short(number: int | float) -> int | float:
    """A number without the noise of binary fractions."""
    return number if isinstance(number, int) else float(f"{number:.{_DIGITS}g}") + 0.0
