"""The conformance suite catches strategies that break the contract, each for its own reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from searchers import (
    WAIT,
    Done,
    GridSearch,
    Json,
    Outcome,
    Proposal,
    Space,
    Strategy,
    Wait,
    strategy_options,
)
from searchers.testing import ContractViolation, Weather, check_strategy, travel

SPACE = Space.model_validate({"x": {"type": "int", "low": 1, "high": 6}})
Step = Proposal | Wait | Done


def measure(proposal: Proposal) -> Outcome:
    return Outcome("measured", satisfied=proposal.parameters["x"] < 5, objective=1.0)


class Sound(GridSearch):
    def __init__(self) -> None:
        super().__init__(strategy_options("grid")(), space=SPACE, seed=0)


class Repeats(Sound):
    def ask(self) -> Step:
        step = super().ask()
        if isinstance(step, Proposal) and step.number == 3:
            return replace(step, parameters={"x": 1})
        return step


class Strays(Sound):
    def ask(self) -> Step:
        step = super().ask()
        if isinstance(step, Proposal) and step.number == 3:
            return replace(step, parameters={"x": 99})
        return step


class Misnumbers(Sound):
    def ask(self) -> Step:
        step = super().ask()
        return replace(step, number=step.number + 1) if isinstance(step, Proposal) else step


class WaitsForNothing(Sound):
    def ask(self) -> Step:
        step = super().ask()
        return WAIT if isinstance(step, Done) else step


class WaitsNoisily(Sound):
    waits = 0

    def ask(self) -> Step:
        step = super().ask()
        self.waits += step is WAIT
        return step

    def state(self) -> dict[str, Json]:
        return super().state() | {"waits": self.waits}

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self.waits = state["waits"]


class ForgetsWhatFlies(Sound):
    def restore(self, state: Mapping[str, Json]) -> None:
        flight = {**state["flight"], "proposals": []}
        super().restore({**state, "flight": flight})


class RestoresToTheStart(Sound):
    def state(self) -> dict[str, Json]:
        return {}

    def restore(self, state: Mapping[str, Json]) -> None:
        """Nothing is kept."""


class KeepsObjects(Sound):
    def state(self) -> dict[str, Json]:
        return super().state() | {"tuple": (1, 2)}


class NeverEnds(Sound):
    def ask(self) -> Step:
        step = super().ask()
        if isinstance(step, Done):
            return self._flight.launch({"x": 1})
        return step


class TakesFailureForAnAnswer(Sound):
    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.status == "failed":
            outcome = Outcome("measured", satisfied=True, objective=9.0)
        super().tell(proposal, outcome)


class TakesFailureForBad(Sound):
    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.status == "failed":
            outcome = Outcome("measured", satisfied=False)
        super().tell(proposal, outcome)


class DeliversAnything(Sound):
    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        super().tell(proposal, replace(outcome, satisfied=True))


class CountsTwice(Sound):
    heard = 0

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        super().tell(proposal, outcome)
        self.heard += 1

    def state(self) -> dict[str, Json]:
        return super().state() | {"heard": self.heard}

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self.heard = state["heard"]


class CancelsStrangers(Sound):
    def obsolete(self) -> frozenset[int]:
        return frozenset({77})


class TakesItsEndBack(Sound):
    def ask(self) -> Step:
        return Done("satisfied", self.best(), "good enough") if self.best() else super().ask()


class ForgetsItsExperience(Sound):
    heard = 0

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        super().tell(proposal, outcome)
        self.heard += 1

    def _draw(self) -> tuple[Mapping[str, Json], str] | None:
        drawn = super()._draw()
        return drawn and (drawn[0], f"knows {self.heard} points")


class EndsInSilence(Sound):
    def ask(self) -> Step:
        step = super().ask()
        return replace(step, message="") if isinstance(step, Done) else step


class Underestimates(Sound):
    def most(self) -> int:
        return 3


class ForgetsThoseInFlight(Sound):
    def remaining(self) -> int:
        return 0


def test_a_sound_strategy_passes() -> None:
    check_strategy(Sound, measure, inside=lambda each: SPACE.contains(each.parameters))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Repeats, "proposed twice"),
        (Strays, "outside the space"),
        (Misnumbers, "not numbered in the order of asking"),
        (WaitsForNothing, "WAIT with nothing in flight"),
        (WaitsNoisily, "changed its state"),
        (ForgetsWhatFlies, r"restore\(state\(\)\) changes the state"),
        (RestoresToTheStart, "proposed twice"),
        (KeepsObjects, r"state\(\) is not JSON"),
        (NeverEnds, "no end after 100 proposals"),
        (TakesFailureForAnAnswer, "was not measured good"),
        (TakesFailureForBad, "every trial failed, yet the search ended"),
        (DeliversAnything, "was not measured good"),
        (CountsTwice, r"a second tell\(\)"),
        (CancelsStrangers, "not in flight"),
        (TakesItsEndBack, "the end was taken back"),
        (ForgetsItsExperience, "a restored twin continues differently"),
        (EndsInSilence, "Done without a message"),
        (Underestimates, r"6 proposals, but most\(\) was 3"),
        (ForgetsThoseInFlight, r"remaining\(\) says 0 with 1 in flight"),
    ],
)
def test_every_defect_is_caught(broken: type[Strategy], said: str) -> None:
    def inside(proposal: Proposal) -> bool:
        return SPACE.contains(proposal.parameters)

    with pytest.raises(ContractViolation, match=said):
        check_strategy(broken, measure, inside=inside, limit=100)


def test_the_same_weather_gives_the_same_journey() -> None:
    weather = Weather(seed=5, widths=(1, 3), failing=0.2, in_time=0.5, eager=0.7)
    assert travel(Sound, measure, weather) == travel(Sound, measure, weather)
    other: Any = travel(Sound, measure, replace(weather, seed=6))
    assert other.told != travel(Sound, measure, weather).told
