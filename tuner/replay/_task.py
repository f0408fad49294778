"""A recorded table as a world: every configuration, what was measured of it, and the best one."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from searchers import Goal, Json, Outcome, Space
from tuner._judge import Judgement, judge
from tuner.experiment import Objective
from tuner.replay._objective import metrics_of
from tuner.replay._simulation import Evaluation

_JITTER = 0.1
"""Standard deviation of the logarithm of a duration that nobody recorded."""


@dataclass(frozen=True)
class Attempt:
    """One row: its metrics, or why it has none."""

    metrics: Mapping[str, float]
    duration: float | None
    error: str | None = None


@dataclass(frozen=True)
class Configuration:
    """All rows of one point.

    Attributes:
        point: The parameters in the spelling of the space.
        attempts: What an evaluation may give, at least one.
        metrics: The mean over what was measured; empty when every row failed.
        judgement: What the objective says of these; None when every row failed.
    """

    point: Mapping[str, Json]
    attempts: tuple[Attempt, ...]
    metrics: Mapping[str, float]
    judgement: Judgement | None

    @property
    def truth(self) -> float | None:
        """The objective, to be maximised, if the limits are kept."""
        judged = self.judgement
        return judged.objective if judged is not None and judged.satisfied else None


@dataclass(frozen=True)
class TableTask:
    """A table to search in; a :class:`World`.

    Attributes:
        rows: Rows that were read.
        outside: Rows left out because their parameters lie outside the space.
        snap: Whether a point that was never recorded is answered by the nearest one that was.
    """

    name: str
    source: str
    space: Space
    objective: Objective
    configurations: Mapping[str, Configuration]
    rows: int
    outside: int
    snap: bool = False
    typical: float | None = None
    _vectors: list[tuple[list[float], Configuration]] = field(default_factory=list, repr=False)

    @property
    def goal(self) -> Goal:
        return self.objective.goal()

    @property
    def best(self) -> Configuration | None:
        """The best configuration that satisfies; None when none does."""
        good = [one for one in self.configurations.values() if one.truth is not None]
        return max(good, key=lambda one: one.truth or 0.0, default=None)

    def evaluate(self, point: Mapping[str, Json], chance: random.Random) -> Evaluation | None:
        configuration = self.configurations.get(key_of(point))
        if configuration is None and self.snap:
            configuration = self._nearest(point)
        if configuration is None:
            return None
        attempt = chance.choice(configuration.attempts)
        jittered = (self.typical or 1.0) * chance.lognormvariate(0.0, _JITTER)
        duration = jittered if attempt.duration is None else attempt.duration
        return Evaluation(self._outcome(attempt), duration, configuration.truth)

    def summary(self) -> dict[str, Json]:
        best, truths = self.best, [one.truth for one in self.configurations.values()]
        good = [truth for truth in truths if truth is not None]
        size = self.space.size()
        known = len(self.configurations)
        chosen: dict[str, Json] | None = None
        if best is not None:
            chosen = {"objective": best.truth, "parameters": dict(best.point)}
            chosen["metrics"] = {name: best.metrics[name] for name in metrics_of(self.objective)}
        return {
            "task": self.name,
            "source": self.source,
            "rows": self.rows,
            "rows_outside_space": self.outside,
            "configurations": known,
            "failed": sum(one.judgement is None for one in self.configurations.values()),
            "feasible": len(good),
            "best": chosen,
            "scale": scale(good),
            "space": self.space.model_dump(mode="json"),
            "space_size": size,
            "points_without_row": None if size is None else size - known,
        }

    def near(self, enough: float) -> int:
        truths = (one.truth for one in self.configurations.values())
        return sum(truth is not None and truth >= enough for truth in truths)

    def _outcome(self, attempt: Attempt) -> Outcome:
        if attempt.error is not None:
            return Outcome("failed", error=attempt.error)
        judged = judge(self.objective, attempt.metrics, None)
        return Outcome(
            "measured",
            metrics={**attempt.metrics, **judged.derived},
            satisfied=judged.satisfied,
            objective=judged.objective,
        )

    def _nearest(self, point: Mapping[str, Json]) -> Configuration:
        if not self._vectors:
            known = self.configurations.values()
            self._vectors.extend((self.space.encode(one.point), one) for one in known)
        vector = self.space.encode(point)
        axes = [self.space.root[name] for name in self.space.dimensions]

        def distance(entry: tuple[list[float], Configuration]) -> float:
            pairs = zip(axes, entry[0], vector, strict=True)
            return sum((a - b) ** 2 if axis.ordered else float(a != b) for axis, a, b in pairs)

        return min(self._vectors, key=distance)[1]


def scale(truths: Sequence[float]) -> float:
    """What a regret of 100 % is: the size of the best value; where that is 0, the spread."""
    return (abs(max(truths)) or max(truths) - min(truths) or 1.0) if truths else 1.0


def why_infeasible(task: TableTask) -> str:
    """What a person may change when no configuration keeps all limits."""
    judged = [one.judgement for one in task.configurations.values() if one.judgement is not None]
    said = []
    for checks in zip(*(one.checks for one in judged), strict=True):
        kept = sum(check.ok for check in checks)
        values = [check.value for check in checks if check.value is not None]
        first, span = checks[0], "no values"
        if values:
            span = f"values {min(values):.4g} to {max(values):.4g}"
        sign = "<=" if first.lower_is_better else ">="
        said.append(f"{first.metric} {sign} {first.limit:g} by {kept} of {len(judged)} ({span})")
    return (
        f"no configuration of {task.name} keeps all limits; kept are {', '.join(said)}; loosen a "
        "limit, and check its unit"
    )


def key_of(point: Mapping[str, Json]) -> str:
    return json.dumps(point, sort_keys=True)
