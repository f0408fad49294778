"""From files and what a person says about them to tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from searchers import Space
from tuner.experiment import Objective
from tuner.replay._faults import Faults, fault
from tuner.replay._objective import metrics_of, read_objective
from tuner.replay._recording import Repeats, Roles, find_roles, make_task
from tuner.replay._simulation import Missing
from tuner.replay._space import (
    MakeSpace,
    guess_space,
    looks_chosen,
    point_of,
    read_space,
    shared_columns,
)
from tuner.replay._table import Row, Table, read_table
from tuner.replay._task import TableTask, why_infeasible


@dataclass(frozen=True)
class Request:
    """What a person says about tables; see docs/replay.md.

    Attributes:
        space: The columns to search, or None for a guess.
        objective: What good means.
        where: Conditions that rows have to meet.
        by: Columns that split a table into tasks.
        failures: Column that says which rows are failed trials; None: found by its name.
        duration: Column with the time of a trial; None: found by its name.
    """

    objective: str
    space: str | None = None
    where: Sequence[str] = ()
    by: Sequence[str] = ()
    failures: str | None = None
    duration: str | None = None
    repeats: Repeats = "mean"
    missing: Missing = "free"


def read_tasks(
    files: Sequence[Path], request: Request, say: Callable[[str], None] = lambda line: None
) -> list[TableTask]:
    """The tasks in the files that have a configuration which keeps all limits.

    ``say`` is told of what was guessed and what was left out. Raises ``ExperimentError`` with
    everything that is wrong.
    """
    tables = _tables(files, request)
    columns = shared_columns(tables)
    faults = Faults()
    objective = faults.attempt(lambda: read_objective(request.objective, columns, say))
    roles = faults.attempt(
        lambda: find_roles(columns, request.failures, request.duration, request.by)
    )
    if request.space is not None:
        text = request.space
        spaces = faults.attempt(lambda: read_space(text, tables, say))
    elif objective is not None and roles is not None:
        used = {*metrics_of(objective), *roles.columns()}
        spaces = faults.attempt(lambda: guess_space(tables, used, say))
    faults.check()
    assert objective and roles and spaces
    _say_more(objective, roles, say)
    tasks = _make_tasks(tables, objective, roles, spaces, request)
    for table, task in zip(tables, tasks, strict=True):
        _doubt_repeats(table, task, roles, say)
    return _worth_searching(tasks, say)


def _tables(files: Sequence[Path], request: Request) -> list[Table]:
    faults = Faults()
    read = [faults.attempt(partial(read_table, file)) for file in files]
    faults.check()
    tables = [table.where(request.where).split(request.by) for table in read if table is not None]
    return [part for parts in tables for part in parts]


def _make_tasks(
    tables: Sequence[Table],
    objective: Objective,
    roles: Roles,
    spaces: MakeSpace,
    request: Request,
) -> list[TableTask]:
    faults = Faults()
    tasks = []
    for table in tables:

        def make(table: Table = table) -> TableTask:
            space: Space = spaces(table)
            overlap = set(space.names) & set(metrics_of(objective))
            if overlap:
                both = ", ".join(sorted(overlap))
                raise fault("--space", f"{both}: is in the objective, so it cannot be searched")
            return make_task(
                table,
                space,
                objective,
                roles,
                repeats=request.repeats,
                snap=request.missing == "nearest",
            )

        task = faults.attempt(make)
        tasks += [task] if task is not None else []
    faults.check()
    return tasks


def _say_more(objective: Objective, roles: Roles, say: Callable[[str], None]) -> None:
    aims = objective.goal().objectives
    if len(aims) > 1:
        say(f"several objectives: points are judged by the first, {aims[0][0]}")
    if roles.failures is not None:
        say(f"column {roles.failures!r} says which rows failed; --failures none to ignore it")
    if roles.duration is not None:
        say(f"column {roles.duration!r} is the time of a trial; --duration none to ignore it")


def _doubt_repeats(table: Table, task: TableTask, roles: Roles, say: Callable[[str], None]) -> None:
    """Say when rows of one configuration differ in what looks like another parameter."""
    others = [
        column
        for column in table.columns
        if column not in {*task.space.names, *metrics_of(task.objective), *roles.columns()}
        and looks_chosen(column, table.column(column))
    ]
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(str(point_of(task.space, row.cells)), []).append(row)
    differ = [
        column
        for column in others
        if any(len({row.cells[column] for row in rows}) > 1 for rows in groups.values())
    ]
    if differ:
        say(
            f"{task.name}: {len(table.rows)} rows are {len(groups)} configurations, but rows of "
            f"one differ in {', '.join(differ)}; if these are no repetitions, put it into --space, "
            "choose one value with --where, or split by it with --by"
        )


def _worth_searching(tasks: Sequence[TableTask], say: Callable[[str], None]) -> list[TableTask]:
    good, reasons = [], []
    for task in tasks:
        if task.best is None:
            reasons.append(why_infeasible(task))
        elif len(task.configurations) < 2:
            reasons.append(f"{task.name} has one configuration; there is nothing to search")
        else:
            good.append(task)
    if not good:
        raise fault("tasks", *reasons[:5])
    for reason in reasons:
        say(f"left out: {reason}")
    return good
