"""The sequential search over outlier strategies, as msModelSlim's ``standing_high`` does it.

1. Level zero of the first strategy; if that is enough, it is over.
2. Bisection of the levels ``1 .. top`` with the first strategy.
3. From there downwards, ``step`` levels at a time: the strategies are tried in turn, beginning with
   the one that succeeded last, until one is satisfied; then the step doubles. If none is, the step
   is one again; if it was one, the search is over.

The best found is visited once more at the end. That visit matters where nothing was satisfied: it
is the first one of the top level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

Phase: TypeAlias = Literal["zero", "bisection", "climb", "end"]


class Visit(NamedTuple):
    """One evaluation of the sequential search, repeats included."""

    strategy: int
    level: int
    phase: Phase


Value: TypeAlias = Callable[[int, int], bool | None]
"""Whether a level (second) of a strategy (first) is satisfied; None: not known."""


def visits(top: int, strategies: Sequence[int], value: Value) -> Iterator[Visit]:
    """What the sequential search evaluates over the levels ``0 .. top``, in order.

    It ends where the search ends, or with the first visit whose value is not known. ``top`` of
    zero means that there is nothing to fall back, or not yet: then it ends after level zero.
    """
    first = strategies[0]
    yield Visit(first, 0, "zero")
    if value(first, 0) is not False or top == 0:
        return
    low, high = 1, top
    while low < high:
        middle = (low + high) // 2
        yield Visit(first, middle, "bisection")
        satisfied = value(first, middle)
        if satisfied is None:
            return
        low, high = (low, middle) if satisfied else (middle + 1, high)
    yield from _climb(low, strategies, value)


def _climb(level: int, strategies: Sequence[int], value: Value) -> Iterator[Visit]:
    best, turn, step = strategies[0], 0, 1
    while level >= step:
        for _ in strategies:
            yield Visit(strategies[turn], level - step, "climb")
            satisfied = value(strategies[turn], level - step)
            if satisfied is None:
                return
            if satisfied:
                best, level = strategies[turn], level - step
                step = max(min(2 * step, level), 1)
                break
            turn = (turn + 1) % len(strategies)
        else:
            if step == 1:
                break
            step = 1
    yield Visit(best, level, "end")


def most_visits(top: int, strategies: int) -> int:
    """Upper bound of what the sequential search evaluates, each level of a strategy counted once.

    One strategy climbs over nothing but what its bisection has settled. Of several, one that fails
    where another is satisfied is out for good, for all that is tried from then on lies lower; so
    such failures are fewer than the strategies.
    """
    every = strategies * top + 1
    climb = 0
    if strategies > 1:
        climb = max(_descent(level, 1, strategies) for level in range(1, top + 1)) + strategies - 1
    return min(every, 1 + (top - 1).bit_length() + climb + 1)


@cache
def _descent(level: int, step: int, strategies: int) -> int:
    """Evaluations of the climb from ``level`` at worst, as long as the strategies never all fail.

    Of those between which one is satisfied only that one is counted.
    """
    if step > level:
        return 0
    target = level - step
    met = 1 + _descent(target, max(min(2 * step, target), 1), strategies)
    return max(met, strategies + (_confined(step, 1, strategies) if step > 1 else 0))


@cache
def _confined(height: int, step: int, strategies: int) -> int:
    """The same once all strategies have failed ``height`` levels below: nothing less is enough."""
    failed = strategies + (_confined(min(step, height), 1, strategies) if step > 1 else 0)
    if step >= height:
        return failed
    return max(1 + _confined(height - step, 2 * step, strategies), failed)
