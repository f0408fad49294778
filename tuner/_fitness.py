"""The cost that msserviceprofiler's optimizer minimises, to the last bit. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

_SPEED, _TTFT, _TPOT, _SUCCESS = 0.4, 0.2, 0.3, 0.1
"""Weights of the four terms."""
DEFAULT_TARGET = 5000.0
"""Output tokens per second, where no baseline says better."""
_TARGET_OVER_BASELINE = 10.0

Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Metric = Annotated[str, Field(min_length=1)]


class Fitness(BaseModel):
    """``objective: {fitness: {...}}``: throughput, latencies and success rate in one number.

    Being on the wrong side of a latency costs exponentially, being on the right side still costs
    something: an SLO is a scale here, not a limit.

    Attributes:
        ttft_slo, tpot_slo: Latencies that cost 0.2 and 0.3, in seconds.
        success_rate_slo: Success rate that costs 0.1.
        ttft_penalty, tpot_penalty, success_rate_penalty: How steeply the cost grows; 0: it does
            not depend on that metric.
        generate_speed_target: Output tokens per second that cost 0.4; ``baseline``: ten times what
            the baseline reached.
        ttft_metric, tpot_metric: What is held against the SLO, such as ``ttft_p90_s``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ttft_slo: PositiveFloat = 0.5
    tpot_slo: PositiveFloat = 0.05
    success_rate_slo: PositiveFloat = 1.0
    ttft_penalty: Penalty = 3.0
    tpot_penalty: Penalty = 3.0
    success_rate_penalty: Penalty = 5.0
    generate_speed_target: Literal["baseline"] | PositiveFloat = DEFAULT_TARGET
    ttft_metric: Metric = "ttft_mean_s"
    tpot_metric: Metric = "tpot_mean_s"

    @property
    def needs_baseline(self) -> bool:
        return self.generate_speed_target == "baseline"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that it is made of."""
        return ("output_tokens_per_s", self.ttft_metric, self.tpot_metric, "success_rate")


def speed_target(options: Fitness, baseline: Mapping[str, float] | None) -> float:
    """Output tokens per second that cost 0.4.

    A baseline that is not there, or generated nothing, leaves the default of 5000.
    """
    if options.generate_speed_target != "baseline":
        return options.generate_speed_target
    speed = (baseline or {}).get("output_tokens_per_s", 0.0)
    return _TARGET_OVER_BASELINE * speed if speed > 0 else DEFAULT_TARGET


def fitness(
    metrics: Mapping[str, float], options: Fitness, baseline: Mapping[str, float] | None = None
) -> float:
    """The cost of what was measured, to be minimised.

    Infinite where nothing was generated, no request succeeded, or a term is beyond all numbers. A
    latency that is missing costs nothing.
    """
    speed, success = metrics.get("output_tokens_per_s"), metrics.get("success_rate")
    if speed is None or not speed > 0 or success is None or not success > 0:
        return math.inf
    cost = _SPEED * (speed_target(options, baseline) / speed)
    ttft, tpot = metrics.get(options.ttft_metric), metrics.get(options.tpot_metric)
    try:
        if ttft is not None:
            cost += _TTFT * math.exp(options.ttft_penalty * (ttft / options.ttft_slo - 1))
        if tpot is not None:
            cost += _TPOT * math.exp(options.tpot_penalty * (tpot / options.tpot_slo - 1))
        excess = options.success_rate_slo / success - 1
        cost += _SUCCESS * math.exp(options.success_rate_penalty * excess)
    except OverflowError:
        return math.inf
    return math.inf if math.isnan(cost) else cost
