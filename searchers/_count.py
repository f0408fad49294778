"""How many legal points a space has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from searchers._contract import Json
from searchers._derived import RatioParameter
from searchers._parameters import Values
from searchers._repair import Parameters, references

_MOST_COMBINATIONS = 100_000
"""Combinations of targets that are gone through to count what depends on them."""

ValuesOf: TypeAlias = Callable[[str, int | None, Values], Sequence[Json]]
"""All values of a parameter beside given ones: (name, points of a continuous one, given)."""


def count(parameters: Parameters, values_of: ValuesOf, points: int | None) -> int | None:
    """The number of points, with ``points`` values of each continuous parameter; None if it is
    endless or takes too long to tell.

    Parameters that have nothing to do with each other multiply; of those that have, only the
    targets are gone through one by one.
    """
    total = 1
    for family in _families(parameters):
        found = _count_family({name: parameters[name] for name in family}, values_of, points)
        if found is None:
            return None
        total *= found
    return total


def _families(parameters: Parameters) -> list[list[str]]:
    """The parameters in groups that do not refer to each other."""
    families: dict[str, set[str]] = {}
    for name, parameter in parameters.items():
        family = {name}.union(*(families[target] for target in references(parameter)))
        families |= dict.fromkeys(family, family)
    distinct = {min(family): family for family in families.values()}
    return [[name for name in parameters if name in family] for family in distinct.values()]


def _count_family(family: Parameters, values_of: ValuesOf, points: int | None) -> int | None:
    targets = {target for parameter in family.values() for target in references(parameter)}
    combinations = 1
    for name, parameter in family.items():
        size = parameter.size() or points
        if size is None and (name in targets or not isinstance(parameter, RatioParameter)):
            return None
        combinations *= (size or 1) if name in targets else 1
    if combinations > _MOST_COMBINATIONS:
        return None

    names = list(family)

    def below(index: int, given: Mapping[str, Json]) -> int:
        if index == len(names):
            return 1
        name = names[index]
        parameter = family[name]
        if name not in targets and not references(parameter):
            return (parameter.size() or points or 0) * below(index + 1, given)
        values = values_of(name, points, given)
        if name in targets:
            return sum(below(index + 1, {**given, name: value}) for value in values)
        return len(values) * below(index + 1, given) if values else 0

    return below(0, {})
