"""The Pareto front of what was measured and satisfies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainables import Measurement
from tuner._judge import BaselineMissing, judge
from tuner.experiment import Objective


def pareto_front(
    measurements: Iterable[Measurement],
    objective: Objective,
    baseline: Mapping[str, float] | None,
) -> list[Measurement]:
    """Those that nothing satisfying beats in one objective without being worse in another.

    Sorted by the first objective, the best first. Empty where there is only one objective, for
    then the front is a point. Trials that ended early are no part of it.
    """
    signs = objective.goal().objectives
    if len(signs) < 2:
        return []
    points: list[tuple[tuple[float, ...], Measurement]] = []
    for item in measurements:
        if "stopped" in item.data:
            continue
        try:
            satisfied = judge(objective, item.metrics, baseline).satisfied
        except BaselineMissing:
            continue
        if satisfied:
            points.append((tuple(sign * item.metrics[name] for name, sign in signs), item))
    kept = [
        (values, item)
        for values, item in points
        if not any(_dominates(other, values) for other, _ in points)
    ]
    return [item for _, item in sorted(kept, key=lambda point: point[0], reverse=True)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
