"""Whether a measurement meets the objective, and how good it is. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from trainables import figure
from tuner._fitness import fitness
from tuner.experiment import FITNESS, Expectation, Limit, Objective


@dataclass(frozen=True)
class Check:
    """One demand held against one measurement.

    Attributes:
        metric: Name of the metric.
        value: What was measured; None when the metric is missing, which never satisfies.
        limit: The worst value that still satisfies.
        lower_is_better: Whether ``value <= limit`` or ``value >= limit`` is asked.
    """

    metric: str
    value: float | None
    limit: float
    lower_is_better: bool
    ok: bool

    def __str__(self) -> str:
        value = "missing" if self.value is None else figure(self.value)
        sign = "<=" if self.lower_is_better else ">="
        return f"{self.metric} {value} (demand {sign} {figure(self.limit)})"


@dataclass(frozen=True)
class Judgement:
    """What the objective says of a measurement.

    Attributes:
        satisfied: All demands and limits are met.
        objective: The value to maximise; None where there is only a demand.
        checks: Each demand by itself.
        derived: Numbers made from the metrics that the search is after, such as the fitness.
    """

    satisfied: bool
    objective: float | None
    checks: tuple[Check, ...]
    derived: Mapping[str, float] = field(default_factory=dict)


class BaselineMissing(Exception):
    """A relative demand was judged before its baseline was measured, or lacks the metric."""


def judge(
    objective: Objective, metrics: Mapping[str, float], baseline: Mapping[str, float] | None
) -> Judgement:
    """Hold ``metrics`` against the objective.

    An expectation is met when the value is not worse than its target by more than the tolerance,
    one sided and in exact decimals, so that 81.0 against 83 with tolerance 2 satisfies.

    Raises:
        BaselineMissing: A demand is relative to a baseline that is not there.
    """
    checks = [_expectation(item, metrics, baseline) for item in objective.expectations]
    for limit in objective.limits:
        checks += _limit(limit, metrics)
    derived: dict[str, float] = {}
    if objective.fitness is not None:
        if objective.fitness.needs_baseline and baseline is None:
            raise BaselineMissing("no baseline to take the fitness' target from")
        cost = fitness(metrics, objective.fitness, baseline)
        derived = {FITNESS: cost} if math.isfinite(cost) else {}
        metrics = {**metrics, **derived}
    goal = objective.goal()
    measured = all(name in metrics for name, _ in goal.objectives)
    value = None
    if goal.objectives and (first := goal.objectives[0])[0] in metrics:
        value = first[1] * metrics[first[0]]
    return Judgement(measured and all(check.ok for check in checks), value, tuple(checks), derived)


def demands(
    objective: Objective, baseline: Mapping[str, float] | None
) -> list[dict[str, str | float]]:
    """What a trial may hold its own numbers against while it runs, in the order of the demands.

    ``{"metric", "limit", "direction"}`` each, direction ``higher`` or ``lower``. A demand that is
    relative to a baseline not measured yet is left out. A limit never refuses a value that
    :func:`judge` would accept.
    """
    found: list[dict[str, str | float]] = []
    for expectation in objective.expectations:
        try:
            limit = float(target_limit(expectation, baseline))
        except BaselineMissing:
            continue
        direction = "lower" if expectation.lower_is_better else "higher"
        found.append({"metric": expectation.key, "limit": limit, "direction": direction})
    return found


def target_limit(expectation: Expectation, baseline: Mapping[str, float] | None) -> Decimal:
    """The worst value that meets the expectation. Raises :class:`BaselineMissing`."""
    if isinstance(expectation.target, Decimal):
        target = expectation.target
    elif baseline is None or expectation.key not in baseline:
        raise BaselineMissing(f"no baseline of {expectation.key} to compare with")
    else:
        target = _exact(baseline[expectation.key])
    tolerance = expectation.tolerance
    slack = abs(target) * tolerance.amount if tolerance.relative else tolerance.amount
    return target + slack if expectation.lower_is_better else target - slack


def _expectation(
    expectation: Expectation, metrics: Mapping[str, float], baseline: Mapping[str, float] | None
) -> Check:
    limit = target_limit(expectation, baseline)
    lower = expectation.lower_is_better
    value = metrics.get(expectation.key)
    if value is None:
        return Check(expectation.key, None, float(limit), lower, ok=False)
    exact = _exact(value)
    return Check(
        expectation.key, value, float(limit), lower, exact <= limit if lower else exact >= limit
    )


def _limit(limit: Limit, metrics: Mapping[str, float]) -> list[Check]:
    value = metrics.get(limit.metric)
    checks = []
    if limit.max is not None:
        ok = value is not None and value <= limit.max
        checks.append(Check(limit.metric, value, limit.max, lower_is_better=True, ok=ok))
    if limit.min is not None:
        ok = value is not None and value >= limit.min
        checks.append(Check(limit.metric, value, limit.min, lower_is_better=False, ok=ok))
    return checks


def _exact(value: float) -> Decimal:
    """The decimal a person reads; binary 0.1 means 0.1 here."""
    return Decimal(repr(float(value)))
