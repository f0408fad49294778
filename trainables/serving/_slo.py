"""Limits on the metrics of a serving trial, as the driver tells them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from trainables._trial import Json


@dataclass(frozen=True)
class Limit:
    """A bound that a metric keeps where the SLO is met; at least one of the two is given."""

    metric: str
    max: float | None = None
    min: float | None = None

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def margin(limit: Limit, metrics: Mapping[str, float]) -> float | None:
    """How far a metric is beyond its limit, as the logarithm of their ratio.

    At most 0 where the limit is kept; None without a value. Where a logarithm makes no sense
    (limits or values that are not positive) the difference takes its place.
    """
    value = metrics.get(limit.metric)
    if value is None or math.isnan(value):
        return None
    margins = []
    if limit.max is not None:
        margins.append(_beyond(value, limit.max))
    if limit.min is not None:
        margins.append(_beyond(limit.min, value))
    return max(margins)


def kept(limits: Iterable[Limit], metrics: Mapping[str, float]) -> bool:
    """Whether all limits are kept; one without a value is not."""
    margins = [margin(limit, metrics) for limit in limits]
    return all(one is not None and one <= 0 for one in margins)


def _beyond(value: float, limit: float) -> float:
    if value > 0 and limit > 0:
        return math.log(value) - math.log(limit) if value != limit else 0.0
    return value - limit
