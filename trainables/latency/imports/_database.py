"""``profiler.db`` of msServiceProfiler: the tables batch, batch_exec and batch_req."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from trainables.latency._records import IterationRecord
from trainables.latency.imports._members import (
    Framework,
    Member,
    Requests,
    as_rid,
    contents_of,
    members_of,
)
from trainables.latency.imports._notes import MalformedError, Notes
from trainables.latency.imports._pairing import Forward, Scheduled, pair, records_of
from trainables.latency.imports._tables import (
    MICROSECONDS,
    as_count,
    as_literal,
    as_number,
)

SCHEDULES = ("BatchSchedule", "batchFrameworkProcessing")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "batch": ("name", "res_list"),
    "batch_exec": ("start", "end"),
}


@dataclass(frozen=True)
class _Batch:
    """A batch of the table; ``end`` in the table's own unit, None where it is not told."""

    members: tuple[Member, ...]
    end: float | None


@dataclass(frozen=True)
class _Run:
    """A forward of the table, times in microseconds."""

    batch_id: int | None
    rank: str
    start: float
    end: float


def read_database(
    path: Path, requests: Requests, framework: Framework, notes: Notes
) -> list[IterationRecord]:
    """Iterations of a profile.

    For MindIE, ``batch_req`` says which requests a forward computed, and in which iteration they
    were. Without it, and for vLLM, a forward belongs to the batch that was made last before it.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            tables = {name: _rows(database, name) for name in ("batch", "batch_exec", "batch_req")}
    except sqlite3.Error as error:
        notes.fault(path, None, f"is no database that can be read: {error}")
        return []
    for name, needs in _COLUMNS.items():
        missing = [column for column in needs if column not in _columns(tables[name])]
        if missing and not (name == "batch" and framework == "mindie" and tables["batch_req"]):
            said = f"has no column {', '.join(missing)}" if tables[name] else "is empty or missing"
            notes.fault(path, f"table {name}", said)
            return []
    runs = list(_runs(path, tables["batch_exec"], notes))
    listed = _listed(path, tables["batch_req"], notes)
    if framework == "mindie" and any(run.batch_id in listed for run in runs):
        return list(_by_number(runs, listed, requests, notes))
    batches = list(_batches(path, tables["batch"], notes))
    return list(_by_time(runs, batches, requests, framework, notes))


def _rows(database: sqlite3.Connection, table: str) -> list[sqlite3.Row]:
    known = database.execute(
        "SELECT 1 FROM sqlite_master WHERE name = ? AND type IN ('table', 'view')", (table,)
    ).fetchone()
    return database.execute(f"SELECT * FROM {table}").fetchall() if known else []


def _columns(rows: Sequence[sqlite3.Row]) -> list[str]:
    return list(rows[0].keys()) if rows else []


def _get(row: sqlite3.Row, *names: str) -> Any:
    return next((row[name] for name in names if name in row.keys()), None)  # noqa: SIM118


def _runs(path: Path, rows: Sequence[sqlite3.Row], notes: Notes) -> Iterator[_Run]:
    for number, row in enumerate(rows, start=1):
        if _get(row, "name", "event") not in (None, "forward"):
            continue
        try:
            start, end = as_number(row["start"], "start"), as_number(row["end"], "end")
            batch_id = _get(row, "batch_id")
            known = None if batch_id is None else as_count(batch_id, "batch_id")
        except MalformedError as error:
            notes.malformed(path, f"row {number} of batch_exec", error)
            continue
        yield _Run(known, str(_get(row, "pid") or ""), start, end)


def _batches(path: Path, rows: Sequence[sqlite3.Row], notes: Notes) -> Iterator[_Batch]:
    for number, row in enumerate(rows, start=1):
        if row["name"] not in SCHEDULES:
            continue
        try:
            members = members_of(as_literal(str(row["res_list"]), "res_list"))
            end = _get(row, "end_time", "start_time")
            yield _Batch(members, None if end is None else as_number(end, "end_time"))
        except MalformedError as error:
            notes.malformed(path, f"row {number} of batch", error)


def _listed(path: Path, rows: Sequence[sqlite3.Row], notes: Notes) -> dict[int, tuple[Member, ...]]:
    """Requests of each numbered batch."""
    found: dict[int, list[Member]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        try:
            batch = as_count(_get(row, "batch_id"), "batch_id")
            iteration = as_count(_get(row, "iter"), "iter")
        except MalformedError as error:
            notes.malformed(path, f"row {number} of batch_req", error)
            continue
        found[batch].append(Member(as_rid(_get(row, "rid")), iteration))
    return {batch: tuple(members) for batch, members in found.items()}


def _by_number(
    runs: Sequence[_Run],
    listed: Mapping[int, tuple[Member, ...]],
    requests: Requests,
    notes: Notes,
) -> Iterator[IterationRecord]:
    by_batch: dict[int, list[Forward]] = defaultdict(list)
    for run in runs:
        if run.batch_id is not None and run.batch_id in listed:
            by_batch[run.batch_id].append(_forward(run))
        else:
            notes.drop("a forward whose batch was not recorded")
    notes.drop("a batch without a recorded forward", len(listed) - len(by_batch))
    numbers = sorted(by_batch, key=lambda number: by_batch[number][0].start)
    contents = contents_of([listed[number] for number in numbers], requests, "mindie", notes)
    paired = {index: by_batch[number] for index, number in enumerate(numbers)}
    yield from records_of(paired, contents, notes)


def _by_time(
    runs: Sequence[_Run],
    batches: Sequence[_Batch],
    requests: Requests,
    framework: Framework,
    notes: Notes,
) -> Iterator[IterationRecord]:
    timed = [(batch.end, batch.members) for batch in batches if batch.end is not None]
    notes.drop("a batch without a time", len(batches) - len(timed))
    if not timed or not runs:
        return
    timed.sort(key=lambda one: one[0])
    unit = _unit([end for end, _ in timed], [run.start for run in runs])
    made = [Scheduled(end * unit) for end, _ in timed]
    contents = contents_of([members for _, members in timed], requests, framework, notes)
    yield from records_of(pair([_forward(run) for run in runs], made, notes), contents, notes)


def _forward(run: _Run) -> Forward:
    return Forward(run.start * MICROSECONDS, (run.end - run.start) * MICROSECONDS, run.rank)


def _unit(ends: Sequence[float], starts: Sequence[float]) -> float:
    """Seconds of the unit of a batch's times, which are of the same moments as forwards' times.

    Newer versions store milliseconds for batches, and microseconds for forwards.
    """
    ratio = median(starts) / median(ends) if median(ends) else 1.0
    return MICROSECONDS * (1000.0 if ratio > 30 else 1.0)
