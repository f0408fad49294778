"""Splits judged by simulation: one workload, its arrivals scaled to the request rate.

Every run has the same requests in the same order with the same pattern of arrivals, so that two
rates, or two splits, differ in nothing but what is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from searchers import Judged, Limit, Role, Split
from trainables.simulation import (
    FirstToken,
    Instance,
    Load,
    Request,
    Route,
    Served,
    Simulated,
    Transfer,
    simulate,
    simulate_disaggregated,
)

_HALF = math.log(0.5)
"""A prefill pool that takes more of the limit of TTFT than this alone is what limits it."""


@dataclass(frozen=True)
class LatencyLimits:
    """An SLO.

    Attributes:
        ttft, tpot: Seconds.
        percentile: At which each is held, linearly between ranks; None: the mean.
        joint: Whether that share of requests has to be within both at once, as goodput counts
            (DistServe, OSDI 2024).
    """

    ttft: float = math.inf
    tpot: float = math.inf
    percentile: float | None = 90.0
    joint: bool = False

    def __post_init__(self) -> None:
        if self.ttft <= 0 or self.tpot <= 0:
            raise ValueError("limits of TTFT and TPOT have to be above 0")
        if self.percentile is None:
            if self.joint:
                raise ValueError("a joint limit needs a percentile: the share of requests")
        elif not 0 < self.percentile < 100:
            raise ValueError(f"a percentile is between 0 and 100, not {self.percentile}")

    def broken(self, served: Sequence[Served]) -> tuple[float, Limit]:
        """Margin (logarithm of value over limit) and limit of the one nearest to breaking."""
        if self.joint:
            assert self.percentile is not None
            worst = [max(one.ttft / self.ttft, (one.tpot or 0.0) / self.tpot) for one in served]
            return _log(np.percentile(worst, self.percentile)), "goodput"
        ttft = _log(self._value([one.ttft for one in served]) / self.ttft)
        tpots = [tpot for one in served if (tpot := one.tpot) is not None]
        tpot = _log(self._value(tpots) / self.tpot) if tpots else -math.inf
        return (ttft, "ttft") if ttft >= tpot else (tpot, "tpot")

    def _value(self, values: list[float]) -> float:
        if self.percentile is None:
            return float(np.mean(values))
        return float(np.percentile(values, self.percentile))


class Watch:
    """Tells as early as it is certain that a run breaks its limits."""

    def __init__(self, limits: LatencyLimits, requests: Sequence[Request]) -> None:
        self._limits = limits
        self.broken: Limit | None = None
        several = sum(1 for one in requests if one.output_tokens > 1)
        count = len(requests)
        self._ttft = _Tally(limits.ttft, limits.percentile, count)
        self._tpot = _Tally(limits.tpot, limits.percentile, several)
        self._both = _Tally(1.0, limits.percentile, count)

    def __call__(self, served: Served) -> bool:
        limits, ttft, tpot = self._limits, served.ttft, served.tpot
        if limits.joint:
            worst = max(ttft / limits.ttft, (tpot or 0.0) / limits.tpot)
            self.broken = "goodput" if self._both.exceeds(worst) else None
        elif self._ttft.exceeds(ttft):
            self.broken = "ttft"
        elif tpot is not None and self._tpot.exceeds(tpot):
            self.broken = "tpot"
        return self.broken is not None


class _Tally:
    """Values of which ``count`` will come, none below 0."""

    def __init__(self, limit: float, percentile: float | None, count: int) -> None:
        self._limit, self._mean = limit, percentile is None
        self._sum, self._most = 0.0, limit * count
        self._over = 0
        share = (percentile or 0.0) / 100
        self._enough = count - math.floor((count - 1) * share)

    def exceeds(self, value: float) -> bool:
        """Whether the limit is broken whatever is still to come, with this value."""
        if self._mean:
            self._sum += value
            return self._sum > self._most
        self._over += value > self._limit
        return self._over >= self._enough


class SplitJudge:
    """Judges splits at request rates; ask it ``judge(split, rate)``.

    Args:
        instances: By name of the shape and role; they get names of their own.
        requests: With arrivals, of which the pattern counts, not the rate.
        limits: The SLO.
        transfer, first_token, route: As in :func:`simulate_disaggregated`.

    Raises:
        ValueError: There are fewer than two requests, or one without arrival, or they all arrive
            at once.
    """

    def __init__(
        self,
        instances: Mapping[tuple[str, Role], Instance],
        requests: Sequence[Request],
        limits: LatencyLimits,
        *,
        transfer: Transfer | None = None,
        first_token: FirstToken = "decode",
        route: Route = "least_loaded",
    ) -> None:
        self._instances = instances
        self._requests = requests
        self._limits = limits
        self._transfer, self._first_token, self._route = transfer, first_token, route
        request_rate(requests)
        self._prompts = [replace(one, output_tokens=1) for one in requests]
        self._prefilled: dict[tuple[str, int, float], Judged] = {}

    def __call__(self, split: Split, rate: float) -> Judged:
        if split.disaggregated:
            alone = self._prefill_alone(split, rate)
            if not alone.kept:
                return alone
        pools = {role: self._pool(split, role) for role in split.pools}
        load = scaled(self._requests, rate)
        pool: Role = "decode" if split.disaggregated else "mixed"
        told = judged(self._limits, load, pool, lambda stop: self._run(pools, load, stop))
        if split.disaggregated and told.limit == "ttft" and (alone.margin or 0.0) > _HALF:
            return replace(told, pool="prefill")
        return told

    def _run(
        self, pools: Mapping[Role, list[Instance]], load: Load, stop: Callable[[Served], bool]
    ) -> Simulated:
        if "mixed" in pools:
            return simulate(pools["mixed"], load, route=self._route, stop=stop)
        return simulate_disaggregated(
            pools["prefill"],
            pools["decode"],
            load,
            transfer=self._transfer,
            first_token=self._first_token,
            route=self._route,
            stop=stop,
        )

    def _prefill_alone(self, split: Split, rate: float) -> Judged:
        """What the prefill pool does to TTFT: costs little, and without decode instances that make
        it wait it is faster."""
        pool = split.pools["prefill"]
        key = pool.shape.name, pool.count, rate
        if key not in self._prefilled:
            limits, load = replace(self._limits, tpot=math.inf), scaled(self._prompts, rate)
            pools = self._pool(split, "prefill")
            self._prefilled[key] = judged(
                limits,
                load,
                "prefill",
                lambda stop: simulate(pools, load, route=self._route, stop=stop),
            )
        return self._prefilled[key]

    def _pool(self, split: Split, role: Role) -> list[Instance]:
        pool = split.pools[role]
        one = self._instances[pool.shape.name, role]
        return [replace(one, name=f"{role}-{number}") for number in range(pool.count)]


def judged(
    limits: LatencyLimits,
    load: Load,
    pool: Role,
    run: Callable[[Callable[[Served], bool]], Simulated],
) -> Judged:
    """The verdict on one run, which is told when to stop."""
    watch = Watch(limits, load.requests)
    done = run(watch)
    if done.refused:
        return Judged(math.inf, "refused", pool)
    if watch.broken is not None:
        return Judged(None, watch.broken, pool)
    margin, limit = limits.broken(done.served)
    return Judged(margin, limit, pool)


def scaled(requests: Sequence[Request], rate: float) -> Load:
    """The same pattern of arrivals at another request rate, from 0 on.

    Raises:
        ValueError: As :func:`request_rate`.
    """
    factor, start = request_rate(requests) / rate, requests[0].arrival or 0.0
    return Load([replace(one, arrival=((one.arrival or 0.0) - start) * factor) for one in requests])


def request_rate(requests: Sequence[Request]) -> float:
    """Requests per second of a workload.

    Raises:
        ValueError: It has none: fewer than two requests, one without arrival, or all at once.
    """
    if len(requests) < 2 or any(one.arrival is None for one in requests):
        raise ValueError("a request rate needs two requests at least, all with arrivals")
    seconds = (requests[-1].arrival or 0.0) - (requests[0].arrival or 0.0)
    if seconds <= 0:
        raise ValueError("a request rate needs arrivals at different times")
    return (len(requests) - 1) / seconds


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
