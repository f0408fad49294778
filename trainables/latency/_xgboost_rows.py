"""Rows for training, and how they are divided so that held-out ones are really new."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.latency._features import Kind, Table, feature_table, kind_of
from trainables.latency._records import IterationRecord
from trainables.latency._xgboost_baseline import Baseline, fit_baseline

_BLOCKS = 20
_CYCLE = 5
"""Of five blocks three are trained on, one says when to stop, and one is for the test."""
_STOP, _TEST = 2, 4
_OUTLIER = 10.0
_OUTLIERS = 0.02

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Iterations as training sees them, by source and then by time.

    Attributes:
        table: Features, shape (rows, features).
        seconds: Durations, shape (rows,).
        kinds: What each computes.
        source: Number of the file or recording each is from, shape (rows,).
    """

    table: Table
    seconds: NDArray[np.float64]
    kinds: NDArray[np.str_]
    source: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, which: Mask | NDArray[np.int64]) -> Rows:
        return Rows(self.table[which], self.seconds[which], self.kinds[which], self.source[which])


@dataclass(frozen=True)
class Parts:
    """Which rows are for what; each of shape (rows,)."""

    train: Mask
    stop: Mask
    test: Mask


def rows_of(sources: Sequence[Sequence[IterationRecord]], limit: int) -> Rows:
    """Rows of recordings; thinned out evenly to ``limit`` of them when they are more."""
    flat = [
        (number, one)
        for number, records in enumerate(sources)
        for one in sorted(records, key=lambda record: record.at)
    ]
    step = len(flat) / limit
    if step > 1:
        flat = [flat[int(index * step)] for index in range(limit)]
    batches = [one.batch for _, one in flat]
    kinds: list[Kind] = [kind_of(batch) for batch in batches]
    return Rows(
        feature_table(batches),
        np.array([one.seconds for _, one in flat], np.float64),
        np.array(kinds, dtype=np.str_),
        np.array([number for number, _ in flat], np.int64),
    )


def pause_between(sources: Iterable[Sequence[IterationRecord]]) -> float:
    """Seconds that usually pass between the end of an iteration and the start of the next one
    while the engine has work: the next one decodes, so its sequences were there before.

    0 where no recording tells. The median: where an iteration was not recorded, more passed.
    """
    found: list[float] = []
    for records in sources:
        ordered = sorted(records, key=lambda record: record.at)
        found += [
            max(0.0, later.at - one.at - one.seconds)
            for one, later in itertools.pairwise(ordered)
            if later.decodes
        ]
    return float(np.median(found)) if found else 0.0


def usual(rows: Rows) -> tuple[Mask, Baseline]:
    """Rows that are no accident, and the baseline of them.

    An iteration that took ten times what its work explains compiled something, or the machine was
    stopped. If that is more than one in fifty, it is the baseline that explains too little.
    """
    baseline = fit_baseline(rows.table, rows.seconds)
    keep = rows.seconds < _OUTLIER * baseline.of(rows.table)
    if keep.all() or keep.mean() < 1 - _OUTLIERS:
        return np.ones(len(rows), np.bool_), baseline
    return keep, fit_baseline(rows.table[keep], rows.seconds[keep])


def by_time(rows: Rows) -> Parts:
    """Divide by blocks of time: neighbours in time are alike, so drawing rows would cheat.

    Recordings that are too short to be divided are taken for one.
    """
    place = np.empty(len(rows), np.int64)
    sources, counts = np.unique(rows.source, return_counts=True)
    divided = np.where(np.isin(rows.source, sources[counts >= _BLOCKS]), rows.source, -1)
    for source in np.unique(divided):
        mine = np.flatnonzero(divided == source)
        place[mine] = np.arange(len(mine)) * _BLOCKS // max(len(mine), _BLOCKS)
    turn = place % _CYCLE
    return Parts((turn != _STOP) & (turn != _TEST), turn == _STOP, turn == _TEST)
