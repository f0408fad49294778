"""The split that keeps an SLO at the highest request rate. Pure.

Latency grows with the request rate, so the rates at which a split keeps the SLO lie below those at
which it breaks it, and a bracket of the two is narrowed: by the secant of the margins where both
are known, else by halves, on a logarithmic axis. Splits are tried in the order of a guess. Each
but the first is first run a little above the best rate found so far: one that breaks the SLO there
cannot be better, and one run has shown it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from searchers._pd_splits import Role, Split

Limit: TypeAlias = Literal["ttft", "tpot", "goodput", "refused"]

_BEGIN = 0.9
"""Of the guess, where the search begins: queues need room."""
_STEP, _DOUBLINGS = 1.06, 3
"""From the guess on, as long as the bracket is open on one side: each step twice as long as the one
before it, so many times."""
_FAR = 5.0
_MOST_RUNS = 60


@dataclass(frozen=True)
class Judged:
    """One split at one request rate.

    Attributes:
        margin: Logarithm of value over limit, of the limit that is nearest to being broken: above
            0 the SLO is broken. None: it is, and by how much is not known.
        limit: Which one that is.
        pool: Which pool brings it about.
    """

    margin: float | None
    limit: Limit
    pool: Role

    @property
    def kept(self) -> bool:
        return self.margin is not None and self.margin <= 0


@dataclass(frozen=True)
class Ranked:
    """What is known of a split.

    Attributes:
        split: It.
        rate: Highest request rate per second at which it kept the SLO in a run; 0: at none.
        bound: Lowest one at which it broke it; inf: at none, or it was not run.
        limit: What breaks there; None: nothing is known to.
        pool: Which pool brings that about.
        guess: What it was expected to reach.
        runs: It took.
    """

    split: Split
    rate: float
    bound: float
    limit: Limit | None
    pool: Role | None
    guess: float
    runs: int


@dataclass
class _Bracket:
    """Runs of one split."""

    split: Split
    guess: float
    judge: Callable[[Split, float], Judged]
    low: float = 0.0
    high: float = math.inf
    runs: int = 0
    above: Judged | None = None
    kept: list[tuple[float, float]] = field(default_factory=list)
    sides: list[bool] = field(default_factory=list)

    def run(self, rate: float) -> bool:
        judged = self.judge(self.split, rate)
        self.runs += 1
        self.sides.append(judged.kept)
        if judged.kept:
            assert judged.margin is not None
            self.low = rate
            self.kept.append((math.log(rate), judged.margin))
        else:
            self.high, self.above = rate, judged
        return judged.kept

    def next(self, precision: float) -> float | None:
        """The next rate; None when the bracket is narrow enough."""
        if self.high <= self.low * (1 + precision) or self.runs >= _MOST_RUNS:
            return None
        step = math.pow(_STEP, 2 ** min(self.runs - 1, _DOUBLINGS))
        if self.low == 0.0:
            return self.high / step
        expected = self._expected()
        if self.high == math.inf:
            return self.low * _clip(expected / self.low * (1 + precision), 1 + precision, step)
        whole = math.log(self.high / self.low)
        share = math.log(expected / self.low) / whole
        if len(self.sides) >= 2 and self.sides[-1] == self.sides[-2]:
            share = 0.5
        return self.low * math.exp(_clip(share, 0.2, 0.8) * whole)

    def _expected(self) -> float:
        """Rate at which the margin is expected to be 0: on the line through the bracket's ends, or
        through the two highest rates that kept the SLO; with one, latency is in proportion."""
        at, below = self.kept[-1]
        slope = 1.0
        if self.above is not None and self.above.margin is not None:
            slope = (self.above.margin - below) / (math.log(self.high) - at)
        elif len(self.kept) > 1:
            before, lower = self.kept[-2]
            slope = (below - lower) / (at - before)
        if not math.isfinite(below) or slope <= 0:
            return math.inf
        return math.exp(at + min(-below / slope, _FAR))

    def ranked(self) -> Ranked:
        above = self.above
        limit, pool = (above.limit, above.pool) if above else (None, None)
        return Ranked(self.split, self.low, self.high, limit, pool, self.guess, self.runs)


def best_split(
    splits: Sequence[Split],
    judge: Callable[[Split, float], Judged],
    guess: Callable[[Split], float],
    *,
    precision: float = 0.02,
    allowance: float = 0.5,
    exhaustive: bool = False,
) -> list[Ranked]:
    """Rank splits by the highest request rate at which each keeps the SLO.

    Args:
        splits: Candidates.
        judge: Runs one at a request rate, simulated or real.
        guess: Request rate that is expected of one, for the order and to begin with; above 0.
        precision: Share by which the rate may be too low.
        allowance: Share by which a guess may be too low: a split that is not expected to come
            near the best is not run.
        exhaustive: Whether the rate of every split is found, not only whether it beats the best.

    Returns:
        The best first, by rate; those that were given up last, by what they could reach.

    Raises:
        ValueError: There is no split, or the precision is not above 0.
    """
    if not splits:
        raise ValueError("there is no split to choose from")
    if not precision > 0:
        raise ValueError(f"precision has to be above 0, it is {precision}")
    best = 0.0
    found: list[Ranked] = []
    for split in sorted(splits, key=lambda one: -guess(one)):
        bracket = _Bracket(split, guess(split), judge)
        hopeless = not exhaustive and bracket.guess * (1 + allowance) < best
        if not hopeless and (exhaustive or not best or bracket.run(best * (1 + precision))):
            _narrow(bracket, precision)
        best = max(best, bracket.low)
        found.append(bracket.ranked())
    return sorted(found, key=lambda one: (-one.rate, -min(one.bound, one.guess)))


def _narrow(bracket: _Bracket, precision: float) -> None:
    rate = bracket.next(precision) if bracket.runs else bracket.guess * _BEGIN
    while rate is not None:
        bracket.run(rate)
        refused = bracket.above is not None and bracket.above.limit == "refused"
        rate = None if refused else bracket.next(precision)


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
