"""Watches a running benchmark and tells when its outcome is decided. Pure.

Three rules, from certain to probable:

* A run of ``n`` requests whose values so far already exceed what all of them may sum up to (for a
  limit on a mean) or whose values beyond the limit are already too many (for a limit on a
  percentile, or on the success rate) breaks the limit whatever the rest is. This is never wrong:
  latencies are not negative.
* A limit on a mean is also broken when the rest of the run is predicted to break it: values after
  the warm-up are taken together in blocks as long as the engine is wide, and the mean of the rest
  is at least the blocks' mean less ``t`` standard errors. ``t`` is Student's quantile at a
  hundredth, shared among the looks of a run (Bonferroni), so a run that would have kept its limits
  is given up in at most one of a hundred, as far as blocks are independent.
* In the same way, a throughput cannot reach the one to beat when the windows' throughput plus ``t``
  standard errors stays below it.

The warm-up, in which an idle engine is filled, is left out of every prediction: as many requests
as are under way at once.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainables._figures import figure
from trainables.serving._slo import Limit

_LEAST_BLOCKS = 5
_BLOCK = 8
_LOOKS = 32
_T = {4: 9.73, 5: 7.6, 6: 6.51, 7: 5.86, 8: 5.43, 9: 5.12, 10: 4.9, 12: 4.59, 15: 4.31, 20: 4.05}
_T |= {30: 3.82, 40: 3.71, 60: 3.61}
"""Student's t for a probability of 0.01 / 32 in one tail, by degrees of freedom."""
_SLACK = 1.02
_LATENCIES = ("ttft", "tpot")


@dataclass(frozen=True)
class Verdict:
    """Why a run need not go on.

    Attributes:
        metric: What decided it.
        reason: For people.
        certain: Whether it could not have come otherwise.
        margin: By how much the limit is broken at least, as the logarithm of value over limit;
            None for a throughput.
        bound: What a throughput will not exceed; None for a limit.
    """

    metric: str
    reason: str
    certain: bool
    margin: float | None
    bound: float | None = None


@dataclass
class Sentinel:
    """Feed it what has ended so far, ask :meth:`verdict`.

    Attributes:
        limits: The SLO; limits that windows tell nothing of are not watched.
        requests: How many the run sends; None where that is not known, which leaves only
            throughput to be judged.
        width: Requests under way at once.
        throughput: Metric and value to beat; None where any will do.
        means_only: Values are means of several requests each, and warm-ups are among them: so
            nothing is known about percentiles, and nothing is certain.
    """

    limits: Sequence[Limit]
    requests: int | None
    width: int = 1
    throughput: tuple[str, float] | None = None
    means_only: bool = False
    values: dict[str, list[float]] = field(default_factory=lambda: {k: [] for k in _LATENCIES})
    completed: int = 0
    failed: int = 0
    rates: list[float] = field(default_factory=list)

    def add(
        self,
        *,
        completed: int,
        failed: int,
        seconds: float,
        output_tokens: int,
        latencies: Mapping[str, Sequence[float]],
    ) -> None:
        """One more window."""
        if self.completed + self.failed >= self.width and seconds > 0:
            done = output_tokens
            if self.throughput is not None and self.throughput[0] == "requests_per_s":
                done = completed
            self.rates.append(done / seconds)
        self.completed += completed
        self.failed += failed
        for name in _LATENCIES:
            self.values[name] += latencies.get(name, ())

    def estimates(self) -> dict[str, float]:
        """What can be said of the run so far, by the names of the metrics."""
        found = {
            f"{name}_mean_s": statistics.fmean(values)
            for name, values in self.values.items()
            if values
        }
        if self.completed + self.failed:
            found["success_rate"] = self.completed / (self.completed + self.failed)
        if self.rates and (self.throughput is None or self.throughput[0] == "output_tokens_per_s"):
            found["output_tokens_per_s"] = statistics.fmean(self.rates)
        return found

    def verdict(self) -> Verdict | None:
        """The reason to end the run now; None while it may still turn out well."""
        if self.requests is not None:
            for limit in self.limits:
                if found := self._judge(limit, self.requests):
                    return found
        return self._too_slow()

    def _judge(self, limit: Limit, requests: int) -> Verdict | None:
        if limit.metric == "success_rate" and limit.min is not None:
            allowed = requests * (1 - limit.min)
            if self.failed > allowed + 1e-9:
                said = f"{self.failed} of {requests} requests failed"
                worst = (requests - self.failed) / requests
                beyond = math.log(limit.min / worst) if worst > 0 else 1.0
                return Verdict(limit.metric, said, True, beyond)
            return None
        latency, _, statistic = limit.metric.removesuffix("_s").partition("_")
        if latency not in _LATENCIES or limit.max is None or limit.max <= 0:
            return None
        values = self.values[latency]
        if statistic == "mean":
            return self._mean(limit.metric, limit.max, values, requests)
        if statistic.startswith("p") and not self.means_only:
            return self._percentile(limit.metric, limit.max, int(statistic[1:]), values, requests)
        return None

    def _mean(
        self, metric: str, limit: float, values: Sequence[float], requests: int
    ) -> Verdict | None:
        total = sum(values)
        if total > limit * requests and not self.means_only:
            said = f"{metric} is at least {figure(total / requests)} whatever the rest is"
            return Verdict(metric, said, True, math.log(total / requests / limit))
        least = _least_mean(values[self.width :], max(self.width, _BLOCK))
        if least is None or requests <= len(values):
            return None
        predicted = (total + (requests - len(values)) * least) / requests
        if predicted <= limit * _SLACK:
            return None
        said = f"{metric} will be {figure(predicted)} or more, after {len(values)} of {requests}"
        return Verdict(metric, said, False, math.log(predicted / limit))

    def _percentile(
        self, metric: str, limit: float, percent: int, values: Sequence[float], requests: int
    ) -> Verdict | None:
        """With linear interpolation the percentile lies between two neighbours in order; it is
        beyond the limit for certain once the lower of them is."""
        beyond = sorted(value for value in values if value > limit)
        allowed = requests - 1 - math.floor(percent / 100 * (requests - 1))
        if len(beyond) <= allowed:
            return None
        said = f"{len(beyond)} of {requests} requests are beyond {limit:g} already"
        return Verdict(metric, said, True, math.log(beyond[-1 - allowed] / limit))

    def _too_slow(self) -> Verdict | None:
        if self.throughput is None:
            return None
        metric, needed = self.throughput
        count = len(self.rates)
        if metric not in ("output_tokens_per_s", "requests_per_s") or count <= _LEAST_BLOCKS:
            return None
        error = statistics.stdev(self.rates) / math.sqrt(count)
        most = statistics.fmean(self.rates) + _t(count - 1) * error
        if most >= needed:
            return None
        said = f"{metric} will be {figure(most)} at most, the best known has {figure(needed)}"
        return Verdict(metric, said, False, None, most)


def _least_mean(values: Sequence[float], block: int) -> float | None:
    """A lower confidence bound of the mean of what is still to come."""
    count = len(values) // block
    if count < _LEAST_BLOCKS:
        return None
    means = [statistics.fmean(values[i * block : (i + 1) * block]) for i in range(count)]
    return statistics.fmean(means) - _t(count - 1) * statistics.stdev(means) / math.sqrt(count)


def _t(freedom: int) -> float:
    known = max((degrees for degrees in _T if degrees <= freedom), default=4)
    return _T[known]
