"""Every strategy on every task with every seed, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import NamedTuple, TypeAlias

from tuner.replay._simulation import Missing, Run, World, simulate
from tuner.replay._strategies import Contender, expected_asks


@dataclass(frozen=True)
class Settings:
    """How strategies are replayed.

    Attributes:
        budget: Evaluations of a run; None: as many as the task has configurations.
        seeds: Runs of each strategy on each task.
        workers: Trials at once; each is a replay of its own.
        within: A run has found it when it is within this many percent of the best.
        missing: What becomes of proposals that were never recorded.
        until_found: Whether a run ends as soon as it has found it.
    """

    budget: int | None = None
    seeds: int = 20
    workers: tuple[int, ...] = (1,)
    within: float = 5.0
    missing: Missing = "free"
    until_found: bool = False

    def budget_of(self, world: World) -> int:
        known = world.summary()["configurations"]
        if self.budget is None and known is None:
            raise ValueError(f"{world.name} has no table to take the budget from; give a budget")
        return int(self.budget if self.budget is not None else known)

    def enough(self, world: World) -> float:
        """The least truth that is within the wanted share of the best."""
        summary = world.summary()
        best = float(summary["best"]["objective"])
        return best - float(summary["scale"]) * self.within / 100


def seed_of(world: World, run: int) -> int:
    """The strategy's seed of a numbered run. Another one for each task: with the same one, searches
    of alike tasks would be one search many times, and look more certain than they are."""
    return random.Random(f"{run}/{world.name}").getrandbits(31)


class Case(NamedTuple):
    """What is summed up together: the runs that differ by their seed only."""

    contender: int
    world: int
    workers: int


Runs: TypeAlias = dict[Case, list[Run]]


def replay(
    worlds: Sequence[World],
    contenders: Sequence[Contender],
    settings: Settings,
    *,
    processes: int = 1,
    ended: Callable[[Case], None] = lambda case: None,
) -> Runs:
    """The runs of every case, by seed. ``ended`` is told of each case, in order.

    They are the same for any number of processes. Raises ``NeverRecorded`` where ``missing`` is
    ``fail``, and whatever a strategy raises, with a note of where it did.
    """
    cases = [
        Case(contender, world, workers)
        for contender in range(len(contenders))
        for workers in settings.workers
        for world in range(len(worlds))
    ]
    stage = _Stage(worlds, contenders, settings)
    runs: Runs = {}
    with _mapping(stage, processes) as carry_out:
        jobs = [(case, seed) for case in cases for seed in range(settings.seeds)]
        results = carry_out(jobs)
        for case in cases:
            runs[case] = [next(results) for _ in range(settings.seeds)]
            ended(case)
    return runs


class _Stage:
    """What all runs have in common."""

    def __init__(
        self, worlds: Sequence[World], contenders: Sequence[Contender], settings: Settings
    ) -> None:
        self._worlds, self._contenders, self._settings = worlds, contenders, settings

    def __call__(self, job: tuple[Case, int]) -> Run:
        case, seed = job
        world, contender = self._worlds[case.world], self._contenders[case.contender]
        settings = self._settings
        budget, known = settings.budget_of(world), world.summary()["configurations"]
        free = settings.missing == "free"
        asks = expected_asks(budget, world.space.size(), known, free=free)
        try:
            return simulate(
                world,
                contender.strategy(world.space, seed=seed_of(world, seed), trials=asks),
                budget=budget,
                workers=case.workers,
                seed=seed,
                missing=settings.missing,
                enough=settings.enough(world) if settings.until_found else None,
            )
        except Exception as error:
            error.add_note(f"in {contender.label} on {world.name}, seed {seed}")
            raise


_Job: TypeAlias = tuple[Case, int]
_stage: _Stage | None = None


@contextmanager
def _mapping(stage: _Stage, processes: int) -> Iterator[Callable[[Sequence[_Job]], Iterator[Run]]]:
    if processes == 1:
        yield lambda jobs: map(stage, jobs)
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _prepare, (stage,))
    try:
        yield lambda jobs: pool.map(_carry_out, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(stage: _Stage) -> None:
    """Set up a process of the pool, which ends when the one that started it does."""
    global _stage
    _stage = stage
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _carry_out(job: _Job) -> Run:
    assert _stage is not None
    return _stage(job)
