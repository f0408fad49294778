"""The highest load that keeps the SLO, found with few runs on one engine. Pure.

Latency grows with load and throughput per request under way falls, both up to noise. So the loads
that keep the SLO lie below those that break it, and a bracket of the two is narrowed: the bound
that is nearest to being broken says by how much (its *margin*, the logarithm of value over limit),
and where margins are known on both sides the root is interpolated on logarithmic axes, kept away
from the ends of the bracket so that it shrinks at every step (a safeguarded regula falsi). Short
runs narrow it, a full run has the last word, and lowers the load when it breaks the SLO after all.

A configuration that cannot beat the best one known is given up before its full run: by Little's
law throughput is load over latency, so at a load x it is at most ``throughput(low) * x / low``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trainables.serving._load import OperatingPoint
from trainables.serving._slo import Limit, margin

_MISSED = 1.0
"""Margin of a run without a value for one of the limits."""
_LEAST = 1e-6
"""Margin of a run that was ended for a reason, however narrow."""
_SLACK = 0.05
"""Margin within which a short run is no ground for giving a configuration up."""
_CAUTION = 1.5
"""Latency grows at most in proportion to the load; this much more is stepped down."""
_SATURATED = 0.9
"""An engine that completes less than this share of the offered rate, see :func:`_kept_rate`, has a
growing queue."""
_LEAST_GROWTH, _MOST_GROWTH = 2.0, 8.0


@dataclass(frozen=True)
class Probe:
    """A run wanted next.

    Attributes:
        level: Load, in the unit of ``OperatingPoint.by``.
        full: Whether all requests are sent, for a number that counts.
    """

    level: float
    full: bool


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        level: The operating point; the lowest load where none keeps the SLO.
        reason: ``found``: a full run kept the SLO there. ``broken``: the SLO is broken at the
            lowest load, or by every full run. ``beaten``: no load can beat the best known.
        bound: With ``beaten``, the throughput that is certainly not exceeded.
    """

    level: float
    reason: Literal["found", "broken", "beaten"]
    bound: float | None = None


@dataclass
class _Level:
    """What is known of one load; a full run outweighs short ones. The margin of a run that was
    ended early is only the least it can be."""

    margin: float
    throughput: float
    full: bool
    ended: bool


@dataclass
class OperatingPointSearch:
    """Ask :meth:`next`, run the probe, :meth:`tell`, until it is :class:`Found`.

    Attributes:
        options: Range, precision and number of runs.
        limits: The SLO; without any, the highest load is the operating point.
        throughput: Metric that is maximised.
        incumbent: Best throughput known of other configurations, which keep the SLO.
        allowance: Share by which a throughput may be wrong because of noise.
        known: The operating point that an earlier search found for the same configuration; it is
            measured in full at once.
    """

    options: OperatingPoint
    limits: Sequence[Limit]
    throughput: str = "output_tokens_per_s"
    incumbent: float | None = None
    allowance: float = 0.1
    known: float | None = None
    _levels: dict[float, _Level] = field(default_factory=dict, init=False)
    _probes: int = field(default=0, init=False)
    _fulls: int = field(default=0, init=False)
    _sides: list[bool] = field(default_factory=list, init=False)

    def next(self) -> Probe | Found:
        """What to run, or where the search ended."""
        if not self._levels:
            if self.known is not None:
                return self._full(self._rounded(self.known))
            return self._short(self._first())
        low, high = self._bracket()
        if low is None:
            assert high is not None
            return self._downwards(high)
        if self._levels[low].full:
            return Found(low, "found")
        if beaten := self._beaten(low, high):
            return beaten
        if self._fulls == 0 and self._probes < self.options.probes:
            level = self._upwards(low) if high is None else self._between(low, high)
            if level is not None:
                return self._short(level)
        return self._full(self._after_a_broken_full_run(low, high))

    def tell(self, probe: Probe, metrics: Mapping[str, float], margin: float | None = None) -> None:
        """What the run at a probe measured; or, of one that was ended because it breaks the SLO,
        by how much it does at least."""
        self._probes += not probe.full
        self._fulls += probe.full
        known = self._levels.get(probe.level)
        if known is not None and known.full and not probe.full:
            return
        beyond = self._margin(probe, metrics) if margin is None else max(margin, _LEAST)
        throughput = metrics.get(self.throughput, 0.0)
        found = _Level(beyond, throughput, probe.full, ended=margin is not None)
        self._levels[probe.level] = found
        self._sides.append(found.margin <= 0)

    def _margin(self, probe: Probe, metrics: Mapping[str, float]) -> float:
        margins = [margin(limit, metrics) for limit in self.limits]
        worst = max((_MISSED if one is None else one for one in margins), default=-math.inf)
        rate = _kept_rate(metrics)
        if self.options.by == "request_rate" and rate is not None:
            offered = _SATURATED * probe.level
            worst = max(worst, math.log(offered / rate) if rate > 0 else _MISSED)
        return worst

    def _bracket(self) -> tuple[float | None, float | None]:
        """The highest load that keeps the SLO, and the lowest above it that breaks it.

        A load that broke it below one that kept it is taken for noise, but not if a full run
        broke it.
        """
        broken = [level for level, one in self._levels.items() if one.margin > 0]
        ceiling = min((level for level in broken if self._levels[level].full), default=math.inf)
        kept = [level for level, one in self._levels.items() if one.margin <= 0 and level < ceiling]
        low = max(kept, default=None)
        above = [level for level in broken if low is None or level > low]
        return low, min(above, default=None)

    def _downwards(self, high: float) -> Probe | Found:
        """Every load tried breaks the SLO; ``high`` is the lowest of them."""
        known = self._levels[high]
        spent = self._fulls >= self.options.full_runs
        if high <= self.options.low:
            if known.full or spent or known.margin > _SLACK:
                return Found(high, "broken")
            return self._full(high)
        if spent:
            return Found(high, "broken")
        if known.full:
            level = self._rounded(high * math.exp(-_CAUTION * known.margin))
            return self._full(min(level, self._below(high)))
        if self._probes >= self.options.probes:
            return self._full(self._rounded(self.options.low))
        growth = _clip(math.exp(known.margin), _LEAST_GROWTH, _MOST_GROWTH)
        return self._short(min(self._rounded(high / growth), self._below(high)))

    def _upwards(self, low: float) -> float | None:
        """The next load above all that keep the SLO; None when there is no higher one."""
        if low >= self.options.high:
            return None
        reach = -self._levels[low].margin
        growth = _clip(math.exp(min(reach, 10.0)), _LEAST_GROWTH, _MOST_GROWTH)
        if not self.limits and self.options.by == "concurrency":
            growth = math.inf
        return self._rounded(min(low * growth, self.options.high))

    def _between(self, low: float, high: float) -> float | None:
        """The next load inside the bracket; None when it is narrow enough."""
        if high <= low * (1 + self.options.precision):
            return None
        bottom, top = self._levels[low].margin, self._levels[high].margin
        share = 0.5
        known = not self._levels[high].ended
        same_side_twice = len(self._sides) >= 2 and self._sides[-1] == self._sides[-2]
        if known and not same_side_twice and math.isfinite(bottom) and math.isfinite(top):
            share = _clip(-bottom / (top - bottom), 0.2, 0.8) if top > bottom else 0.5
        level = self._rounded(math.exp(math.log(low) * (1 - share) + math.log(high) * share))
        if self.options.by == "concurrency":
            level = _clip(level, low + 1, high - 1)
        return level if low < level < high else None

    def _after_a_broken_full_run(self, low: float, high: float | None) -> float:
        """The load of the next full run: a little below the one that broke the SLO, as long as
        another run would be left if that breaks it too."""
        if high is None or not self._levels[high].full:
            return low
        if self._fulls + 1 >= self.options.full_runs:
            return low
        level = self._rounded(high * math.exp(-_CAUTION * self._levels[high].margin))
        level = min(level, self._below(high))
        return level if low < level < high else low

    def _beaten(self, low: float, high: float | None) -> Found | None:
        if self.incumbent is None or (high is None and low < self.options.high):
            return None
        bound = self._levels[low].throughput * (high or low) / low * (1 + self.allowance)
        return Found(low, "beaten", bound) if bound < self.incumbent else None

    def _full(self, level: float) -> Probe | Found:
        if self._fulls >= self.options.full_runs:
            return Found(level, "broken")
        return Probe(level, full=True)

    def _short(self, level: float) -> Probe:
        return Probe(level, full=False)

    def _first(self) -> float:
        options = self.options
        if options.start is not None:
            return options.start
        if not self.limits and options.by == "concurrency":
            return options.high
        return self._rounded(math.sqrt(options.low * options.high))

    def _below(self, level: float) -> float:
        if self.options.by == "concurrency":
            return max(level - 1, self.options.low)
        return max(level / (1 + self.options.precision), self.options.low)

    def _rounded(self, level: float) -> float:
        level = _clip(level, self.options.low, self.options.high)
        return float(round(level)) if self.options.by == "concurrency" else float(f"{level:.4g}")


def _kept_rate(metrics: Mapping[str, float]) -> float | None:
    """Requests per second at which requests left the engine while they still came; None: the run
    does not tell.

    A run ends with the answers of the last requests, when no more come. What one takes on average
    is thus no part of the time in which they came. Of an engine that keeps up, that leaves the
    arrivals' span; where a queue grows evenly, at a capacity of c of r requests per second, half
    of its growth is left: the rate is 2 / (1 / c + 1 / r), below 0.9 r where c is below 0.82 r.
    """
    rate = metrics.get("requests_per_s")
    duration, answer = metrics.get("duration_s", 0.0), metrics.get("e2el_mean_s", 0.0)
    if rate is None or duration <= answer:
        return rate
    return rate * duration / (duration - answer)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
