"""Steps that use instances, which are watched meanwhile."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from trainables._trial import Progress, TrialFailure, TrialRun
from trainables.disaggregated._fleet import Fleet
from trainables.disaggregated._front import Front
from trainables.serving._course import Answer, Course

R = TypeVar("R")
_LAST_WORDS_S = 10.0
"""How long the end of an engine may take to be seen that others suffer from already."""


@contextmanager
def timed(trial: TrialRun, stage: str) -> Iterator[None]:
    """A stage of the trial; how long it took is recorded when it has succeeded."""
    begun = time.monotonic()
    yield
    seconds = round(time.monotonic() - begun, 3)
    trial.stages.append({"name": stage, "seconds": seconds, "resumed": False})


def supervised(
    steps: Generator[Progress, None, R], fleet: Fleet, front: Front | None = None
) -> Generator[Progress, None, R]:
    """Run ``steps`` and return their result.

    Raises ``TrialFailure`` when an instance or the router ends meanwhile, after closing ``steps``.
    Where ``steps`` fail and an instance or the router is the reason, that is what is raised.
    """
    stage = "deploy"
    try:
        while True:
            fleet.watch(stage)
            if front is not None:
                front.check(stage)
            try:
                progress = next(steps)
            except StopIteration as end:
                result: R = end.value
                return result
            except Exception as failure:
                stage = getattr(failure, "stage", stage)
                try:
                    yield from fleet.confirm(_LAST_WORDS_S)
                    if front is not None:
                        front.check(stage)
                except TrialFailure as reason:
                    raise reason from failure
                raise
            stage = progress.stage
            yield progress
    finally:
        steps.close()


def undisturbed(
    course: Course, fleet: Fleet, front: Front, served_name: str, earlier: str
) -> Generator[Progress, None, Answer]:
    """The runs of the benchmark, through the router, after the stage ``earlier``.

    Raises ``TrialFailure`` when the split does not answer any more after them, or when requests
    failed because the router did not reach instances: that says nothing about the split.
    """
    before = yield from supervised(front.broken_connections(earlier), fleet, front)
    answer = yield from supervised(course.steps(), fleet, front)
    stage = str(course.runs[-1]["stage"]) if course.runs else earlier
    yield from supervised(front.still_answers(served_name, stage), fleet, front)
    broken = (yield from supervised(front.broken_connections(stage), fleet, front)) - before
    if broken:
        nodes = fleet.nodes
        counts = ", ".join(f"{n} to {name} on {nodes[name]}" for name, n in broken.items())
        raise TrialFailure(
            "network",
            stage,
            f"connections from the router broke while all lived: {counts}",
            suggestion="look at the network between these nodes",
        )
    return answer
