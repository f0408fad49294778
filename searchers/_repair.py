"""What derived parameters demand of a space, and how a point is moved to meet it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import TypeAlias

from searchers._contract import Json
from searchers._derived import (
    DerivedParameter,
    QuotientParameter,
    RatioParameter,
    ShareParameter,
)
from searchers._numbers import FloatParameter, IntParameter, RangeParameter
from searchers._parameters import BaseParameter, ConstantParameter, EnumParameter

Parameters: TypeAlias = Mapping[str, BaseParameter]
Complaint: TypeAlias = tuple[str, str]
"""The name of a parameter, and what is wrong with its targets."""

_MOST_CHOICES = 256
"""Values of a parameter that are tried when a target derived from it does not suit."""


def references(parameter: BaseParameter) -> tuple[str, ...]:
    """The parameters that this one is derived from."""
    if isinstance(parameter, DerivedParameter | RatioParameter):
        return parameter.references
    return ()


def unknown_targets(parameters: Parameters) -> Iterator[Complaint]:
    """Targets that are no numbers or not declared before; so there are no cycles."""
    before: list[str] = []
    for name, parameter in parameters.items():
        for target in references(parameter):
            if target not in parameters:
                yield name, f"no parameter is named {target!r}"
            elif target not in before:
                yield name, f"{target!r} is not declared before {name!r}; put it first"
            elif not parameters[target].numeric:
                yield name, f"{target!r} has values that are not numbers"
        before.append(name)


def unsuitable_targets(parameters: Parameters) -> Iterator[Complaint]:
    """Targets that can never, or not always, be worked with. All targets must be known."""
    for name, parameter in parameters.items():
        if isinstance(parameter, ShareParameter):
            if parameter.total is None and total_of(parameters[parameter.of]) is None:
                yield name, f"{parameter.of!r} has no low and high: give a total"
        elif isinstance(parameter, QuotientParameter):
            for target in parameter.references:
                if parameter.exact:
                    yield from ((name, told) for told in _undividing(parameters, target))
                elif _may_be_zero(parameters, target):
                    yield name, f"{target!r} can be 0, which divides nothing"


def _undividing(parameters: Parameters, target: str) -> Iterator[str]:
    if not _is_whole(parameters, target):
        yield f"{target!r} is not made of whole numbers that could be chosen to divide"
        return
    for root in roots(parameters, target):
        if root != target and (parameters[root].size() or math.inf) > _MOST_CHOICES:
            yield f"{root!r} behind {target!r} has more than {_MOST_CHOICES} values"


def total_of(parameter: BaseParameter) -> int | float | None:
    """The low and the high of a parameter together; None if it has none."""
    if isinstance(parameter, RangeParameter):
        return parameter.low + parameter.last
    if isinstance(parameter, IntParameter | FloatParameter):
        return parameter.low + parameter.high
    return None


def _is_whole(parameters: Parameters, name: str) -> bool:
    parameter = parameters[name]
    if isinstance(parameter, IntParameter | RangeParameter):
        return True
    if isinstance(parameter, EnumParameter):
        return all(isinstance(value, int) for value in parameter.values)
    if isinstance(parameter, ConstantParameter):
        return isinstance(parameter.value, int)
    if isinstance(parameter, ShareParameter):
        total = parameter.total or total_of(parameters[parameter.of])
        return isinstance(total, int) and _is_whole(parameters, parameter.of)
    if getattr(parameter, "dtype", None) != "int":
        return False
    return all(_is_whole(parameters, target) for target in references(parameter))


def _may_be_zero(parameters: Parameters, name: str) -> bool:
    parameter = parameters[name]
    if isinstance(parameter, IntParameter | RangeParameter | FloatParameter):
        return parameter.low <= 0 <= parameter.high
    if isinstance(parameter, EnumParameter | ConstantParameter):
        return 0 in parameter.grid(None, {})
    if isinstance(parameter, RatioParameter):
        return parameter.minimum <= 0
    if isinstance(parameter, QuotientParameter):
        return parameter.exact and parameter.least <= 0
    return True


def exact_quotients(parameters: Parameters) -> list[str]:
    """The parameters that have no value for some of their targets, in order."""
    return [
        name
        for name, parameter in parameters.items()
        if isinstance(parameter, QuotientParameter) and parameter.exact
    ]


def roots(parameters: Parameters, name: str) -> list[str]:
    """The searched parameters that decide the value of this one."""
    parameter = parameters[name]
    if not isinstance(parameter, DerivedParameter):
        return [name] if parameter.searched else []
    found = [root for target in parameter.references for root in roots(parameters, target)]
    return list(dict.fromkeys(found))


def connected(parameters: Parameters, name: str) -> list[str]:
    """The exact quotients up to ``name`` that it cannot be told apart from: moving the roots of
    one may spoil the other."""
    quotients = exact_quotients(parameters)
    quotients = quotients[: quotients.index(name) + 1]
    found, known = {name}, set(roots(parameters, name))
    for _ in quotients:
        touched = {other for other in quotients if known & set(roots(parameters, other))}
        found |= touched
        known |= {root for other in touched for root in roots(parameters, other)}
    return [other for other in quotients if other in found]


def choices(parameters: Parameters, quotients: Sequence[str]) -> dict[str, list[Json]]:
    """The values that each root of these exact quotients may be moved to."""
    found: dict[str, list[Json]] = {}
    for name in quotients:
        for target in references(parameters[name]):
            for root in roots(parameters, target):
                suiting = _suiting(parameters, name, root, direct=root == target)
                found[root] = [value for value in found.get(root, suiting) if value in suiting]
    return found


def _suiting(parameters: Parameters, name: str, root: str, *, direct: bool) -> list[Json]:
    parameter, quotient = parameters[root], parameters[name]
    if not direct or not isinstance(quotient, QuotientParameter):
        return list(parameter.grid(None, {}))
    return [value for value in _divisors(int(quotient.product)) if _is_legal(parameter, value)]


def _is_legal(parameter: BaseParameter, value: Json) -> bool:
    try:
        parameter.canonical(value, {})
    except ValueError:
        return False
    return True


def nearest(
    choices: Mapping[str, Sequence[Json]],
    order: Sequence[str],
    current: Mapping[str, Json],
    legal: Callable[[Mapping[str, Json]], bool],
) -> dict[str, Json] | None:
    """The values of the roots to move to; None if no combination is legal.

    As many roots as possible keep their current value, those first in ``order`` before others; the
    rest move by the least sum of distances.
    """
    for kept in reversed(range(len(order))):
        moved = order[kept:]
        ways = product(*(choices[root] for root in moved))
        near = sorted(
            ways,
            key=lambda way: sum(
                abs(value - current[root]) for root, value in zip(moved, way, strict=True)
            ),
        )
        for way in near:
            pins = {root: current[root] for root in order[:kept]}
            pins |= dict(zip(moved, way, strict=True))
            if legal(pins):
                return pins
    return None


@lru_cache(maxsize=64)
def _divisors(number: int) -> tuple[int, ...]:
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return tuple(sorted({*small, *(number // divisor for divisor in small)}))
