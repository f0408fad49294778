"""Conformance suite of the strategy contract, for our strategies and those of third parties.

One call from a test checks everything::

    def test_my_strategy_keeps_the_contract():
        check_strategy(lambda: MyStrategy(options, space=space, seed=1), answer, inside=...)

``answer`` is the simulated world: it maps a proposal to its outcome and must not depend on
anything else. The trials are simulated too: they end in any order, fail, are cancelled in time or
too late, and the strategy is replaced by a restored twin at every step. Whatever breaks the
contract raises :class:`ContractViolation`, which says what and when.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from searchers._contract import Done, Json, Outcome, Proposal, Strategy

Make: TypeAlias = Callable[[], Strategy]
Answer: TypeAlias = Callable[[Proposal], Outcome]
Inside: TypeAlias = Callable[[Proposal], bool]

_FAILED = Outcome("failed", error="simulated infrastructure failure")
_CANCELLED = Outcome("cancelled")


class ContractViolation(AssertionError):
    """A strategy broke its contract."""


@dataclass
class Journey:
    """A search from its first proposal to its end.

    Attributes:
        asked: Proposals in the order they were handed out.
        told: What became of them, in the order it did.
        done: How it ended.
    """

    asked: list[Proposal] = field(default_factory=list)
    told: list[tuple[Proposal, Outcome]] = field(default_factory=list)
    done: Done = field(default_factory=lambda: Done("failed"))

    def measured(self) -> list[tuple[Proposal, Outcome]]:
        """The part of :attr:`told` that are facts about candidates."""
        return [
            (proposal, outcome)
            for proposal, outcome in self.told
            if outcome.status == "measured" and proposal.kind == "candidate"
        ]


@dataclass(frozen=True)
class Weather:
    """The circumstances of a simulated run.

    Attributes:
        seed: Decides the order of completion and everything else left to chance.
        widths: How many may run at once; with several, it changes at random between them.
        failing: Share of trials that fail.
        in_time: Share of obsolete trials that are stopped before they finish.
        eager: Probability that a free slot is filled before the next completion.
        restarts: Whether a twin restored from JSON takes over after every call.
    """

    seed: int = 0
    widths: Sequence[int] = (1,)
    failing: float = 0.0
    in_time: float = 1.0
    eager: float = 1.0
    restarts: bool = False


def travel(
    make: Make,
    answer: Answer,
    weather: Weather,
    *,
    inside: Inside = lambda proposal: True,
    limit: int = 10_000,
) -> Journey:
    """Run a strategy to its end in simulated weather and check the contract on the way.

    ``inside`` tells whether a proposal lies in the space; ``limit`` is the number of proposals
    after which a search counts as endless. Raises :class:`ContractViolation`.
    """
    return _Traveller(make, answer, weather, inside, limit).travel()


def check_strategy(
    make: Make,
    answer: Answer,
    *,
    inside: Inside = lambda proposal: True,
    widths: Sequence[int] = (1, 2, 3, 5),
    seeds: Iterable[int] = range(3),
    limit: int = 10_000,
) -> None:
    """Check the whole contract. ``make`` returns a fresh strategy, the same one every time."""
    seeds = list(seeds)
    for weather in _weathers(widths, seeds):
        journey = travel(make, answer, weather, inside=inside, limit=limit)
        restarted = replace(weather, restarts=True)
        again = travel(make, answer, restarted, inside=inside, limit=limit)
        _require(journey == again, f"a restored twin continues differently: {weather}")
    for width in widths:
        for seed in seeds:
            weather = Weather(seed, (width,), in_time=0.5)
            _check_all_fail(travel(make, lambda _: _FAILED, weather, inside=inside, limit=limit))
            worst = _never_satisfied(answer)
            _check_infeasible(travel(make, worst, weather, inside=inside, limit=limit))


def _weathers(widths: Sequence[int], seeds: Iterable[int]) -> Iterable[Weather]:
    for seed in seeds:
        for width in widths:
            yield Weather(seed, (width,))
            yield Weather(seed, (width,), in_time=0.0, eager=0.7)
            yield Weather(seed, (width,), failing=0.3, in_time=0.5)
        yield Weather(seed, tuple(widths), failing=0.1, in_time=0.5, eager=0.8)


def _never_satisfied(answer: Answer) -> Answer:
    def worst(proposal: Proposal) -> Outcome:
        outcome = answer(proposal)
        return replace(outcome, satisfied=False) if proposal.kind == "candidate" else outcome

    return worst


def _check_all_fail(journey: Journey) -> None:
    found = f"every trial failed, yet the search ended {journey.done}"
    _require(journey.done.verdict == "failed" and journey.done.best is None, found)


def _check_infeasible(journey: Journey) -> None:
    found = f"nothing is satisfied, yet the search ended {journey.done}"
    _require(journey.done.verdict == "exhausted" and journey.done.best is None, found)


class _Traveller:
    """A runner without trials."""

    def __init__(
        self, make: Make, answer: Answer, weather: Weather, inside: Inside, limit: int
    ) -> None:
        self._make, self._answer, self._weather = make, answer, weather
        self._inside, self._limit = inside, limit
        self._chance = random.Random(f"{weather.seed}")
        self._strategy = make()
        self._strategy.width = weather.widths[0]
        self._flying: dict[int, Proposal] = {}
        self._journey = Journey()
        self._seen: set[str] = set()

    def travel(self) -> Journey:
        most = self._strategy.most()
        while True:
            done = self._fill()
            if done is not None:
                self._journey.done = done
                break
            self._cancel_obsolete()
            if self._flying:
                number = self._chance.choice(sorted(self._flying))
                self._land(number, self._become(self._flying[number]))
            if len(self._weather.widths) > 1:
                self._strategy.width = self._chance.choice(self._weather.widths)
        self._check_end(done, most)
        return self._journey

    def _fill(self) -> Done | None:
        while len(self._flying) < self._strategy.width:
            before = self._state()
            step = self._strategy.ask()
            if isinstance(step, Proposal):
                self._check_proposal(step)
                self._flying[step.number] = step
                self._journey.asked.append(step)
                self._restart()
                if self._chance.random() > self._weather.eager:
                    return None
                continue
            _require(before == self._state(), f"ask() answered {step} and changed its state")
            if isinstance(step, Done):
                return step
            _require(bool(self._flying), "WAIT with nothing in flight: this would wait for ever")
            return None
        return None

    def _check_proposal(self, proposal: Proposal) -> None:
        key = json.dumps([proposal.kind, proposal.parameters, proposal.repeat], sort_keys=True)
        _require(key not in self._seen, f"proposed twice: {proposal}")
        self._seen.add(key)
        _require(self._inside(proposal), f"outside the space: {proposal}")
        numbered = proposal.number == len(self._journey.asked)
        _require(numbered, f"not numbered in the order of asking: {proposal}")
        document = json.loads(json.dumps(proposal.to_json(), allow_nan=False))
        _require(Proposal.from_json(document) == proposal, f"not JSON: {proposal}")
        _require(len(self._journey.asked) < self._limit, f"no end after {self._limit} proposals")

    def _become(self, proposal: Proposal) -> Outcome:
        fails = self._chance.random() < self._weather.failing
        return _FAILED if fails else self._answer(proposal)

    def _cancel_obsolete(self) -> None:
        obsolete = self._strategy.obsolete()
        strangers = obsolete - self._flying.keys()
        _require(not strangers, f"obsolete() names {strangers}, which are not in flight")
        for number in sorted(obsolete):
            if self._chance.random() < self._weather.in_time and number in self._flying:
                self._land(number, _CANCELLED)

    def _land(self, number: int, outcome: Outcome) -> None:
        proposal = self._flying.pop(number)
        self._strategy.tell(proposal, outcome)
        self._journey.told.append((proposal, outcome))
        self._restart()
        state = self._state()
        self._strategy.tell(proposal, outcome)
        self._strategy.tell(replace(proposal, number=10**9), outcome)
        _require(self._state() == state, f"a second tell() of {proposal} changed something")
        self._check_best(self._strategy.best(), "best()")
        remaining = self._strategy.remaining()
        few = remaining is not None and remaining < len(self._flying)
        _require(not few, f"remaining() says {remaining} with {len(self._flying)} in flight")

    def _check_best(self, best: Proposal | None, where: str) -> None:
        good = [
            proposal
            for proposal, outcome in self._journey.measured()
            if outcome.satisfied is not False
        ]
        _require(best is None or best in good, f"{where} was not measured good: {best}")

    def _check_end(self, done: Done, most: int | None) -> None:
        verdicts = ("satisfied", "exhausted", "failed")
        _require(done.verdict in verdicts, f"a strategy cannot end {done.verdict}")
        _require((done.verdict == "satisfied") == (done.best is not None), f"contradictory: {done}")
        _require(bool(done.message), "Done without a message")
        self._check_best(done.best, "what is delivered")
        while self._flying:
            number = self._chance.choice(sorted(self._flying))
            self._land(number, self._become(self._flying[number]))
            _require(self._strategy.ask() == done, "the end was taken back")
        failed = sum(outcome.status == "failed" for _, outcome in self._journey.told)
        asked = self._journey.asked
        plain = all(proposal.repeat == 0 for proposal in asked) and len(self._weather.widths) == 1
        if most is not None and plain:
            _require(len(asked) - failed <= most, f"{len(asked)} proposals, but most() was {most}")

    def _restart(self) -> None:
        if self._weather.restarts:
            twin = self._make()
            twin.width = self._strategy.width
            twin.restore(self._state())
            _require(twin.state() == self._strategy.state(), "restore(state()) changes the state")
            self._strategy = twin

    def _state(self) -> dict[str, Json]:
        state = self._strategy.state()
        copy: dict[str, Json] = json.loads(json.dumps(state, allow_nan=False))
        _require(copy == state, f"state() is not JSON: {state}")
        return copy


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractViolation(message)
