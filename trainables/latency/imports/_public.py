"""The CSV files that msServiceProfiler writes for people: batch.csv, forward.csv, request.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.latency._records import IterationRecord
from trainables.latency.imports._members import (
    Content,
    Framework,
    Member,
    Requests,
    contents_of,
    members_of,
)
from trainables.latency.imports._notes import MalformedError, Notes
from trainables.latency.imports._pairing import Forward, Scheduled, pair, record, records_of
from trainables.latency.imports._tables import Row, as_count, read_table

_SCHEDULES = ("BatchSchedule", "batchFrameworkProcessing", "Schedule")
_EXECUTIONS = ("modelExec", "modelRunnerExec", "Execute")


@dataclass(frozen=True)
class _Batch:
    """A row of batch.csv whose requests are known."""

    row: Row
    members: tuple[Member, ...]


def read_public(
    folder: Path, requests: Requests, framework: Framework, notes: Notes
) -> list[IterationRecord]:
    """Iterations of a folder with batch.csv.

    Durations are those of forward.csv; without it, of what batch.csv itself says about the
    execution of a batch: a column ``forward_time``, or rows like ``modelExec``.
    """
    path = folder / "batch.csv"
    rows = read_table(path, notes, ("res_list",))
    if rows and "forward_time" in rows[0].cells:
        return _with_own_time(path, rows, "forward_time", requests, framework, notes)
    made = [row for row in rows if row.cells.get("name", _SCHEDULES[0]) in _SCHEDULES]
    executed = [row for row in rows if row.cells.get("name") in _EXECUTIONS]
    forwards = folder / "forward.csv"
    if forwards.exists():
        runs = _forwards(forwards, read_table(forwards, notes, ("start_time",)), notes)
    elif any(row.has("res_list") for row in executed):
        return _with_own_time(path, executed, "during_time", requests, framework, notes)
    else:
        runs = _forwards(path, executed, notes)
    return _paired(path, made, runs, requests, framework, notes)


def _paired(
    path: Path,
    rows: Sequence[Row],
    runs: Sequence[Forward],
    requests: Requests,
    framework: Framework,
    notes: Notes,
) -> list[IterationRecord]:
    if not runs:
        notes.fault(path, None, "there is neither a forward.csv beside it nor an execution in it")
        return []
    scheduled, members = [], []
    for batch in sorted(_batches(path, rows, notes), key=lambda one: _end(one.row)):
        scheduled.append(Scheduled(_end(batch.row), _replica(batch.row), len(batch.members)))
        members.append(batch.members)
    contents = contents_of(members, requests, framework, notes)
    return list(records_of(pair(runs, scheduled, notes), contents, notes))


def _with_own_time(
    path: Path,
    rows: Sequence[Row],
    column: str,
    requests: Requests,
    framework: Framework,
    notes: Notes,
) -> list[IterationRecord]:
    """Rows that say both what was computed and how long it took."""
    batches = sorted(_batches(path, rows, notes, column), key=lambda one: _end(one.row))
    contents = contents_of([one.members for one in batches], requests, framework, notes)
    known: list[tuple[_Batch, Content]] = [
        (batch, content)
        for batch, content in zip(batches, contents, strict=True)
        if content is not None
    ]
    return [
        found for batch, content in known for found in _timed(batch.row, column, content, notes)
    ]


def _timed(row: Row, column: str, content: Content, notes: Notes) -> Iterator[IterationRecord]:
    seconds = row.seconds(column)
    return record(content, seconds, _end(row) - seconds, notes)


def _batches(
    path: Path, rows: Sequence[Row], notes: Notes, column: str | None = None
) -> Iterator[_Batch]:
    """Rows with requests and times that can be understood."""
    for row in rows:
        try:
            _end(row)
            if column is not None:
                row.seconds(column)
            yield _Batch(row, members_of(row.literal("res_list")))
        except MalformedError as error:
            notes.malformed(path, row.line, error)


def _forwards(path: Path, rows: Sequence[Row], notes: Notes) -> list[Forward]:
    found = []
    for row in rows:
        try:
            start = row.seconds("start_time")
            length = row.seconds("during_time" if row.has("during_time") else "forward_time")
            size = as_count(row.text("batch_size"), "column batch_size") if _sized(row) else None
        except MalformedError as error:
            notes.malformed(path, row.line, error)
            continue
        rank = f"{row.cells.get('hostname', '')} {row.cells.get('prof_id', '')}"
        found.append(Forward(start, length, rank, _replica(row), size))
    return found


def _sized(row: Row) -> bool:
    return row.has("batch_size") and row.cells.get("name") not in _EXECUTIONS


def _end(row: Row) -> float:
    """When a batch was made, in seconds."""
    if row.has("end_time"):
        return row.seconds("end_time")
    return row.seconds("start_time") + row.seconds("during_time")


def _replica(row: Row) -> str:
    return row.cells["dp_rank"] if row.has("dp_rank") else ""
