"""``auto`` with a simulator to believe: the contract, and what right and wrong ones are worth."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import pytest

from searchers import Json, Outcome, Proposal, Space, Strategy, make_strategy
from searchers.testing import Weather, check_strategy, travel
from tests.searchers.test_auto import (
    ENDLESS,
    GOAL,
    SERVING,
    SMALL,
    auto,
    best_of,
    judged,
    measure,
    needed,
    serve,
)

Said = Sequence[tuple[Mapping[str, Json], Mapping[str, float]]]


def simulated(space: Space, every: int = 1, off: float = 1.0) -> Said:
    """A simulator that is right but for a factor on all times."""
    return [
        (point, {name: v / off if name == "tput" else v * off for name, v in serve(point).items()})
        for point in list(space.grid())[::every]
    ]


def scrambled(seed: int) -> Said:
    points = list(SERVING.grid())
    said = [serve(point) for point in points]
    random.Random(seed).shuffle(said)
    return list(zip(points, said, strict=True))


def mirrored() -> Said:
    """The best seems the worst, in every metric."""
    said = simulated(SERVING)
    ends = {
        name: min(m[name] for _, m in said) * max(m[name] for _, m in said) for name in said[0][1]
    }
    return [(point, {name: ends[name] / v for name, v in m.items()}) for point, m in said]


def believing(
    said: Said, space: Space = SERVING, seed: int = 0, **options: Json
) -> Callable[[], Strategy]:
    def make() -> Strategy:
        strategy = auto(space, seed=seed, **options)()
        strategy.believe(said)
        return strategy

    return make


def after(strategy: Strategy, trials: int) -> float:
    """What the belief counts for after so many trials."""
    for _ in range(trials):
        proposal = strategy.ask()
        assert isinstance(proposal, Proposal)
        strategy.tell(proposal, measure(proposal))
    trust = strategy.trust()
    assert trust is not None
    return trust


def test_the_contract_is_kept_by_those_who_believe() -> None:
    check_strategy(
        believing([*simulated(SMALL, 2), (list(SMALL.grid())[1], {})], SMALL),
        measure,
        inside=lambda proposal: SMALL.contains(proposal.parameters),
        widths=(1, 3),
        seeds=range(1),
    )


def test_a_search_that_believes_is_resumed_exactly_in_an_endless_space() -> None:
    chance = random.Random(4)
    points = [ENDLESS.decode([chance.random() for _ in range(3)]) for _ in range(12)]
    make = believing([(point, serve(point)) for point in points], ENDLESS, trials=7)
    calm = travel(make, measure, Weather(widths=(3,)))
    assert travel(make, measure, Weather(widths=(3,), restarts=True)) == calm


def test_what_is_believed_is_part_of_the_state() -> None:
    original = believing(simulated(SERVING, 3))()
    twin = auto(SERVING)()
    twin.restore(original.state())
    assert twin.state() == original.state()
    assert twin.ask() == original.ask()


@pytest.mark.parametrize("off", [1.0, 3.0])
def test_a_right_simulator_leaves_little_to_measure(off: float) -> None:
    assert needed(believing(simulated(SERVING, off=off))(), measure, 0.95 * best_of(SERVING)) <= 3


def test_half_the_space_simulated_guides_through_the_rest() -> None:
    found = needed(believing(simulated(SERVING, 2))(), measure, 0.95 * best_of(SERVING))
    assert found <= 3


@pytest.mark.parametrize("seed", range(3))
def test_a_useless_simulator_costs_little(seed: int) -> None:
    strategy = believing(scrambled(seed), seed=seed)()
    assert needed(strategy, measure, 0.95 * best_of(SERVING)) <= 10
    assert after(believing(scrambled(seed), seed=seed)(), 8) < 0.2


def test_a_simulator_that_is_the_wrong_way_round_costs_little() -> None:
    assert needed(believing(mirrored())(), measure, 0.95 * best_of(SERVING)) <= 10
    assert after(believing(mirrored())(), 8) < 0.2


def test_measurements_make_a_right_simulator_count_for_more() -> None:
    before, later = (
        after(believing(simulated(SERVING))(), 0),
        after(believing(simulated(SERVING))(), 8),
    )
    assert later > before > 0.5


def test_nothing_told_is_nothing_believed() -> None:
    assert auto(SERVING)().trust() is None
    elsewhere = believing([({"engine": "vllm"}, {"tput": 1.0})])()
    assert elsewhere.trust() is None
    assert elsewhere.ask() == auto(SERVING)().ask()
    of_no_use = believing([(point, {"power": 1.0}) for point in SERVING.grid()])()
    assert of_no_use.ask() == auto(SERVING)().ask()


def test_what_a_simulator_cannot_start_is_hardly_tried() -> None:
    def fails(point: Mapping[str, Json]) -> bool:
        return bool(point["tensor_parallel_size"] == 8)

    said = [(point, {} if fails(point) else metrics) for point, metrics in simulated(SERVING)]
    best = max(
        outcome.objective or 0
        for point in SERVING.grid()
        if not fails(point) and (outcome := judged(serve(point))).satisfied
    )
    tried = []

    def answer(proposal: Proposal) -> Outcome:
        tried.append(fails(proposal.parameters))
        return Outcome("failed", error="out of memory") if tried[-1] else measure(proposal)

    assert needed(believing(said)(), answer, 0.95 * best) <= 5
    assert not tried[0]
    assert sum(tried) <= 1


def test_a_proposal_says_what_was_simulated() -> None:
    proposal = believing(simulated(SERVING))().ask()
    assert isinstance(proposal, Proposal)
    expected = serve(proposal.parameters)["tput"]
    assert f"simulated tput {expected:.4g}, weight 0." in proposal.why
    assert judged(serve(proposal.parameters)).satisfied


def test_other_strategies_believe_nothing() -> None:
    strategy = make_strategy("random", {"trials": 3}, space=SERVING, seed=0, goal=GOAL)
    strategy.believe(simulated(SERVING))
    assert strategy.trust() is None
