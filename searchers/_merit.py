"""How good a measured point is, for strategies that use more than the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from searchers._contract import Goal, Json, Outcome

P = TypeVar("P")


class Merit(NamedTuple):
    """Deb's rules as an order; the greater is the better.

    A point that satisfies beats one that does not. Of two that satisfy, the higher objective wins;
    of two that do not, the one that is less beyond its bounds.

    Attributes:
        satisfying: Whether the demand or SLO is held, or there is none.
        closeness: 0 for a satisfying point, else minus the sum of its excesses; minus infinity
            when it does not satisfy and nobody measured by how much.
        objective: The value to maximise; minus infinity where there is none.
    """

    satisfying: bool
    closeness: float
    objective: float

    def to_json(self) -> list[Json]:
        return [self.satisfying, _finite(self.closeness), _finite(self.objective)]

    @classmethod
    def from_json(cls, document: list[Json]) -> Merit:
        satisfying, closeness, objective = document
        return cls(satisfying, _number(closeness), _number(objective))


def merit(outcome: Outcome, goal: Goal) -> Merit:
    """The merit of a measured outcome."""
    objective = _number(_finite(outcome.objective))
    if outcome.satisfied is not False:
        return Merit(True, 0.0, objective)
    beyond = sum(excess for excess in excesses(outcome, goal) if excess is not None and excess > 0)
    return Merit(False, -beyond or -math.inf, objective)


def excesses(outcome: Outcome, goal: Goal) -> list[float | None]:
    """By how much each bound of the goal is exceeded, None where that is unknown.

    The verdict of the outcome stands above the numbers: nothing is exceeded when it satisfies.
    """
    if outcome.satisfied:
        return [0.0] * len(goal.bounds)
    return [_finite(bound.excess(outcome.metrics)) for bound in goal.bounds]


def objective_values(outcome: Outcome, goal: Goal) -> tuple[float, ...] | None:
    """The value of each objective, all to be maximised; None unless all of them are known.

    Several objectives are the goal's metrics; a single one is what the outcome calls so.
    """
    if len(goal.objectives) > 1:
        found = [_finite(outcome.metrics.get(name)) for name, _ in goal.objectives]
        signs = [sign for _, sign in goal.objectives]
        values = [
            value * sign for value, sign in zip(found, signs, strict=True) if value is not None
        ]
        return tuple(values) if len(values) == len(found) else None
    objective = _finite(outcome.objective)
    return None if objective is None else (objective,)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether ``one`` is nowhere worse and somewhere better."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def widened(
    front: Iterable[tuple[tuple[float, ...], P]], values: tuple[float, ...], point: P
) -> list[tuple[tuple[float, ...], P]]:
    """A Pareto front after one more point; points of equal values stay side by side."""
    front = list(front)
    if any(dominates(old, values) for old, _ in front):
        return front
    return [*((old, kept) for old, kept in front if not dominates(values, old)), (values, point)]


def merits_to_json(merits: Mapping[str, Merit]) -> dict[str, Json]:
    return {key: merit.to_json() for key, merit in merits.items()}


def merits_from_json(document: Mapping[str, Json]) -> dict[str, Merit]:
    return {key: Merit.from_json(value) for key, value in document.items()}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return -math.inf if value is None else value
