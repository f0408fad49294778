"""From what has been measured to the next point: the part of ``auto`` that needs numpy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from searchers import _auto_lore as lore
from searchers._auto_acquisition import Objective, Target, best_of, success
from searchers._auto_belief import Belief, Simulated, promising
from searchers._auto_features import Array, Encoded, Features
from searchers._auto_model import Metric, Model, Posterior
from searchers._auto_points import everything, sample, scattered
from searchers._contract import Goal, Json
from searchers._space import Space

_OBJECTIVE = ""
"""The name under which an outcome's objective is modelled when the goal names no metric."""

_FAILURE_WEIGHT = 0.8
"""How much a failed trial speaks against its surroundings; it may have been the machine."""

_STOPPED_DOUBT = 0.3
"""Noise of a row that was stopped early or lacks a metric, as a logarithm."""

_NARROWEST = 0.05
"""The least span of an objective that is weighed against others, as a logarithm."""

_AROUND = 4
"""Of the best measured, and of the best simulated points, so many have their neighbours looked
at."""

_DOOMED = 0.9
_OWN = 2.0
"""How sure a simulator is of what would not start, and how many trials of such points that is
worth."""


class Advisor:
    """Chooses among the unseen points of one space.

    Args:
        believed: What a simulator says of some of them.
    """

    def __init__(self, space: Space, *, hints: bool, believed: Simulated = ()) -> None:
        self._space = space
        self._hints = hints
        self._believed = believed
        self._belief: tuple[object, Belief | None, Encoded | None] = (None, None, None)
        self._all = everything(space)
        self._features = Features(sample(space, self._all), hints=hints)
        self._encoded = None if self._all is None else self._features.encode(self._all)

    def advise(
        self,
        goal: Goal,
        history: Sequence[Mapping[str, Json]],
        flying: Sequence[Mapping[str, Json]],
        taken: Callable[[Mapping[str, Json]], bool],
        *,
        label: str,
    ) -> tuple[Mapping[str, Json], str] | None:
        """The point to measure next and why; None when every point is taken."""
        problem = _Problem(goal, history, self._believed, hints=self._hints)
        points, encoded = self._unseen(problem, history, taken, label)
        if not points:
            return None
        generator = random.Random(label)
        if self._features.dimensions == 0:
            return points[0], "the only point"
        if not problem.metrics:
            return generator.choice(points), "nothing is known yet of what to maximise"
        tried, after = self._after(problem, history)
        flown = self._encode(problem, flying) if flying else encoded.take([])
        target = problem.target(history, random.Random(f"weights/{label}"))
        against = np.array([problem.against(row) for row in history])
        ok = [
            success(some, tried, against) * self._starts(problem, where, history)
            for some, where in ((encoded, points), (flown, flying))
        ]
        near = np.zeros(len(points), dtype=bool)
        if (leader := problem.leader(history)) is not None:
            near = encoded.near(tried, leader)
        best, gain, likely = best_of(after, target, encoded, flown, np.concatenate(ok), near)
        why = f"expected gain {100 * gain:.3g} %, probability to satisfy {likely:.2f}"
        return points[best], why + self._simulated(problem, encoded, best, after)

    def trust(self, goal: Goal, history: Sequence[Mapping[str, Json]]) -> float | None:
        """The weight of what is believed after all that is measured; None: nothing is."""
        problem = _Problem(goal, history, self._believed, hints=self._hints)
        if self._spread(problem)[0] is None:
            return None
        return float(self._after(problem, history)[1].scales.weight.mean())

    def _after(
        self, problem: _Problem, history: Sequence[Mapping[str, Json]]
    ) -> tuple[Encoded, Posterior]:
        """What is measured, and what is expected everywhere after it."""
        points = [row["parameters"] for row in history]
        tried = self._encode(problem, points, [row["elsewhere"] for row in history])
        belief, _ = self._spread(problem)
        model = Model(self._features, problem.metrics, None if belief is None else belief.level)
        rows, values, doubt = problem.data(history)
        if not rows:
            return tried, model.prior()
        return tried, model.posterior(tried.take(rows), values, doubt)

    def _spread(self, problem: _Problem) -> tuple[Belief | None, Encoded | None]:
        """What is believed, and all points of a space that is looked at as a whole with it.

        It only depends on the scales of the metrics, so it is kept until those change.
        """
        key = (problem.metrics, problem.scales)
        if self._believed and problem.metrics and self._features.dimensions:
            if self._belief[0] != key:
                rows = problem.believed(self._believed)
                belief = Belief.of(self._believed, rows, problem.metrics, self._features)
                everywhere = None
                if belief is not None and self._all is not None and self._encoded is not None:
                    everywhere = belief.spread_over(self._all, self._encoded)
                self._belief = (key, belief, everywhere)
            if self._belief[1] is not None:
                return self._belief[1:]
        return None, self._encoded

    def _encode(
        self,
        problem: _Problem,
        points: Sequence[Mapping[str, Json]],
        elsewhere: Sequence[bool] | None = None,
    ) -> Encoded:
        encoded = self._features.encode(points, elsewhere)
        belief, _ = self._spread(problem)
        return encoded if belief is None else belief.spread_over(points, encoded)

    def _starts(
        self,
        problem: _Problem,
        points: Sequence[Mapping[str, Json]],
        history: Sequence[Mapping[str, Json]],
    ) -> Array:
        """The probability that the simulator does not rightly expect a point to fail."""
        belief, _ = self._spread(problem)
        if belief is None:
            return np.ones(len(points))
        tried = [row for row in history if belief.dooms(row["parameters"])]
        failed = sum(row["failed"] or row["stopped"] for row in tried)
        sure = _DOOMED * (_OWN + failed) / (_OWN + len(tried))
        doomed = np.array([belief.dooms(point) for point in points], dtype=np.float64)
        return np.asarray(1 - sure * doomed)

    def _simulated(self, problem: _Problem, encoded: Encoded, row: int, after: Posterior) -> str:
        """What the simulator says of a point, for people."""
        belief, _ = self._spread(problem)
        if belief is None or encoded.believed is None:
            return ""
        said = problem.shown(belief.level + encoded.believed[row])
        return f"; simulated {said}, weight {float(after.scales.weight.mean()):.2f}"

    def _unseen(
        self,
        problem: _Problem,
        history: Sequence[Mapping[str, Json]],
        taken: Callable[[Mapping[str, Json]], bool],
        label: str,
    ) -> tuple[list[Mapping[str, Json]], Encoded]:
        """Points to choose from, in random order: the first of equals is chosen."""
        if self._all is not None:
            _, encoded = self._spread(problem)
            assert encoded is not None
            rows = [row for row, point in enumerate(self._all) if not taken(point)]
            random.Random(f"order/{label}").shuffle(rows)
            return [self._all[row] for row in rows], encoded.take(rows)
        good = [row for row in history if row["satisfied"] is not False and not row["failed"]]
        good.sort(key=lambda row: -math.inf if row["objective"] is None else row["objective"])
        simulated = promising(self._believed, problem.goal)
        around = [row["parameters"] for row in good[-_AROUND:]] + simulated[:_AROUND]
        drawn = [*scattered(self._space, random.Random(f"points/{label}"), around), *simulated]
        unseen = {repr(point): point for point in drawn if not taken(point)}
        points: list[Mapping[str, Json]] = list(unseen.values())
        return points, self._encode(problem, points)


class _Problem:
    """The goal, as columns of the model."""

    def __init__(
        self,
        goal: Goal,
        history: Sequence[Mapping[str, Json]],
        believed: Simulated = (),
        *,
        hints: bool,
    ) -> None:
        self.goal = goal
        self._signs = dict(goal.objectives)
        if not self._signs and any(row["objective"] is not None for row in history):
            self._signs = {_OBJECTIVE: 1}
        names: dict[str, bool] = {}
        for name, sign in self._signs.items():
            names[name] = sign > 0
        limits: list[tuple[str, int, float]] = []
        for bound in goal.bounds:
            kind = lore.kind(bound.metric, large_is_good=False)
            modelled = bound.max is not None or kind in ("throughput", "speed")
            if not modelled and bound.metric not in names:
                continue
            names.setdefault(bound.metric, bound.max is None)
            if bound.max is not None:
                limits.append((bound.metric, 1, bound.max))
            if bound.min is not None:
                limits.append((bound.metric, -1, bound.min))
        self._columns = list(names)
        self._scales = {
            name: _Scale.of(
                [v for row in history for v in [self._value(row, name)] if v is not None]
                + [metrics[name] for _, metrics in believed if name in metrics]
                + [limit for of, _, limit in limits if of == name]
            )
            for name in names
        }
        self._limits = limits
        self.scales = tuple(self._scales.values())
        self.metrics = tuple(self._metric(name, large, hints) for name, large in names.items())

    def believed(self, points: Simulated) -> Array:
        """What is said of each point, (points, metrics); NaN where nothing is."""
        rows = [
            [self._scales[n](said[n]) if n in said else math.nan for n in self._columns]
            for _, said in points
        ]
        return np.array(rows).reshape(len(points), len(self._columns))

    def shown(self, values: Array) -> str:
        """Modelled metrics of one point, for people: the first objective, else the first bound."""
        name = self._columns[0]
        return f"{name} {self._scales[name].back(float(values[0])):.4g}"

    def against(self, row: Mapping[str, Json]) -> float:
        """How much an outcome speaks against its surroundings beyond what the model sees."""
        if row["failed"]:
            return _FAILURE_WEIGHT
        if row["satisfied"] is not False:
            return 0.0
        broken = any(
            (value := self._value(row, name)) is not None and side * value > side * limit
            for name, side, limit in self._limits
        )
        return 0.0 if broken else 1.0

    def data(self, history: Sequence[Mapping[str, Json]]) -> tuple[list[int], Array, Array]:
        """Rows of ``history`` with a modelled metric, their values and their extra noise."""
        rows, values, doubt = [], [], []
        for number, row in enumerate(history):
            raw = [self._value(row, name) for name in self._columns]
            scaled = [
                math.nan if value is None else self._scales[name](value)
                for name, value in zip(self._columns, raw, strict=True)
            ]
            missing = sum(math.isnan(value) for value in scaled)
            if row["failed"] or missing == len(scaled):
                continue
            rows.append(number)
            values.append(scaled)
            doubt.append(_STOPPED_DOUBT if missing or row["stopped"] else 0.0)
        return rows, np.array(values).reshape(len(rows), len(self._columns)), np.array(doubt)

    def target(self, history: Sequence[Mapping[str, Json]], generator: random.Random) -> Target:
        """What is wanted; several objectives are weighed anew each time, toward all of a front."""
        good = [row for row in history if not row["failed"] and row["satisfied"] is not False]
        _, values, _ = self.data(good)
        values = values[~np.isnan(values).any(axis=1)]
        several = len(self._signs) > 1 and len(values) > 0
        objectives = []
        for name, sign in self._signs.items():
            objective = Objective(self._columns.index(name), sign)
            if several:
                reached = sign * values[:, objective.column]
                span = max(float(np.ptp(reached)), _NARROWEST)
                share = generator.expovariate(1.0)
                objective = objective._replace(share=share, top=float(reached.max()), span=span)
            objectives.append(objective)
        limits = [
            (self._columns.index(name), side, self._scales[name](limit))
            for name, side, limit in self._limits
        ]
        target = Target(objectives, limits, None)
        return replace(target, best=float(target.value(values).max())) if len(values) else target

    def leader(self, history: Sequence[Mapping[str, Json]]) -> int | None:
        """The row of ``history`` that satisfies with the highest objective; None: nothing does."""
        good = [
            number
            for number, row in enumerate(history)
            if not row["failed"] and row["satisfied"] is not False and row["objective"] is not None
        ]
        return max(good, key=lambda number: float(history[number]["objective"]), default=None)

    def _value(self, row: Mapping[str, Json], name: str) -> float | None:
        value = row["objective"] if name == _OBJECTIVE else row["metrics"].get(name)
        return None if value is None else float(value)

    def _metric(self, name: str, large: bool, hints: bool) -> Metric:
        scale = self._scales[name]
        told = hints and scale.log and name != _OBJECTIVE
        kind = lore.kind(name, large_is_good=large) if told else ""
        limit = next((limit for of, _, limit in self._limits if of == name), None)
        rising = scale.log and self._signs.get(name, 0) > 0
        return Metric(name, kind, None if limit is None else scale(limit), rising)


@dataclass(frozen=True)
class _Scale:
    """Logarithm where all values are positive, else units of their typical size."""

    log: bool
    unit: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Scale:
        if all(value > 0 for value in values):
            return cls(True, 1.0)
        return cls(False, max(float(np.std(values)), 1e-12))

    def __call__(self, value: float) -> float:
        return math.log(value) if self.log else value / self.unit

    def back(self, scaled: float) -> float:
        return math.exp(scaled) if self.log else scaled * self.unit
