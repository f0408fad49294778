"""Fixtures of tests of latency models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.latency.operator_tables import (
    CHUNKS,
    CONTEXTS,
    COUNTS,
    DENSE,
    ROWS,
    attention_us,
    possible,
    write_lines,
    write_table,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tables in which every operator takes a + b tokens."""
    tables = tmp_path / "ops"
    write_lines(tables / "tp1" / "dense.csv", "tokens", DENSE)
    write_lines(tables / "tp1" / "per_sequence.csv", "sequences", ROWS)
    points = [
        (c, b, n, k, attention_us(c, b, n, k))
        for c in CHUNKS
        for b in CONTEXTS
        for n in COUNTS
        for k in CONTEXTS
        if possible(c, b, n, k)
    ]
    columns = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    write_table(tables / "tp1" / "attention.csv", columns, list(points))
    return tables
