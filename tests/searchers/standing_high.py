"""Simulated worlds with several outlier strategies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from searchers import Done, Outcome, Proposal, Strategy, make_strategy
from searchers.testing import Answer, Journey, Weather

Truth = Callable[[int, int], bool]
"""Whether a level (second) of a strategy (first) meets the demand."""


def names(count: int) -> list[str]:
    return [f"model.layers.{index}" for index in range(count)]


def standing_high(
    strategies: int = 2, candidates: Sequence[Any] = (), width: int = 1, **options: Any
) -> Strategy:
    options["anti_outlier_strategies"] = [[{"type": f"smooth_{n}"}] for n in range(strategies)]
    options["candidates"] = list(candidates)
    return make_strategy("standing_high", options, space=None, seed=0, width=width)


def spot(proposal: Proposal) -> tuple[int, int]:
    """(strategy, level), read from the parameters."""
    kind = proposal.parameters["anti_outlier"][0]["type"]
    return int(kind.removeprefix("smooth_")), len(proposal.parameters["fallback"])


def thresholds(*needed: int) -> Truth:
    return lambda strategy, level: level >= needed[strategy]


def world(truth: Truth, layers: int = 0) -> Answer:
    ranked = [{"layers": [name], "score": 1.0} for name in names(layers)]

    def answer(proposal: Proposal) -> Outcome:
        if proposal.kind == "analysis":
            return Outcome("measured", data={"ranking": ranked})
        return Outcome("measured", satisfied=truth(*spot(proposal)))

    return answer


def spots(journey: Journey) -> list[tuple[int, int]]:
    return [spot(proposal) for proposal in journey.asked if proposal.kind == "candidate"]


def end_of(done: Done) -> int | None:
    return None if done.best is None else spot(done.best)[1]


def majorities(journey: Journey) -> dict[tuple[int, int], int]:
    """By spot, how many more measurements were satisfied than not."""
    balance: dict[tuple[int, int], int] = defaultdict(int)
    for proposal, outcome in journey.measured():
        balance[spot(proposal)] += 1 if outcome.satisfied else -1
    return balance


def ask(strategy: Strategy) -> Proposal:
    step = strategy.ask()
    assert isinstance(step, Proposal), step
    return step


def tell(strategy: Strategy, proposal: Proposal, satisfied: bool) -> None:
    strategy.tell(proposal, Outcome("measured", satisfied=satisfied))


def fail(strategy: Strategy, proposal: Proposal) -> None:
    strategy.tell(proposal, Outcome("failed", error="no adapter"))


WEATHERS = st.builds(
    Weather,
    seed=st.integers(0, 10**6),
    widths=st.integers(1, 6).map(lambda width: (width,)),
    in_time=st.sampled_from([0.0, 0.5, 1.0]),
    eager=st.sampled_from([0.5, 1.0]),
)
