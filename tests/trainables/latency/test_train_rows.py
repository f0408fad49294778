"""How rows are divided, and what is said about errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainables.latency.cost_engine import additive, serve
from trainables.latency import IterationRecord
from trainables.latency._card import errors_by_kind, errors_of
from trainables.latency._features import FEATURES, features
from trainables.latency._xgboost_baseline import fit_baseline
from trainables.latency._xgboost_rows import by_time, pause_between, rows_of
from trainables.simulation import Batch, Chunk


def test_features_of_a_batch_by_hand() -> None:
    batch = Batch((Chunk(100, 50), Chunk(10, 0)), 3, 600, 300, 100)
    assert dict(zip(FEATURES, features(batch), strict=True)) == {
        "prefill_tokens": 110,
        "chunks": 2,
        "longest_chunk": 100,
        "prefill_context": 50,
        "prefill_work": 100 * (50 + 50) + 10 * 5,
        "decodes": 3,
        "context": 600,
        "context_max": 300,
        "tokens": 113,
        "sequences": 5,
    }


def test_held_out_rows_are_whole_blocks_of_time_of_each_recording() -> None:
    sources = [serve(additive, length, seed=length) for length in (200, 100)]
    rows = rows_of(sources, 10_000)
    parts = by_time(rows)
    assert (parts.train.astype(int) + parts.stop + parts.test == 1).all()
    for source, length in enumerate((200, 100)):
        test = parts.test[rows.source == source]
        edges = np.flatnonzero(np.diff(test.astype(int)))
        assert test.sum() == length // 5
        assert set(np.diff(edges)[::2]) == {length // 20}


def test_more_rows_than_are_wanted_are_thinned_out_evenly() -> None:
    records = [IterationRecord((), (100,), 0.01, float(at)) for at in range(1000)]
    records = [IterationRecord((), (int(one.at) + 1,), 0.01, one.at) for one in reversed(records)]
    rows = rows_of([records], 100)
    assert rows.table[:, FEATURES.index("context")].tolist() == list(range(1, 1001, 10))


def test_the_pause_between_iterations_is_that_of_a_busy_engine() -> None:
    """The engine was idle before the prefill, and one iteration was not recorded."""
    busy = [IterationRecord((), (5,), 0.10, at) for at in (0.0, 0.11, 0.22, 0.44)]
    later = [IterationRecord((Chunk(9),), (), 0.5, 9.0), IterationRecord((), (9,), 0.1, 9.51)]
    assert pause_between([busy, later]) == pytest.approx(0.01)
    assert pause_between([busy + later]) == pytest.approx(0.01)
    assert pause_between([[IterationRecord((Chunk(9),), (), 0.5)]]) == 0.0


def test_errors_by_hand() -> None:
    measured = np.array([1.0, 2.0, 4.0, 1.0])
    predicted = np.array([1.1, 2.0, 3.0, 1.0])
    found = errors_of(predicted, measured)
    assert found.rows == 4
    assert found.median == pytest.approx(0.05)
    assert found.p99 == pytest.approx(0.25, abs=0.005)
    assert found.bias == pytest.approx(7.1 / 8 - 1)
    kinds = np.array(["decode", "decode", "mixed", "prefill"])
    by_kind = errors_by_kind(predicted, measured, kinds)
    assert {kind: one.rows for kind, one in by_kind.items()} == {
        "all": 4,
        "prefill": 1,
        "decode": 2,
        "mixed": 1,
    }


def test_the_baseline_finds_costs_below_and_above_a_bend() -> None:
    """Flat up to 64 tokens, then 0.1 ms for each: as memory and arithmetic bound a device."""
    counts = np.arange(1, 513)
    batches = [Batch((), int(count), int(count) * 100, 100, 100) for count in counts]
    table = np.array([features(batch) for batch in batches], float)
    seconds = 0.01 + 1e-4 * np.maximum(0, counts - 64)
    baseline = fit_baseline(table, seconds)
    assert baseline.of(table) == pytest.approx(seconds, rel=0.01)
    assert [baseline.seconds(row) for row in table] == pytest.approx(list(baseline.of(table)))
    far = features(Batch((), 2048, 204_800, 100, 100))
    assert baseline.seconds(far) == pytest.approx(0.01 + 1e-4 * (2048 - 64), rel=0.01)
