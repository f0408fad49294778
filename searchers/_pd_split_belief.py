"""What whole splits are expected to do, corrected by those that were measured. Pure.

Rate matching: a pool is as fast as its instances alone, a split as fast as its slower pool. In a
whole split instances are slower than alone, for KV caches travel and requests wait for each other,
and the rates alone are not exact. So each role has a factor: ``min(f_P x n_P x rate_P, f_D x n_D x
rate_D)``, and ``f_M x n_M x rate_M`` for mixed instances. All are 1 as far as nothing was measured.
What ``f_P`` and ``f_D`` have in common is learned from the first measured split; how they differ
(the balance) is a distribution on a grid, which each measured split narrows (Bayes' rule, normal
errors of logarithms). What else is worth measuring is the expected improvement (Mockus 1978) over
that distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from searchers._pd_splits import Rates, Role, Split, matched_rate

_NOISE = 0.05
"""Deviation of a measured split from the model, as a logarithm: repeats differ by about 5 %."""
_LOSS = 0.5
"""Deviation that all instances have in common, compared with alone."""
_BALANCE = 0.2
"""Deviation of prefill from decode instances, beside what they have in common."""
_REACH, _STEPS = 1.5, 75
"""How far the balance is looked for, as a logarithm, and steps to either side."""
_NEGLIGIBLE = 1e-4
"""Of the most probable factors: so much less probable ones are left out."""


class Seen(NamedTuple):
    """A whole split that was measured.

    Attributes:
        rate: Requests per second, as :func:`searchers._pd_split_stage.held_rate`.
        side: The pool that is known to limit it; None: the slower one.
    """

    split: Split
    rate: float
    side: Role | None = None


class Beliefs:
    """What is expected of any split.

    Args:
        rates: Of one instance alone.
        seen: Whole splits, all of whose rates are known.
    """

    def __init__(self, rates: Rates, seen: Iterable[Seen]) -> None:
        self._rates = rates
        seen = list(seen)
        self._apart = _posterior([one for one in seen if one.split.disaggregated], rates)
        together = [one for one in seen if not one.split.disaggregated]
        self._mixed = _level(
            [math.log(one.rate / matched_rate(one.split, rates)) for one in together]
        )

    @property
    def factors(self) -> dict[Role, float]:
        """Of each role: rate of an instance in a whole split over its rate alone, the mean."""
        return {
            "prefill": sum(one.weight * math.exp(one.prefill) for one in self._apart),
            "decode": sum(one.weight * math.exp(one.decode) for one in self._apart),
            "mixed": math.exp(self._mixed),
        }

    def rate(self, split: Split) -> float:
        """Requests per second, by the mean factors."""
        factors = self.factors
        corrected = {
            (pool.shape.name, role): self._rates[pool.shape.name, role] * factors[role]
            for role, pool in split.pools.items()
        }
        return matched_rate(split, corrected)

    def improvement(self, split: Split, best: float) -> float:
        """Requests per second that a measurement of it is expected to add to the best."""
        distribution = self._distribution(split)
        return sum(weight * max(rate - best, 0.0) for weight, rate in distribution)

    def _distribution(self, split: Split) -> list[tuple[float, float]]:
        """Probabilities and rates."""
        if not split.disaggregated:
            return [(1.0, math.exp(self._mixed) * matched_rate(split, self._rates))]
        both = _sides(split, self._rates)
        return [
            (one.weight, math.exp(min(both["prefill"] + one.prefill, both["decode"] + one.decode)))
            for one in self._apart
        ]


def hopeless(
    splits: Sequence[Split], believed: Rates, within: float = 0.5
) -> set[tuple[str, Role]]:
    """Shapes and roles that are not worth a trial: of every split with them all is believed, and
    it is less than a share ``within`` of the best of its kind."""
    if not believed:
        return set()
    reach: dict[tuple[str, Role], float] = {}
    best = {True: 0.0, False: 0.0}
    for split in splits:
        keys = [(pool.shape.name, role) for role, pool in split.pools.items()]
        known = all(key in believed for key in keys)
        rate = matched_rate(split, believed) if known else math.inf
        if known:
            best[split.disaggregated] = max(best[split.disaggregated], rate)
        for key in keys:
            reach[key] = max(reach.get(key, 0.0), rate)
    return {key for key, rate in reach.items() if rate < within * best[key[1] != "mixed"]}


def agreement(believed: Rates, measured: Rates) -> float:
    """How well believed rates agree with measured ones but for a common factor, from 0 to 1: the
    mean of the smaller over the larger; 1 while there is nothing to compare."""
    both = [
        math.log(measured[key] / rate)
        for key, rate in believed.items()
        if key in measured and rate > 0
    ]
    if not both:
        return 1.0
    middle = median(both)
    return sum(math.exp(-abs(one - middle)) for one in both) / len(both)


class _Factors(NamedTuple):
    """Logarithms of the factors, and how probable they are."""

    weight: float
    prefill: float
    decode: float


def _posterior(seen: Sequence[Seen], rates: Rates) -> list[_Factors]:
    sides = [(one, _sides(one.split, rates)) for one in seen]
    found = []
    for step in range(-_STEPS, _STEPS + 1):
        balance = _REACH * step / _STEPS
        residuals = [math.log(one.rate) - _expected(one, both, balance) for one, both in sides]
        level = _level(residuals)
        misfit = sum(((residual - level) / _NOISE) ** 2 for residual in residuals)
        unlikely = (level / _LOSS) ** 2 + (balance / _BALANCE) ** 2
        found.append((misfit + unlikely, level + balance, level - balance))
    least = min(cost for cost, _, _ in found)
    weights = [math.exp((least - cost) / 2) for cost, _, _ in found]
    total = sum(weights)
    return [
        _Factors(weight / total, prefill, decode)
        for weight, (_, prefill, decode) in zip(weights, found, strict=True)
        if weight > _NEGLIGIBLE
    ]


def _sides(split: Split, rates: Rates) -> Mapping[Role, float]:
    """Logarithms of what the pools do alone."""
    return {
        role: math.log(pool.count * rates[pool.shape.name, role])
        for role, pool in split.pools.items()
    }


def _expected(one: Seen, both: Mapping[Role, float], balance: float) -> float:
    shifted = {"prefill": both["prefill"] + balance, "decode": both["decode"] - balance}
    return shifted[one.side] if one.side in shifted else min(shifted.values())


def _level(residuals: Sequence[float]) -> float:
    """Their mean, drawn to 0 as a normal prior does."""
    return sum(residuals) / (len(residuals) + (_NOISE / _LOSS) ** 2)
