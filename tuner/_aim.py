"""What an experiment asks for, in a line. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trainables import figure
from tuner._judge import BaselineMissing, target_limit
from tuner.experiment import Expectation, Objective


def aim(objective: Objective, baseline: Mapping[str, float] | None) -> str:
    """``maximize output_tokens_per_s; ttft_p90_s <= 0.1``: what ranks, then what every candidate
    has to keep, in numbers as far as the baseline is there."""
    ranking = [
        f"{'maximize' if sign > 0 else 'minimize'} {name}"
        for name, sign in objective.goal().objectives
    ]
    parts = (", ".join(ranking), ", ".join(_kept(objective, baseline)))
    return "; ".join(part for part in parts if part)


def _kept(objective: Objective, baseline: Mapping[str, float] | None) -> Iterator[str]:
    for expectation in objective.expectations:
        try:
            worst = figure(float(target_limit(expectation, baseline)))
        except BaselineMissing:
            yield f"{expectation.key} {_tolerated(expectation)}"
        else:
            yield f"{expectation.key} {'<=' if expectation.lower_is_better else '>='} {worst}"
    for limit in objective.limits:
        if limit.max is not None:
            yield f"{limit.metric} <= {figure(limit.max)}"
        if limit.min is not None:
            yield f"{limit.metric} >= {figure(limit.min)}"


def _tolerated(expectation: Expectation) -> str:
    tolerance = expectation.tolerance
    if not tolerance.amount:
        return "not worse than the baseline's"
    amount = float(tolerance.amount)
    said = f"{figure(100 * amount)} %" if tolerance.relative else figure(amount)
    return f"at most {said} worse than the baseline's"
