"""A strategy's search on a virtual clock: no Ray, no trial, no waiting."""

from __future__ import annotations

import heapq
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from searchers import Done, Goal, Json, Outcome, Proposal, Space, Strategy

Missing: TypeAlias = Literal["free", "count", "fail", "nearest"]
"""What becomes of a proposal that was never recorded; see :func:`simulate`."""

FREE_MISSES = 50
"""Proposals without a record that are free, for each evaluation of the budget, and 1000 more."""

_UNRECORDED = Outcome("failed", error="this point was never recorded")


@dataclass(frozen=True)
class Evaluation:
    """One trial of a point, as recorded.

    Attributes:
        outcome: What the strategy is told.
        duration: How long it takes on the virtual clock.
        truth: The objective of the point, to be maximised, by all that is known of it; None when
            it does not satisfy or cannot be measured. Where repeats differ it may be another than
            the one told.
    """

    outcome: Outcome
    duration: float
    truth: float | None


class World(Protocol):
    """What answers the proposals: a recorded table, or a formula."""

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> Space: ...

    @property
    def goal(self) -> Goal: ...

    def evaluate(self, point: Mapping[str, Json], chance: random.Random) -> Evaluation | None:
        """The trial of a point, whatever is left to chance drawn from ``chance``; None when the
        point was never recorded."""

    def summary(self) -> Mapping[str, Json]:
        """What readers of results should know: at least ``best`` (the ``objective`` of the best
        satisfying point, to be maximised), ``scale`` (what a regret of 100 % is), and
        ``configurations`` (how many points there are; None: too many to say)."""

    def near(self, enough: float) -> int | None:
        """How many points have at least that truth; None: too many to say."""


class NeverRecorded(Exception):
    """A strategy proposed a point without a record, and such points are not allowed."""


@dataclass
class Run:
    """What a search did.

    Attributes:
        truths: For every counted evaluation, in the order they ended, the point's truth.
        times: When each ended, on the virtual clock.
        best: The point with the greatest truth so far, and that truth.
        asked: Proposals of the strategy, those without a record included.
        duplicates: Proposals of a point that had been proposed before.
        unrecorded: Proposals without a record.
        ended: Why it ended: ``budget``, ``done`` (the strategy had no more to propose), ``found``
            (asked to stop there), ``unrecorded`` (too many proposals without a record) or
            ``stuck`` (the strategy waits for nothing).
        cpu: Processor seconds spent in the strategy.
    """

    truths: list[float | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    best: tuple[float, Mapping[str, Json]] | None = None
    asked: int = 0
    duplicates: int = 0
    unrecorded: int = 0
    ended: str = "budget"
    cpu: float = 0.0


def simulate(
    world: World,
    strategy: Strategy,
    *,
    budget: int,
    workers: int = 1,
    seed: int = 0,
    missing: Missing = "free",
    enough: float | None = None,
) -> Run:
    """Run a fresh strategy until it is done or ``budget`` evaluations have ended.

    As in a real run, up to ``workers`` trials are in flight, and a strategy learns of each when it
    ends. What chance decides about the n-th trial of a point depends on the seed, the point and n
    only, so every strategy meets the same luck.

    A proposal without a record is told as failed. ``free``: at once, and not counted, at most
    :data:`FREE_MISSES` times the budget; ``count``: like a trial that fails; ``fail``: raises
    :class:`NeverRecorded`. (``nearest`` is the world's own affair: it then has no such points.)

    ``enough`` ends the run as soon as a point of at least that truth was evaluated.
    """
    strategy.width, strategy.goal = workers, world.goal
    return _Simulation(world, strategy, budget, seed, missing, enough).run()


class _Simulation:
    def __init__(
        self,
        world: World,
        strategy: Strategy,
        budget: int,
        seed: int,
        missing: Missing,
        enough: float | None,
    ) -> None:
        self._world, self._strategy = world, strategy
        self._budget, self._seed, self._missing, self._enough = budget, seed, missing, enough
        self._now = 0.0
        self._started = 0
        self._ends: list[tuple[float, int]] = []
        self._flying: dict[int, tuple[Proposal, Evaluation]] = {}
        self._times_asked: dict[str, int] = {}
        self._run = Run()

    def run(self) -> Run:
        while True:
            self._fill()
            if self._run.ended == "unrecorded" or not self._flying:
                return self._run
            self._land()
            if self._found():
                self._run.ended = "found"
                return self._run
            self._cancel_obsolete()

    def _fill(self) -> None:
        """Start what can be started."""
        run = self._run
        run.ended = "budget"
        while len(self._flying) < self._strategy.width and self._started < self._budget:
            begun = time.process_time()
            step = self._strategy.ask()
            run.cpu += time.process_time() - begun
            if not isinstance(step, Proposal):
                run.ended = "done" if isinstance(step, Done) else "stuck"
                return
            self._start(step)
            if run.unrecorded > FREE_MISSES * self._budget + 1000:
                run.ended = "unrecorded"
                return

    def _start(self, proposal: Proposal) -> None:
        point = json.dumps(proposal.parameters, sort_keys=True)
        before = self._times_asked.get(point, 0)
        self._times_asked[point] = before + 1
        self._run.asked += 1
        self._run.duplicates += before > 0
        chance = random.Random(f"{self._seed}/{point}/{before}")
        evaluation = self._world.evaluate(proposal.parameters, chance)
        if evaluation is None:
            self._run.unrecorded += 1
            if self._missing == "fail":
                raise NeverRecorded(f"{point} was proposed, but there is no record of it")
            if self._missing != "count":
                self._tell(proposal, _UNRECORDED)
                return
            evaluation = Evaluation(_UNRECORDED, chance.uniform(0.9, 1.1), None)
        if proposal.kind != "candidate":
            outcome = Outcome("measured", evaluation.outcome.metrics)
            unjudged = outcome if evaluation.outcome.status == "measured" else evaluation.outcome
            evaluation = Evaluation(unjudged, evaluation.duration, None)
        self._started += 1
        self._flying[proposal.number] = (proposal, evaluation)
        heapq.heappush(self._ends, (self._now + evaluation.duration, proposal.number))

    def _land(self) -> None:
        """End the trial that ends next."""
        while True:
            end, number = heapq.heappop(self._ends)
            if number in self._flying:
                break
        self._now = end
        proposal, evaluation = self._flying.pop(number)
        truth, run = evaluation.truth, self._run
        run.truths.append(truth)
        run.times.append(end)
        if truth is not None and (run.best is None or truth > run.best[0]):
            run.best = (truth, proposal.parameters)
        self._tell(proposal, evaluation.outcome)

    def _tell(self, proposal: Proposal, outcome: Outcome) -> None:
        begun = time.process_time()
        self._strategy.tell(proposal, outcome)
        self._run.cpu += time.process_time() - begun

    def _found(self) -> bool:
        best = self._run.best
        return self._enough is not None and best is not None and best[0] >= self._enough

    def _cancel_obsolete(self) -> None:
        """Stop what the strategy needs no more; it counts, as the time it took is spent."""
        for number in sorted(self._strategy.obsolete() & self._flying.keys()):
            proposal, _ = self._flying.pop(number)
            self._run.truths.append(None)
            self._run.times.append(self._now)
            self._tell(proposal, Outcome("cancelled"))
