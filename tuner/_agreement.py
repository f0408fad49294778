"""How far a simulator's numbers are from those that were measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from searchers import Goal

_FEW = 3
"""Measurements from which on their order says something."""

DROPPED = 0.2
"""A weight below which a simulator counts for nothing."""

_ADVICE = (
    "a latency model that was trained on recorded iterations of this engine predicts it better: "
    "python -m tuner train"
)


@dataclass(frozen=True)
class Agreement:
    """A simulator beside the measurements of the points that it had played.

    Attributes:
        points: How many those are.
        error: Median over points and metrics of ``|simulated / measured - 1|``; None without
            points.
        errors: The same for each metric that the goal names.
        correlation: Spearman's rank correlation of the first objective; None for fewer than three
            points, or where all are equal.
        weight: What the simulator counts for now, 0 to 1; None: the search cannot tell.
    """

    points: int
    error: float | None
    errors: Mapping[str, float]
    correlation: float | None
    weight: float | None

    @property
    def dropped(self) -> bool:
        """Whether measurements have spoken against it."""
        return self.points > 0 and self.weight is not None and self.weight < DROPPED

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": self.dropped}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Agreement:
        return cls(**{key: value for key, value in document.items() if key != "dropped"})

    def __str__(self) -> str:
        weight = "" if self.weight is None else f"; it counts for {self.weight:.2f} of 1"
        if self.error is None:
            return f"the simulator: nothing it played is measured yet{weight}"
        order = "" if self.correlation is None else f", rank correlation {self.correlation:.2f}"
        off = f"{100 * self.error:.0f} % off" if self.error < 1 else _factor(1 + self.error)
        said = f"the simulator was {off} (median of {self.points} points)"
        return f"{said}{order}{weight}" + (f"; it is left aside; {_ADVICE}" if self.dropped else "")


def _factor(times: float) -> str:
    return f"off by a factor of {times:.3g}"


def agreement(
    goal: Goal,
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    weight: float | None,
    ranked: Sequence[tuple[Mapping[str, float], Mapping[str, float]]] | None = None,
) -> Agreement:
    """``pairs``: metrics as simulated and as measured, of the same points; ``ranked``: those whose
    order means something, where not that of all does."""
    names = dict.fromkeys([name for name, _ in goal.objectives] + [b.metric for b in goal.bounds])
    errors: dict[str, list[float]] = {name: [] for name in names}
    for said, measured in pairs:
        for name in names:
            if name in said and measured.get(name):
                errors[name].append(abs(said[name] / measured[name] - 1))
    everything = [error for each in errors.values() for error in each]
    return Agreement(
        points=len(pairs),
        error=statistics.median(everything) if everything else None,
        errors={name: statistics.median(each) for name, each in errors.items() if each},
        correlation=_correlation(goal, pairs if ranked is None else ranked),
        weight=weight,
    )


def _correlation(
    goal: Goal, pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
) -> float | None:
    name, _ = next(iter(goal.objectives), ("", 0))
    both = [(a[name], b[name]) for a, b in pairs if name in a and name in b]
    if len(both) < _FEW:
        return None
    said, measured = (_ranks(values) for values in zip(*both, strict=True))
    try:
        return statistics.correlation(said, measured)
    except statistics.StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    """The place of each value; equal ones share theirs."""
    ordered = sorted(values)
    first = {value: ordered.index(value) for value in ordered}
    return [first[value] + (ordered.count(value) - 1) / 2 for value in values]
