"""Standing high when measurements contradict each other, or trials fail."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import Done, Outcome, Proposal, Strategy
from searchers._climb import visits
from searchers.testing import Journey, Weather, check_strategy, travel
from tests.searchers.standing_high import (
    WEATHERS,
    ask,
    end_of,
    fail,
    majorities,
    names,
    spot,
    standing_high,
    tell,
    thresholds,
    world,
)

TABLES = st.integers(1, 24).flatmap(
    lambda layers: st.lists(
        st.lists(st.booleans(), min_size=layers + 1, max_size=layers + 1), min_size=1, max_size=3
    )
)
"""By strategy and level, whether the demand is met."""


def check_delivery(journey: Journey, strategies: int) -> None:
    """What is delivered was measured good; no strategy was, with one level less or more."""
    balance = majorities(journey)
    if journey.done.best is None:
        assert journey.done.verdict == "exhausted"
        return
    _, end = found = spot(journey.done.best)
    assert balance[found] > 0
    for strategy in range(strategies):
        bad = [level for each, level in balance if each == strategy and balance[each, level] < 0]
        assert end == 0 or any(level >= end - 1 for level in bad)


@settings(deadline=None, max_examples=300)
@given(TABLES, WEATHERS)
def test_any_truth_ends_with_a_verified_locally_smallest_answer(
    tables: list[list[bool]], weather: Weather
) -> None:
    layers = len(tables[0]) - 1

    def truth(strategy: int, level: int) -> bool:
        return tables[strategy][level]

    journey = travel(partial(standing_high, len(tables), names(layers)), world(truth), weather)
    check_delivery(journey, len(tables))
    assert len(journey.asked) <= 3 * len(tables) * (layers + 1)
    *_, last = visits(layers, range(len(tables)), truth)
    if "confirmed" in journey.done.message and truth(last.strategy, last.level):
        found = end_of(journey.done)
        assert found is not None and found <= last.level


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.data(), st.floats(0.3, 5), WEATHERS)
def test_noise_is_settled_by_majority(
    layers: int, data: st.DataObject, softness: float, weather: Weather
) -> None:
    needed = data.draw(st.lists(st.integers(0, layers + 1), min_size=1, max_size=3))

    def noisy(proposal: Proposal) -> Outcome:
        strategy, level = spot(proposal)
        chance = random.Random(f"{weather.seed}/{strategy}/{level}/{proposal.repeat}")
        return Outcome("measured", satisfied=level + chance.gauss(0, softness) >= needed[strategy])

    journey = travel(partial(standing_high, len(needed), names(layers)), noisy, weather)
    check_delivery(journey, len(needed))
    measured = [spot(proposal) for proposal, _ in journey.measured()]
    assert all(measured.count(each) <= 3 for each in measured)


def contradict() -> tuple[Strategy, dict[tuple[int, int], Proposal]]:
    """Strategy 0 met the demand with a fallback of 6, not with the larger one of 12."""
    strategy = standing_high(2, names(16), width=5)
    flying = {spot(proposal): proposal for proposal in (ask(strategy) for _ in range(5))}
    assert set(flying) == {(0, 0), (0, 6), (0, 12), (1, 5), (1, 11)}
    for each in ((0, 0), (0, 12), (1, 5), (1, 11)):
        tell(strategy, flying[each], False)
    tell(strategy, flying[0, 6], True)
    return strategy, flying


def test_a_contradiction_is_said_and_both_levels_are_measured_again() -> None:
    strategy, _ = contradict()
    first, second = ask(strategy), ask(strategy)
    assert [(spot(each), each.repeat) for each in (first, second)] == [((0, 6), 1), ((0, 12), 1)]
    assert first.why == (
        "re-test: 6 of 16 layers with smooth_0; "
        "a fallback of 6 met the demand, the larger one of 12 did not"
    )
    assert first.labels["contradictions"] == [[6, 12]]
    assert strategy.obsolete() == set()


def test_a_lucky_measurement_is_outvoted_and_all_ladders_go_on_above_it() -> None:
    strategy, _ = contradict()
    good, bad = ask(strategy), ask(strategy)
    tell(strategy, bad, False)
    tell(strategy, good, False)
    assert strategy.best() is None
    third = ask(strategy)
    assert (spot(third), third.repeat) == ((0, 6), 2)
    tell(strategy, third, False)
    while isinstance(step := strategy.ask(), Proposal):
        assert spot(step)[1] > 11
        tell(strategy, step, spot(step)[1] >= (15, 14)[spot(step)[0]])
    assert isinstance(step, Done) and spot(step.best or third) == (1, 14)
    assert step.message.endswith(
        "The measurements contradicted each other: with smooth_0, a fallback of 6 met the demand, "
        "the larger one of 12 did not, settled by re-tests"
    )


def test_a_confirmed_contradiction_follows_the_sequential_search_too() -> None:
    """6 to 8 layers are enough and 12 are not, which the sequential search does not look at."""
    good = {(0, level) for level in (6, 7, 8, 15, 16)} | {(1, 2), (1, 4)}
    strategy, _ = contradict()
    roles = []
    while isinstance(step := strategy.ask(), Proposal):
        roles.append(step.labels["role"])
        if step.labels["role"] == "replay":
            assert "where the sequential search would have looked" in step.why
        tell(strategy, step, spot(step) in good)
    assert "replay" in roles
    assert isinstance(step, Done) and step.best is not None
    *_, last = visits(16, range(2), lambda each, level: (each, level) in good)
    assert spot(step.best)[1] <= last.level
    assert "which re-tests confirmed" in step.message


def test_a_contradiction_above_the_ceiling_is_left_alone() -> None:
    strategy = standing_high(2, names(16), width=5)
    flying = {spot(proposal): proposal for proposal in (ask(strategy) for _ in range(5))}
    tell(strategy, flying[0, 0], False)
    tell(strategy, flying[1, 5], True)
    tell(strategy, flying[0, 12], False)
    tell(strategy, flying[0, 6], True)
    step = ask(strategy)
    assert step.labels["role"] != "retest" and spot(step)[1] < 5


# Failures


def test_a_failed_trial_is_replaced_by_its_neighbour_and_never_counts_as_bad() -> None:
    strategy = standing_high(1, names(8))
    tell(strategy, ask(strategy), False)
    fail(strategy, ask(strategy))
    asked = []
    while isinstance(step := strategy.ask(), Proposal):
        asked.append(spot(step)[1])
        tell(strategy, step, spot(step)[1] >= 3)
    assert 4 not in asked
    assert isinstance(step, Done) and end_of(step) == 3
    assert step.message.endswith("Could not be measured: a fallback of 4 with smooth_0")


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_strategy_whose_trials_keep_failing_is_left_aside(width: int, broken: int) -> None:
    strategy = standing_high(2, names(16), width, max_failures=1)
    failed = 0
    while isinstance(step := strategy.ask(), Proposal):
        which, level = spot(step)
        if which == broken:
            failed += 1
            fail(strategy, step)
        else:
            tell(strategy, step, level >= 5)
    assert failed == 2
    assert isinstance(step, Done) and end_of(step) == 5
    assert f"Left aside: smooth_{broken} (2 trials failed)" in step.message


def test_full_fallback_is_looked_at_with_the_next_strategy_where_the_first_cannot() -> None:
    strategy = standing_high(2, names(4), max_failures=0)
    fail(strategy, ask(strategy))
    asked = []
    while isinstance(step := strategy.ask(), Proposal):
        asked.append(spot(step))
        tell(strategy, step, spot(step)[1] >= 4)
    assert asked == [(1, 0), (1, 2), (1, 3), (1, 4)]
    assert isinstance(step, Done) and end_of(step) == 4


def test_exhausted_is_only_said_when_full_fallback_was_measured() -> None:
    for broken, verdict in (((0, 4), "exhausted"), (None, "exhausted")):
        strategy = standing_high(2, names(4))
        while isinstance(step := strategy.ask(), Proposal):
            if spot(step) == broken:
                fail(strategy, step)
            else:
                tell(strategy, step, False)
        assert isinstance(step, Done) and step.verdict == verdict
    strategy = standing_high(1, names(4))
    while isinstance(step := strategy.ask(), Proposal):
        if spot(step)[1] == 4:
            fail(strategy, step)
        else:
            tell(strategy, step, False)
    assert isinstance(step, Done) and step.verdict == "failed"


def test_with_all_strategies_aside_the_best_so_far_is_delivered() -> None:
    strategy = standing_high(2, names(64), max_failures=0)
    tell(strategy, ask(strategy), False)
    tell(strategy, ask(strategy), True)
    fail(strategy, ask(strategy))
    fail(strategy, ask(strategy))
    done = strategy.ask()
    assert isinstance(done, Done) and end_of(done) == 32
    assert "smooth_0 (1 trial failed)" in done.message
    assert "smooth_1 (1 trial failed)" in done.message


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 30), st.data(), WEATHERS, st.booleans())
def test_failures_never_make_an_answer_wrong(
    layers: int, data: st.DataObject, weather: Weather, ranked: bool
) -> None:
    needed = data.draw(st.lists(st.integers(0, layers + 1), min_size=1, max_size=3))
    hopeless = data.draw(st.integers(0, len(needed) - 1))
    truth = thresholds(*needed)
    plain = world(truth, layers)

    def answer(proposal: Proposal) -> Outcome:
        if proposal.kind == "candidate" and spot(proposal)[0] == hopeless:
            return Outcome("failed", error="no adapter")
        return plain(proposal)

    candidates = names(layers) if ranked else []
    journey = travel(partial(standing_high, len(needed), candidates), answer, weather)
    rest = [which for which in range(len(needed)) if which != hopeless]
    if not rest:
        assert journey.done.verdict == "failed"
        return
    levels = [needed[which] for which in rest if needed[which] < layers]
    levels += [layers] if needed[rest[0]] == layers else []
    assert end_of(journey.done) == min(levels, default=None)
    assert journey.done.verdict == ("satisfied" if levels else "exhausted")
    failed = [proposal for proposal, outcome in journey.told if outcome.status == "failed"]
    assert len(failed) <= 3 + weather.widths[0]


def test_needs_to_be_told_whether_the_demand_is_met() -> None:
    strategy = standing_high(1, names(4))
    with pytest.raises(ValueError, match="whether the demand is satisfied"):
        strategy.tell(ask(strategy), Outcome("measured", objective=0.7))


@settings(deadline=None, max_examples=20)
@given(TABLES, st.integers(1, 6))
def test_keeps_the_contract_whatever_the_truth(tables: list[list[bool]], width: int) -> None:
    candidates = names(len(tables[0]) - 1)
    answer = world(lambda strategy, level: tables[strategy][level])
    make = partial(standing_high, len(tables), candidates)
    check_strategy(make, answer, widths=(width,), seeds=(0,))
