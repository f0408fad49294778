"""Demands, as an evaluation understands them: when is the rest of a candidate not worth it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from trainables._trial import Json
from trainables.evaluation import EvaluationResult, StopRule


def stop_rules(
    demands: Sequence[Mapping[str, Json]], datasets: Iterable[str]
) -> tuple[StopRule, ...]:
    """The demands (``{metric, limit, direction}``) that are about a metric of a dataset."""
    names = tuple(datasets)
    return tuple(
        StopRule(
            dataset=name,
            metric=demand["metric"].removeprefix(f"{name}/"),
            limit=demand["limit"],
            direction=demand["direction"],
        )
        for demand in demands
        for name in names
        if demand["metric"].startswith(f"{name}/")
    )


def broken_rule(rules: Sequence[StopRule], evaluated: EvaluationResult) -> dict[str, Json] | None:
    """The demand that ended an evaluation before its last dataset, if one did."""
    if not evaluated.skipped:
        return None
    for rule in rules:
        key = f"{rule.dataset}/{rule.metric}"
        value = evaluated.metrics.get(key)
        if value is not None and rule.broken_by(value):
            return {"metric": key, "limit": rule.limit, "value": value}
    return None
