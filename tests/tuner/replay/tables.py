"""Small tables written by hand, and strategies that ask what a test says."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from searchers import WAIT, Done, Json, Outcome, Proposal, Strategy, Wait
from tuner.replay import Request, TableTask, read_tasks

SWEEP = """
    tp,load,engine,throughput,ttft
    1,1,a,10,0.1
    1,8,a,60,0.5
    2,1,a,15,0.1
    2,8,a,100,0.9
    1,1,b,12,0.2
    1,8,b,97,0.8
    2,1,b,20,0.1
    2,8,b,150,3.0
"""
"""A full grid of eight. Of those with ttft <= 1 the best has 100; 97 is within 5 % of it."""


def write(folder: Path, text: str, name: str = "sweep.csv") -> Path:
    file = folder / name
    file.write_text(textwrap.dedent(text).lstrip())
    return file


def task(
    folder: Path, text: str = SWEEP, objective: str = "max throughput, ttft <= 1", **changes: Any
) -> TableTask:
    """The one task of a table."""
    request = Request(objective, **{"space": "tp,load,engine", **changes})
    (found,) = read_tasks([write(folder, text)], request)
    return found


class Scripted(Strategy):
    """Asks for the given points in order, and remembers what it was told."""

    def __init__(self, points: Sequence[Mapping[str, Json]]) -> None:
        self._points = list(points)
        self._asked = 0
        self.told: list[tuple[int, Outcome]] = []

    def ask(self) -> Proposal | Wait | Done:
        if self._asked < len(self._points):
            self._asked += 1
            return Proposal(self._asked - 1, self._points[self._asked - 1])
        return WAIT if len(self.told) < self._asked else Done("exhausted", None, "all asked")

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        self.told.append((proposal.number, outcome))

    def state(self) -> dict[str, Json]:
        return {}

    def restore(self, state: Mapping[str, Json]) -> None:
        raise NotImplementedError

    def best(self) -> Proposal | None:
        return None


def point(tp: int, load: int, engine: str) -> dict[str, Json]:
    return {"tp": tp, "load": load, "engine": engine}
