"""A simulated run over time, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainables.simulation import Iterations, Simulated

Numbers: TypeAlias = NDArray[np.float64]
_BINS, _COARSE = 600, 120


@dataclass(frozen=True)
class Timeline:
    """What all instances did, in equal bins of time.

    Attributes:
        edges: Seconds after the start, shape (bins + 1,).
        coarse: The same for rates, which would be spikes in fine bins.
        running, waiting: Sequences admitted and queued, mean of each bin, all instances.
        kv_mean, kv_high: Share of the blocks in use, over the instances.
        prompt_rate, output_rate: Prompt tokens computed and tokens generated per second.
    """

    edges: Numbers
    coarse: Numbers
    running: Numbers
    waiting: Numbers
    kv_mean: Numbers
    kv_high: Numbers
    prompt_rate: Numbers
    output_rate: Numbers


def timeline(simulated: Simulated, bins: int = _BINS) -> Timeline:
    """The course of a run. Time without an iteration counts as nothing running."""
    end = max((one.end for one in simulated.served), default=0.0)
    edges = np.linspace(0.0, max(end, 1e-9), bins + 1)
    coarse = edges[:: max(1, bins // _COARSE)]
    instances = list(simulated.instances.items())
    shares = np.array(
        [mean(one, one.kv_blocks, edges) / simulated.capacity[name] for name, one in instances]
    )

    def total(name: str) -> Numbers:
        return _sum([mean(one, getattr(one, name), edges) for _, one in instances])

    def rate(name: str) -> Numbers:
        return _sum([_rate(one, getattr(one, name), coarse) for _, one in instances])

    return Timeline(
        edges,
        coarse,
        total("running"),
        total("waiting"),
        shares.mean(axis=0),
        shares.max(axis=0),
        rate("prefill_tokens"),
        rate("decodes"),
    )


def _sum(series: Sequence[Numbers]) -> Numbers:
    found: Numbers = np.sum(series, axis=0)
    return found


def mean(one: Iterations, values: NDArray[np.int64], edges: Numbers) -> Numbers:
    """Mean over time of what holds while an iteration lasts."""
    return _integral(one, values * (one.end - one.start), edges) / np.diff(edges)


def _rate(one: Iterations, values: NDArray[np.int64], edges: Numbers) -> Numbers:
    """How much per second, where an iteration's share is spread over its duration."""
    return _integral(one, values.astype(np.float64), edges) / np.diff(edges)


def _integral(one: Iterations, amounts: Numbers, edges: Numbers) -> Numbers:
    """What of the amounts of the iterations falls into each bin."""
    if not len(one.start):
        return np.zeros(len(edges) - 1)
    sums = np.concatenate(([0.0], np.cumsum(amounts)))
    times = np.maximum.accumulate(np.column_stack((one.start, one.end)).ravel())
    until = np.column_stack((sums[:-1], sums[1:])).ravel()
    return np.diff(np.interp(edges, times, until))
