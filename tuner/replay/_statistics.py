"""Numbers that tell how good a search is, and how sure that is. Pure and exact."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean, median

CONFIDENCE = 0.95
RESAMPLES = 2000


def evaluations_to(truths: Sequence[float | None], enough: float) -> int | None:
    """The number of evaluations up to the first of at least ``enough``; None: there is none."""
    for count, truth in enumerate(truths, 1):
        if truth is not None and truth >= enough:
            return count
    return None


def regrets(truths: Sequence[float | None], best: float, scale: float, length: int) -> list[float]:
    """Simple regret after each of ``length`` evaluations, in percent.

    That is by how much the best point so far is worse than the best there is, in shares of
    ``scale``; 100 at most, and 100 while nothing satisfying was found. A search that ended early
    stays at its last value.
    """
    so_far, curve = 100.0, []
    for truth in list(truths)[:length]:
        if truth is not None:
            so_far = min(so_far, max(100.0 * (best - truth) / scale, 0.0))
        curve.append(so_far)
    return curve + [so_far] * (length - len(curve))


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile, interpolated linearly between the values, as numpy does by default."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def expected_at_random(configurations: int, near: int) -> float:
    """Draws without replacement, on average, until the first of ``near`` good ones."""
    return (configurations + 1) / (near + 1)


def interval_of_median(groups: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap of the median of the groups' medians.

    A group is a task, its values are the seeds. Tasks are drawn with replacement, and seeds within
    each; a single group is resampled by itself. The same values give the same interval.
    """
    chance = random.Random(f"bootstrap/{seed}")
    medians = []
    for _ in range(RESAMPLES if len(groups) == 1 else RESAMPLES // 4):
        drawn = groups if len(groups) == 1 else chance.choices(groups, k=len(groups))
        medians.append(median([median(chance.choices(one, k=len(one))) for one in drawn]))
    tail = (1 - CONFIDENCE) / 2
    return quantile(medians, tail), quantile(medians, 1 - tail)


def over_tasks(
    groups: Sequence[Sequence[float]], within: Callable[[Sequence[float]], float]
) -> float:
    """The median over tasks of what ``within`` says of each task's values."""
    return median([within(values) for values in groups])


def mean_of_means(groups: Sequence[Sequence[float]]) -> float:
    return fmean([fmean(values) for values in groups])
