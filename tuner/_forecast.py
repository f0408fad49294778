"""What a simulator expects of points of the space, played before the first one is measured.

The points lie scattered at first; then the same strategy that will search for real searches the
simulator, so that most of them lie where it says that it is good. A search for a split of prefill
and decode is told of one instance of each shape in each role. Every point stays in the run's
``prior.jsonl``: a resumed run plays none again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from searchers import Json, Outcome, Proposal, Space, Strategy, make_strategy
from trainables import TrialFailure
from tuner._judge import BaselineMissing, judge
from tuner._terminal import Say
from tuner.experiment import SPLITS, Experiment, Objective, format_duration

Metrics: TypeAlias = Mapping[str, float]
Play: TypeAlias = Callable[[Mapping[str, Json]], Metrics | None]
"""The metrics that are expected of a point, empty where it would not start; None: nothing is known
of it."""

_FILE = "prior.jsonl"
_SAY_SECONDS = 15.0
_FEW = 8
"""Points that are scattered at least."""


@dataclass(frozen=True)
class Forecast:
    """Points that a simulator played.

    Attributes:
        points: Parameters, and the metrics that are expected; none where it would not start.
        notes: What could not be simulated and why, for the user.
    """

    points: Sequence[tuple[Mapping[str, Json], Metrics]] = ()
    notes: tuple[str, ...] = field(default=())

    def tell(self, strategy: Strategy) -> Strategy:
        """The strategy, which believes all of it."""
        if self.points:
            strategy.believe(self.points)
        return strategy

    def of(self, parameters: Mapping[str, Json]) -> Metrics | None:
        """What is expected of a point; None where it was not played, or would not start."""
        wanted = dict(parameters)
        return next((said for point, said in self.points if said and dict(point) == wanted), None)


class TimeOver(Exception):
    """No more points are to be played."""


def sample(
    space: Space,
    objective: Objective,
    play: Play,
    *,
    trials: int,
    seed: int = 0,
    baseline: Mapping[str, Json] | None = None,
) -> Iterator[tuple[Mapping[str, Json], Metrics]]:
    """Points that a simulator plays, the scattered ones first, each with what it expects.

    Deterministic, as far as ``play`` is. Where the objective is relative to the ``baseline``, that
    is played before all others.
    """
    relative = baseline is not None and objective.needs_baseline
    against = play(baseline) if baseline is not None and relative else None
    scattered = max(trials // 2, min(trials, _FEW))
    first = _points(make_strategy("random", {"trials": scattered}, space=space, seed=seed))
    options = {"trials": trials, "start": [dict(point) for point in first]}
    strategy = make_strategy("auto", options, space=space, seed=seed, goal=objective.goal())
    while isinstance(proposal := strategy.ask(), Proposal):
        said = play(proposal.parameters)
        outcome = _outcome(said, objective, against)
        strategy.tell(proposal, outcome)
        if said is not None:
            yield proposal.parameters, outcome.metrics


def alone(
    strategy: Strategy,
    objective: Objective,
    play: Callable[[Mapping[str, Json], str], Metrics | None],
    *,
    trials: int,
) -> Iterator[tuple[Mapping[str, Json], Metrics]]:
    """What is expected of one instance of each shape in each role, its parameters tuned as the
    search for a split would tune them for real.

    Args:
        strategy: A fresh search for a split.
        play: Told the parameters and the kind of the trial.
        trials: Played at most.
    """
    for _ in range(trials):
        proposal = strategy.ask()
        if not isinstance(proposal, Proposal) or "role" not in proposal.labels:
            return
        said = play(proposal.parameters, proposal.kind)
        strategy.tell(proposal, _outcome(said, objective, None))
        if said is not None:
            yield proposal.parameters, said


def forecast(
    experiment: Experiment, folder: Path, say: Say, tick: Callable[[], None] = lambda: None
) -> Forecast:
    """Play what ``search.prior`` asks for, or read it where it was played before.

    What cannot be simulated is a note, never an error: a search without it is still a search.
    """
    search, prior = experiment.search, experiment.search.prior
    if prior is None or (search.space is None and search.type != SPLITS):
        return Forecast()
    simulator = prior.simulator
    try:
        twin = simulator.twin(search.type, experiment.trial, search.space)
        limits = [simulator.trials, simulator.time]
        book = _Book(folder / _FILE, _digest(twin.identity(), search.space), limits)
    except (TrialFailure, OSError, ValueError, ImportError) as error:
        return Forecast(notes=(f"search.prior: nothing is simulated: {error}",))
    clock = _Clock(simulator.time, simulator.trials, say, tick)

    def play(parameters: Mapping[str, Json], kind: str = "baseline") -> Metrics | None:
        clock.begin(len(book.played))
        if (known := book.find(parameters)) is not None:
            return known.get("metrics")
        if book.complete or not clock.goes_on():
            raise TimeOver
        try:
            said = twin.play(parameters, folder / "prior", goes_on=clock.goes_on, kind=kind)
            if said is None:
                raise TimeOver
        except TrialFailure as failure:
            reason = f"{failure}. {failure.suggestion}".strip(". ")
            book.add(parameters, {"cannot": reason})
            return None
        book.add(parameters, {"metrics": dict(said)})
        return said

    points = list(_until_over(_points_of(experiment, play, simulator.trials), clock))
    book.end()
    say(clock.summary(len(points)))
    return Forecast(points, tuple(book.notes()))


def _points_of(
    experiment: Experiment, play: Callable[..., Metrics | None], trials: int
) -> Iterator[tuple[Mapping[str, Json], Metrics]]:
    search, objective = experiment.search, experiment.objective
    if search.type == SPLITS:
        return alone(search.strategy(goal=objective.goal()), objective, play, trials=trials)
    assert search.space is not None
    baseline = experiment.trial.baseline()
    return sample(search.space, objective, play, trials=trials, baseline=baseline)


def _until_over(
    points: Iterator[tuple[Mapping[str, Json], Metrics]], clock: _Clock
) -> Iterator[tuple[Mapping[str, Json], Metrics]]:
    try:
        yield from points
    except TimeOver:
        clock.over = True


class _Clock:
    """The time that simulations may take, and what is said of it."""

    def __init__(self, limit: float, trials: int, say: Say, tick: Callable[[], None]) -> None:
        self.over = False
        self._begun = self._said = time.monotonic()
        self._limit, self._trials = limit, trials
        self._say, self._tick = say, tick

    def goes_on(self) -> bool:
        self._tick()
        return time.monotonic() - self._begun < self._limit

    def begin(self, played: int) -> None:
        """The next point is about to be played."""
        now = time.monotonic()
        if played == 0 or now - self._said > _SAY_SECONDS:
            self._said = now
            self._say(f"simulating: {played} of at most {self._trials} points")

    def summary(self, points: int) -> str:
        took = format_duration(time.monotonic() - self._begun)
        ended = f", ended by its time limit of {format_duration(self._limit)}" if self.over else ""
        return f"simulated {points} points in {took}{ended}"


class _Book:
    """``prior.jsonl``: a line that says what was simulated, one for each point, and a last one.

    What another simulator expected is overwritten. ``complete``: so many points, or so much time,
    were asked for before, so that no more are played, however fast the machine is today.
    """

    def __init__(self, file: Path, digest: str, limits: list[float]) -> None:
        self.played: dict[str, dict[str, Any]] = {}
        self.complete = False
        lines = _lines(file)
        known = bool(lines) and lines[0].get("simulator") == digest
        for line in lines if known else ():
            self.complete |= line.get("complete") == limits
            if "parameters" in line:
                self.played[_key(line["parameters"])] = line
        self._file, self._limits = file, limits
        if not self.complete:
            file.write_text("", encoding="utf-8")
            for line in [{"simulator": digest}, *self.played.values()]:
                self._write(line)

    def find(self, parameters: Mapping[str, Json]) -> dict[str, Any] | None:
        return self.played.get(_key(parameters))

    def add(self, parameters: Mapping[str, Json], found: dict[str, Any]) -> None:
        line = {"parameters": dict(parameters), **found}
        self.played[_key(parameters)] = line
        self._write(line)

    def end(self) -> None:
        """All that was asked for is there."""
        if not self.complete:
            self._write({"complete": self._limits})

    def notes(self) -> list[str]:
        """Why points could not be simulated."""
        reasons = Counter(line["cannot"] for line in self.played.values() if "cannot" in line)
        return [
            f"search.prior: {count} points could not be simulated: {said}"
            for said, count in reasons.items()
        ]

    def _write(self, line: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; a driver that was killed may have left half of one."""
    found = []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    for line in text.splitlines():
        try:
            item = json.loads(line)
        except ValueError:
            continue
        if isinstance(item, dict):
            found.append(item)
    return found


def _key(parameters: Mapping[str, Json]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _digest(identity: Json, space: Space | None) -> str:
    document = [identity, None if space is None else space.model_dump(mode="json")]
    return sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def _points(strategy: Strategy) -> list[Mapping[str, Json]]:
    """All points of a strategy that does not look at outcomes."""
    found = []
    while isinstance(proposal := strategy.ask(), Proposal):
        found.append(proposal.parameters)
        strategy.tell(proposal, Outcome("failed"))
    return found


def _outcome(metrics: Metrics | None, objective: Objective, baseline: Metrics | None) -> Outcome:
    if not metrics:
        return Outcome("failed", error="it would not start")
    try:
        verdict = judge(objective, metrics, baseline)
    except BaselineMissing:
        return Outcome("measured", metrics)
    known = {**metrics, **verdict.derived}
    return Outcome("measured", known, {}, verdict.satisfied, verdict.objective)
