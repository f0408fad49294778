"""What a simulator says of a space, spread from the points it played over all others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from searchers._auto_features import Array, Encoded, Features
from searchers._auto_model import Metric, Model
from searchers._contract import Goal, Json

Point = Mapping[str, Json]
Simulated = Sequence[tuple[Point, Mapping[str, float]]]
"""Points with the metrics that a simulator expects, none where it expects no start."""

_MOST = 96
"""Points from which others are interpolated; the effort grows with their cube."""


def point_key(point: Point) -> str:
    """Equal for equal points."""
    return json.dumps(point, sort_keys=True)


def promising(points: Simulated, goal: Goal) -> list[Point]:
    """Points in the order in which a simulator would try them; those that break a bound last."""

    def rank(item: tuple[Point, Mapping[str, float]]) -> tuple[bool, float]:
        metrics = item[1]
        excess = [over for bound in goal.bounds if (over := bound.excess(metrics)) is not None]
        name, sign = next(iter(goal.objectives), ("", 0))
        return max(excess, default=0.0) > 0, -sign * metrics.get(name, 0.0)

    return [point for point, _ in sorted((item for item in points if item[1]), key=rank)]


@dataclass(frozen=True)
class Belief:
    """What is believed of the modelled metrics, on their modelled scale.

    Attributes:
        level: Mean of what the simulator says of each metric, (metrics,).
        known: What it says of the points that it played, less the level, by point.
        doomed: Points with which it expects no start.
        between: Interpolates: takes ``n`` points to what is expected of them, (n, metrics).
    """

    level: Array
    known: Mapping[str, Array]
    doomed: frozenset[str]
    between: Callable[[Encoded], Array]

    @classmethod
    def of(
        cls,
        points: Simulated,
        rows: Array,
        metrics: Sequence[Metric],
        features: Features,
    ) -> Belief | None:
        """``rows`` (points, metrics): the metrics of each, scaled, NaN where there is none.

        None where nothing is said. A metric that is never said is believed to lie at its bound.
        """
        said = [int(row) for row in np.flatnonzero(~np.isnan(rows).all(axis=1))]
        if not said:
            return None
        never = np.isnan(rows).all(axis=0)
        rows = np.where(never, [metric.bound or 0.0 for metric in metrics], rows)
        level = np.nanmean(rows, axis=0)
        played = features.encode([points[row][0] for row in said])
        few = said[:_MOST]
        model = Model(features, metrics)
        fitted = model.posterior(played.take(np.arange(len(few))), rows[few], np.zeros(len(few)))

        def between(asked: Encoded) -> Array:
            mean, _, _ = fitted.moments(asked, asked.take([]))
            return np.asarray(mean.mean(axis=0) - level)

        known = {point_key(points[row][0]): rows[row] - level for row in said}
        doomed = frozenset(point_key(point) for point, metrics in points if not metrics)
        return cls(level, known, doomed, between)

    def spread_over(self, points: Sequence[Point], encoded: Encoded) -> Encoded:
        """The points, each with what is believed of it: what was said, else what lies between."""
        if not len(encoded):
            return replace(encoded, believed=np.empty((0, len(self.level))))
        believed = self.between(replace(encoded, believed=None))
        for row, point in enumerate(points):
            if (said := self.known.get(point_key(point))) is not None:
                believed[row] = np.where(np.isnan(said), believed[row], said)
        return replace(encoded, believed=believed)

    def dooms(self, point: Point) -> bool:
        """Whether no start is expected."""
        return point_key(point) in self.doomed
