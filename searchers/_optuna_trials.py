"""What an Optuna sampler is told: our points in its terms, each with what became of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from searchers._contract import Goal, Json, Outcome
from searchers._merit import Merit, excesses, merit, objective_values

Sampler: TypeAlias = Literal["tpe", "gp", "cma_es", "nsga2", "random"]


@dataclass(frozen=True)
class Trial:
    """A point and what is known about it.

    Attributes:
        point: The parameters, written as JSON.
        vector: The point of the unit cube.
        status: ``running``, ``measured`` or ``failed``.
        values: The value of each objective, to be maximised; None where there are none.
        excesses: By how much each bound is exceeded, None where it was not measured.
        merit: The rank of a measured point.
        notes: What the sampler wants to be reminded of.
        known: Whether this is a measurement of an earlier run.
    """

    point: str
    vector: list[float]
    status: Literal["running", "measured", "failed"] = "running"
    values: list[float] | None = None
    excesses: list[float | None] = field(default_factory=list)
    merit: Merit | None = None
    notes: Mapping[str, Json] = field(default_factory=dict)
    known: bool = False

    def after(self, outcome: Outcome, goal: Goal) -> Trial:
        """The same trial, measured or failed."""
        if outcome.status != "measured":
            return replace(self, status="failed")
        values = objective_values(outcome, goal)
        return replace(
            self,
            status="measured",
            values=None if values is None else list(values),
            excesses=excesses(outcome, goal),
            merit=merit(outcome, goal),
        )

    def to_json(self) -> dict[str, Json]:
        rank = None if self.merit is None else self.merit.to_json()
        return {**vars(self), "merit": rank, "notes": dict(self.notes)}

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Trial:
        rank = document["merit"]
        return cls(**{**document, "merit": None if rank is None else Merit.from_json(rank)})


def filled_values(trials: Sequence[Trial], objectives: int) -> list[list[float]]:
    """The objectives of each trial; one that has none, such as a candidate rejected early, counts
    as the worst that was measured."""
    known = [trial.values for trial in trials if trial.values is not None]
    worst = [min(column) for column in zip(*known, strict=True)] or [0.0] * objectives
    return [trial.values or worst for trial in trials]


def constraints(trials: Sequence[Trial]) -> list[list[float]]:
    """For each measured trial how far it is beyond each bound, at most 0 where it is kept.

    Excesses are compressed by a logarithm, so that one hopeless point does not flatten the rest.
    An excess that was not measured counts as the worst there is when the point does not satisfy.
    A last column, present when it is needed, stands for demands that no bound explains.
    """
    columns = list(zip(*(trial.excesses for trial in trials), strict=True))
    worst = [max((e for e in column if e is not None and e > 0), default=1.0) for column in columns]
    rows = []
    for trial in trials:
        unknown = worst if _violates(trial) else [0.0] * len(worst)
        pairs = zip(trial.excesses, unknown, strict=True)
        rows.append([_compressed(other if e is None else e) for e, other in pairs])
    unexplained = [
        _violates(trial) and not any(excess > 0 for excess in row)
        for trial, row in zip(trials, rows, strict=True)
    ]
    if any(unexplained):
        return [[*row, float(flag)] for row, flag in zip(rows, unexplained, strict=True)]
    return rows


def _violates(trial: Trial) -> bool:
    return trial.merit is not None and not trial.merit.satisfying


def _compressed(excess: float) -> float:
    return math.log1p(excess) if excess > 0 else max(excess, -1.0)
