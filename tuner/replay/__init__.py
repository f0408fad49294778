"""Strategies against recorded measurements, on a virtual clock."""

from tuner.replay._faults import Faults, fault
from tuner.replay._objective import read_objective
from tuner.replay._recording import Roles, find_roles, make_task
from tuner.replay._replay import Case, Runs, Settings, replay
from tuner.replay._report import as_table, report
from tuner.replay._simulation import Evaluation, Missing, NeverRecorded, Run, World, simulate
from tuner.replay._space import Part, guess_space, make_space, read_space
from tuner.replay._strategies import Contender, check_contenders, read_contenders
from tuner.replay._table import Table, read_table
from tuner.replay._task import TableTask, why_infeasible
from tuner.replay._tasks import Request, read_tasks

__all__ = [
    "Case",
    "Contender",
    "Evaluation",
    "Faults",
    "Missing",
    "NeverRecorded",
    "Part",
    "Request",
    "Roles",
    "Run",
    "Runs",
    "Settings",
    "Table",
    "TableTask",
    "World",
    "as_table",
    "check_contenders",
    "fault",
    "find_roles",
    "guess_space",
    "make_space",
    "make_task",
    "read_contenders",
    "read_objective",
    "read_space",
    "read_table",
    "read_tasks",
    "replay",
    "report",
    "simulate",
    "why_infeasible",
]
