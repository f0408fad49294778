"""The space of a search: ordered named parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, TypeAlias

from pydantic import ConfigDict, Field, RootModel, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from searchers._contract import Json
from searchers._count import count
from searchers._derived import (
    FactoriesParameter,
    QuotientParameter,
    RatioParameter,
    ShareParameter,
    TernaryFactoriesParameter,
    TernaryTimesParameter,
    TimesParameter,
    UnsuitableError,
)
from searchers._numbers import FloatParameter, IntParameter, RangeParameter
from searchers._parameters import BoolParameter, ConstantParameter, EnumParameter, Values
from searchers._repair import (
    Complaint,
    choices,
    connected,
    exact_quotients,
    nearest,
    references,
    roots,
    total_of,
    unknown_targets,
    unsuitable_targets,
)

Parameter: TypeAlias = Annotated[
    IntParameter
    | RangeParameter
    | FloatParameter
    | BoolParameter
    | EnumParameter
    | ConstantParameter
    | RatioParameter
    | ShareParameter
    | FactoriesParameter
    | TimesParameter
    | TernaryFactoriesParameter
    | TernaryTimesParameter,
    Field(discriminator="type"),
]
"""One parameter as the experiment file writes it, told apart by ``type``."""


class Space(RootModel[dict[str, Parameter]]):
    """Ordered named parameters, ``{name: parameter, ...}`` in the experiment file.

    A parameter may be derived from those declared before it. Every point of the unit cube decodes
    to a legal point: where a quotient has no value, its targets are moved, and the moved values
    are part of the point. So several points of the cube may decode to the same values, and
    ``encode`` gives one of them.
    """

    model_config = ConfigDict(frozen=True)
    root: dict[str, Parameter] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Space:
        problems = list(unknown_targets(self.root)) or list(unsuitable_targets(self.root))
        if problems:
            raise _refusal(problems)
        for name, parameter in self.root.items():
            if isinstance(parameter, ShareParameter) and parameter.total is None:
                total = total_of(self.root[parameter.of])
                self.root[name] = parameter.model_copy(update={"total": total})
        hopeless = [
            (name, f"no values of its targets are legal: {reason}; or say clamp: true")
            for name, reason in self._hopeless.items()
            if not self._quotient(name).clamp
        ]
        if hopeless:
            raise _refusal(hopeless)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters in order, those with a single value included."""
        return tuple(self.root)

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """The parameters that are coordinates, in order."""
        return tuple(name for name, parameter in self.root.items() if parameter.searched)

    def decode(self, vector: Sequence[float]) -> dict[str, Json]:
        """The values at a point of the unit cube, one coordinate per :attr:`dimensions`.

        Raises ``ValueError`` for a wrong number of coordinates or one outside [0, 1].
        """
        if len(vector) != len(self.dimensions):
            raise ValueError(f"{len(self.dimensions)} coordinates expected, not {len(vector)}")
        wrong = [unit for unit in vector if not 0 <= unit <= 1]
        if wrong:
            raise ValueError(f"coordinates must lie in 0..1, not {wrong[0]}")
        units = (float(unit) for unit in vector)
        return self._build(dict(zip(self.dimensions, units, strict=True)), {})

    def encode(self, values: Values) -> list[float]:
        """A point of the unit cube that decodes to ``values``. Raises like :meth:`canonical`."""
        legal = self.canonical(values)
        return [self.root[name].encode(legal[name], legal) for name in self.dimensions]

    def canonical(self, values: Values) -> dict[str, Json]:
        """``values`` in the order and spelling of the space.

        Raises ``ValueError`` that names every parameter that is missing, unknown or not legal.
        """
        problems = [f"{name}: no such parameter" for name in values if name not in self.root]
        legal: dict[str, Json] = {}
        for name, parameter in self.root.items():
            if name not in values:
                problems.append(f"{name}: is missing")
                continue
            if not all(target in legal for target in references(parameter)):
                continue
            try:
                if name in self._hopeless:
                    right = self._quotient(name).clamped(legal)
                    legal[name] = self._quotient(name).agreed(values[name], right, legal)
                else:
                    legal[name] = parameter.canonical(values[name], legal)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return legal

    def contains(self, values: Values) -> bool:
        """Whether ``values`` are legal and complete."""
        try:
            self.canonical(values)
        except ValueError:
            return False
        return True

    def size(self, points: int | None = None) -> int | None:
        """Number of legal points, with ``points`` values of each continuous parameter.

        None: endless, or too many combinations of targets to go through.
        """
        if points not in self._sizes:
            self._sizes[points] = count(self.root, self._values, points)
        return self._sizes[points]

    def grid(self, points: int | None = None) -> Iterator[dict[str, Json]]:
        """All legal points in order, the last parameter fastest.

        ``points`` is the number of values taken of each continuous parameter, its ends included.
        The first ``next`` raises ``ValueError`` when there is one and ``points`` is None.
        """
        return self._grid(points, {})

    def _grid(self, points: int | None, given: dict[str, Json]) -> Iterator[dict[str, Json]]:
        if len(given) == len(self.root):
            yield given
            return
        name = self.names[len(given)]
        try:
            values = self._values(name, points, given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        for value in values:
            yield from self._grid(points, {**given, name: value})

    def _values(self, name: str, points: int | None, given: Values) -> Sequence[Json]:
        if name in self._hopeless:
            return [self._quotient(name).clamped(given)]
        return self.root[name].grid(points, given)

    def _build(
        self,
        units: Mapping[str, float],
        pinned: Values,
        *,
        until: str | None = None,
        clamped: Mapping[str, str] | None = None,
        movable: bool = True,
    ) -> dict[str, Json]:
        """The values in order, up to ``until``: the pinned ones, and those at ``units``.

        Raises :class:`UnsuitableError` when a quotient has no value, and, if ``movable``, no other
        values of its targets would help.
        """
        clamped = self._hopeless if clamped is None else clamped
        values: dict[str, Json] = {}
        for name, parameter in self.root.items():
            try:
                if name in pinned:
                    values[name] = pinned[name]
                elif name in clamped:
                    values[name] = self._quotient(name).clamped(values)
                else:
                    values[name] = parameter.decode(units.get(name, 0.5), values)
            except UnsuitableError:
                if not movable:
                    raise
                moved = self._moved(name, values, units, pinned, clamped)
                if moved is None:
                    raise
                return self._build(units, {**pinned, **moved}, until=until, clamped=clamped)
            if name == until:
                break
        return values

    def _moved(
        self,
        name: str,
        values: Values,
        units: Mapping[str, float],
        pinned: Values,
        clamped: Mapping[str, str],
    ) -> dict[str, Json] | None:
        """Other values for the roots of a quotient, so that it and all before it have a value."""

        def legal(pins: Values) -> bool:
            both = {**pinned, **pins}
            try:
                self._build(units, both, until=name, clamped=clamped, movable=False)
            except UnsuitableError:
                return False
            return True

        own = choices(self.root, [name])
        order = self._kept_first(name, own, units)
        moved = nearest(own, order, values, legal)
        if moved is not None:
            return moved
        several = [other for other in connected(self.root, name) if other not in clamped]
        every = choices(self.root, several)
        order += [root for root in every if root not in own]
        return nearest(every, order, values, legal) if len(every) > len(own) else None

    def _kept_first(
        self, name: str, own: Mapping[str, Sequence[Json]], units: Mapping[str, float]
    ) -> list[str]:
        targets = self._quotient(name).kept_first
        if targets is None:
            return sorted(own, key=lambda root: -units.get(root, 0.5))
        found = [root for target in targets for root in roots(self.root, target)]
        return list(dict.fromkeys(found))

    @cached_property
    def _hopeless(self) -> dict[str, str]:
        """The quotients that no values of their targets suit, each with an example."""
        found: dict[str, str] = {}
        for name in exact_quotients(self.root):
            try:
                self._build({}, {}, until=name, clamped=found)
            except UnsuitableError as error:
                found[name] = str(error)
        return found

    @cached_property
    def _sizes(self) -> dict[int | None, int | None]:
        return {}

    def _quotient(self, name: str) -> QuotientParameter:
        parameter = self.root[name]
        assert isinstance(parameter, QuotientParameter)
        return parameter


def _refusal(problems: Sequence[Complaint]) -> ValidationError:
    """The error that names each parameter by its path."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("space", "{reason}", {"reason": message}),
            loc=(name, "of"),
            input=name,
        )
        for name, message in problems
    ]
    return ValidationError.from_exception_data("Space", details)
