"""From the rows of a table to a task: which rows are one configuration, and which failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, TypeAlias

from searchers import Json, Space
from tuner._judge import judge
from tuner.experiment import Objective
from tuner.replay._faults import UnknownColumn, fault, find_column, plain
from tuner.replay._objective import OPTION as OBJECTIVE
from tuner.replay._objective import metrics_of
from tuner.replay._space import point_of
from tuner.replay._table import Cell, Row, Table, number
from tuner.replay._task import Attempt, Configuration, TableTask, key_of

Repeats: TypeAlias = Literal["mean", "first", "random"]
"""What several rows of a configuration are: one measurement with their mean; the first of them; or
a draw for each evaluation."""

_FAILURE_WORDS = re.compile(
    r"oom|out.?of.?memory|fail\w*|error\w*|crash\w*|timeout|timed.?out|killed|invalid|unsupported",
    re.IGNORECASE,
)
_FINE = re.compile(
    r"ok(ay)?|success(ful)?|succeeded|pass(ed)?|complete(d)?|done|finished|terminated|measured|valid"
    r"|none|null|nan|no|false|true|0|200"
)
"""What cells of a column of failures say of rows that are none, without case and punctuation."""


@dataclass(frozen=True)
class Roles:
    """Columns that are neither parameters nor metrics.

    Attributes:
        failures: Says whether a row is a failed trial.
        duration: How long the trial took.
        others: Columns not to be told to a strategy, such as those the table was split by.
    """

    failures: str | None = None
    duration: str | None = None
    others: frozenset[str] = frozenset()

    def columns(self) -> set[str]:
        return {*self.others, *(name for name in (self.failures, self.duration) if name)}


def make_task(
    table: Table,
    space: Space,
    objective: Objective,
    roles: Roles,
    *,
    repeats: Repeats = "mean",
    snap: bool = False,
) -> TableTask:
    """Raises ``ExperimentError`` when metrics are no numbers or nothing was measured."""
    needed = metrics_of(objective)
    _check_numbers(table, needed)
    extra = _further_metrics(table, {*space.names, *needed, *roles.columns()})
    found: dict[str, tuple[dict[str, Json], list[Attempt]]] = {}
    outside = 0
    for row in table.rows:
        point = point_of(space, row.cells)
        if point is None:
            outside += 1
            continue
        attempt = _attempt(row, needed, extra, roles)
        found.setdefault(key_of(point), (point, []))[1].append(attempt)
    if not found:
        raise fault("--space", f"all {len(table.rows)} rows of {table.name} lie outside the space")
    configurations = {
        key: _configuration(point, attempts, objective, repeats)
        for key, (point, attempts) in found.items()
    }
    if all(one.judgement is None for one in configurations.values()):
        raise fault(table.source, _all_failed(table.name, roles))
    durations = [a.duration for _, tries in found.values() for a in tries if a.duration is not None]
    return TableTask(
        table.name,
        table.source,
        space,
        objective,
        configurations,
        len(table.rows),
        outside,
        snap,
        median(durations) if durations else None,
    )


def find_roles(
    columns: Sequence[str], failures: str | None, duration: str | None, by: Sequence[str]
) -> Roles:
    """The columns named, ``none`` for no such column, or those that are called so."""

    def role(option: str, name: str | None, usual: Sequence[str]) -> str | None:
        if name is None:
            return next((c for c in columns if plain(c) in usual), None)
        if name.lower() == "none" and name not in columns:
            return None
        try:
            return find_column(name, columns)
        except UnknownColumn as error:
            raise fault(option, str(error)) from error

    return Roles(
        role("--failures", failures, ("status", "error", "failed", "failure")),
        role("--duration", duration, ("duration", "durations")),
        frozenset(c for c in (role("--by", name, ()) for name in by) if c is not None),
    )


def _check_numbers(table: Table, metrics: Sequence[str]) -> None:
    problems = []
    for name in metrics:
        bad = [row for row in table.rows if not _readable(row.cells[name])]
        if bad:
            more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
            told = f"{name} must be numbers, but line {bad[0].line} of {table.source} has"
            problems.append(f"{told} {bad[0].cells[name]!r}{more}")
    if problems:
        raise fault(OBJECTIVE, *problems)


def _readable(cell: Cell) -> bool:
    """Whether a metric's cell holds a number, or says that there is none."""
    if isinstance(cell, str) and _FAILURE_WORDS.fullmatch(cell.strip()):
        return True
    try:
        number(cell)
    except ValueError:
        return False
    return True


def _further_metrics(table: Table, others: set[str]) -> list[str]:
    """Columns of numbers that the objective does not need; a strategy may model them."""
    return [
        column
        for column in table.columns
        if column not in others
        and all(type(cell) in (int, float) for cell in table.column(column) if cell is not None)
    ]


def _attempt(row: Row, needed: Sequence[str], extra: Sequence[str], roles: Roles) -> Attempt:
    duration = None
    if roles.duration is not None and _readable(row.cells[roles.duration]):
        duration = _value(row.cells[roles.duration])
    duration = duration if duration is not None and duration > 0 else None
    if roles.failures is not None and _says_failed(roles.failures, row.cells[roles.failures]):
        return Attempt({}, duration, f"{roles.failures}: {row.cells[roles.failures]}")
    values = {name: _value(row.cells[name]) for name in (*needed, *extra)}
    empty = [name for name in needed if values[name] is None]
    if empty:
        return Attempt({}, duration, f"no {', '.join(empty)} was recorded")
    return Attempt({k: v for k, v in values.items() if v is not None}, duration)


def _value(cell: Cell) -> float | None:
    if isinstance(cell, str) and _FAILURE_WORDS.fullmatch(cell.strip()):
        return None
    return number(cell)


def _says_failed(column: str, cell: Cell) -> bool:
    """Whether a cell of a column such as ``status``, ``error`` or ``success`` means failure."""
    if cell is None:
        return False
    name = plain(column)
    if isinstance(cell, str):
        return plain(cell) != "" and _FINE.fullmatch(plain(cell)) is None
    if re.search("ok|success|valid|passed", name):
        return not cell
    if re.search("status|state|code", name):
        return cell not in (0, 200, True)
    return bool(cell)


def _configuration(
    point: dict[str, Json], attempts: Sequence[Attempt], objective: Objective, repeats: Repeats
) -> Configuration:
    if repeats == "first":
        attempts = attempts[:1]
    measured = [attempt for attempt in attempts if attempt.error is None]
    names = dict.fromkeys(name for attempt in measured for name in attempt.metrics)
    metrics = {
        name: fmean(a.metrics[name] for a in measured if name in a.metrics) for name in names
    }
    if repeats == "mean" and measured:
        durations = [a.duration for a in measured if a.duration is not None]
        attempts = [Attempt(metrics, fmean(durations) if durations else None)]
    judged = judge(objective, metrics, None) if measured else None
    return Configuration(point, tuple(attempts), metrics, judged)


def _all_failed(name: str, roles: Roles) -> str:
    column = f" or column {roles.failures} says so" if roles.failures else ""
    hint = "; --failures none ignores that column" if roles.failures else ""
    return f"every row of {name} counts as failed: a metric of the objective is empty{column}{hint}"
