"""Standing high: the reference's order when alone, the same end level when not, what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from searchers import WAIT, Done, Outcome, Proposal, Space, make_strategy
from searchers._climb import visits
from searchers.testing import Weather, check_strategy, travel
from tests.searchers.standing_high import (
    WEATHERS,
    Truth,
    ask,
    end_of,
    names,
    spot,
    spots,
    standing_high,
    tell,
    thresholds,
    world,
)

ROOT = Path(__file__).parents[2]
TRACES = [
    (16, (5, 5), "0/0- 0/8+ 0/4- 0/6+ 0/5+ 0/4- 1/4- 0/5+"),
    (
        16,
        (9, 2),
        "0/0- 0/8- 0/12+ 0/10+ 0/9+ 0/8- 1/8+ 1/6+ 1/2+ 1/0- 0/0- 1/1- 0/1- 1/2+",
    ),
    (16, (9, 0), "0/0- 0/8- 0/12+ 0/10+ 0/9+ 0/8- 1/8+ 1/6+ 1/2+ 1/0+ 1/0+"),
    (16, (17, 17), "0/0- 0/8- 0/12- 0/14- 0/15- 0/15- 1/15- 0/16-"),
    (16, (0, 0), "0/0+"),
    (8, (8,), "0/0- 0/4- 0/6- 0/7- 0/7- 0/8+"),
    (
        64,
        (20, 11, 3),
        "0/0- 0/32+ 0/16- 0/24+ 0/20+ 0/18- 0/19- 0/19- 1/19+ 1/17+ 1/13+ 1/5- 2/5+ 2/0- 0/0- 1/0- "
        "2/4+ 2/2- 0/2- 1/2- 2/3+ 2/1- 0/1- 1/1- 2/2- 0/2- 1/2- 2/3+",
    ),
]
"""(layers, smallest sufficient fallback of each strategy, what msModelSlim 26.1.0 evaluates)."""


def sequential(layers: int, count: int, truth: Truth) -> tuple[int | None, list[tuple[int, int]]]:
    """(end level, visits without repeats) of the sequential search."""
    visited = [(each.strategy, each.level) for each in visits(layers, range(count), truth)]
    end = visited[-1][1] if truth(*visited[-1]) else None
    return end, list(dict.fromkeys(visited))


# One at a time: the reference


@pytest.mark.parametrize(("layers", "needed", "trace"), TRACES)
def test_the_sequential_search_visits_what_the_reference_does(
    layers: int, needed: tuple[int, ...], trace: str
) -> None:
    truth = thresholds(*needed)
    visited = [
        f"{each.strategy}/{each.level}{'+' if truth(each.strategy, each.level) else '-'}"
        for each in visits(layers, range(len(needed)), truth)
    ]
    assert visited == trace.split()


@pytest.mark.parametrize(("layers", "needed", "trace"), TRACES)
def test_alone_it_measures_the_first_visits_and_takes_repeats_from_memory(
    layers: int, needed: tuple[int, ...], trace: str
) -> None:
    make = partial(standing_high, len(needed), names(layers))
    journey = travel(make, world(thresholds(*needed)), Weather())
    firsts = dict.fromkeys(visit[:-1] for visit in trace.split())
    assert [f"{strategy}/{level}" for strategy, level in spots(journey)] == list(firsts)
    last = trace.split()[-1]
    assert journey.done.verdict == ("satisfied" if last.endswith("+") else "exhausted")
    if journey.done.best is not None:
        assert "{}/{}+".format(*spot(journey.done.best)) == last


def test_a_visit_that_is_not_known_is_the_last() -> None:
    known = {(0, 0): False, (0, 8): True}
    walked = visits(16, range(2), lambda strategy, level: known.get((strategy, level)))
    assert [(each.strategy, each.level) for each in walked] == [(0, 0), (0, 8), (0, 4)]


@settings(deadline=None)
@given(st.integers(1, 70), st.lists(st.integers(0, 71), min_size=1, max_size=4))
def test_alone_it_asks_in_the_order_of_the_reference(layers: int, needed: list[int]) -> None:
    truth = thresholds(*needed)
    end, order = sequential(layers, len(needed), truth)
    journey = travel(partial(standing_high, len(needed), names(layers)), world(truth), Weather())
    assert spots(journey) == order
    assert end_of(journey.done) == end


def test_the_analysis_is_asked_for_only_after_zero_fallback_has_failed() -> None:
    journey = travel(standing_high, world(thresholds(4, 9), 5), Weather())
    assert [proposal.kind for proposal in journey.asked[:3]] == [
        "candidate",
        "analysis",
        "candidate",
    ]
    assert [proposal.kind for proposal in journey.asked].count("analysis") == 1
    assert end_of(journey.done) == 4
    satisfied = travel(standing_high, world(thresholds(0, 9), 5), Weather())
    assert spots(satisfied) == [(0, 0)]


def test_proposes_processors_and_layers_and_says_why() -> None:
    processors = [
        [{"type": "iter_smooth", "alpha": 0.9}],
        [{"type": "quarot"}, {"type": "awq"}],
        [],
    ]
    options = {"anti_outlier_strategies": processors, "candidates": names(8)}
    make = partial(make_strategy, "standing_high", options, space=None, seed=0)

    def answer(proposal: Proposal) -> Outcome:
        index = processors.index(proposal.parameters["anti_outlier"])
        enough = len(proposal.parameters["fallback"]) >= (6, 9, 5)[index]
        return Outcome("measured", satisfied=enough)

    journey = travel(make, answer, Weather())
    assert journey.asked[1].parameters == {"anti_outlier": processors[0], "fallback": names(4)}
    assert journey.asked[1].labels == {
        "strategy": 0,
        "level": 4,
        "of": 8,
        "role": "search",
        "phase": "bisection",
    }
    assert [proposal.why for proposal in journey.asked] == [
        "zero fallback with iter_smooth: does it already meet the demand?",
        "bisection: 4 of 8 layers with iter_smooth",
        "bisection: 6 of 8 layers with iter_smooth",
        "bisection: 5 of 8 layers with iter_smooth",
        "climb: 5 of 8 layers with quarot + awq, less than the best so far",
        "climb: 5 of 8 layers with no outlier suppression, less than the best so far",
        "climb: 3 of 8 layers with no outlier suppression, less than the best so far",
        "climb: 3 of 8 layers with iter_smooth, less than the best so far",
        "climb: 3 of 8 layers with quarot + awq, less than the best so far",
        "climb: 4 of 8 layers with no outlier suppression, less than the best so far",
        "climb: 4 of 8 layers with quarot + awq, less than the best so far",
    ]
    assert journey.done.message == (
        "5 of 8 layers fall back with no outlier suppression; "
        "with 4 no outlier strategy meets the demand"
    )


def test_nothing_satisfied_is_no_success() -> None:
    done = travel(partial(standing_high, 2, names(4)), world(thresholds(5, 5)), Weather()).done
    assert (done.verdict, done.best) == ("exhausted", None)
    assert done.message.startswith(
        "the demand is not met with all 4 layers in fallback and smooth_0, nor with fewer and any "
        "other outlier strategy: check that the unquantized model meets it"
    )


# Options and the analysis


@pytest.mark.parametrize(
    ("strategies", "said"),
    [
        ([], "at least 1 item"),
        ([[], [{"alpha": 0.5}]], "1.0: a processor needs a type"),
        ([[{"type": ""}]], "0.0: a processor needs a type"),
        ([[], [{"type": "awq"}], []], "2: the same as 0"),
        ("iter_smooth", "valid list"),
    ],
)
def test_wrong_strategies_are_refused(strategies: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_strategy("standing_high", {"anti_outlier_strategies": strategies}, space=None, seed=0)


@pytest.mark.parametrize(
    ("candidates", "said"), [(["a", ["b", "a"]], "repeated: a"), ([[]], "every group at least one")]
)
def test_wrong_candidates_are_refused(candidates: list[Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        standing_high(1, candidates)


def test_takes_no_space_and_needs_strategies() -> None:
    space = Space.model_validate({"x": {"type": "bool"}})
    options = {"anti_outlier_strategies": [[]]}
    with pytest.raises(ValueError, match="takes no space"):
        make_strategy("standing_high", options, space=space, seed=0)
    with pytest.raises(ValidationError, match="anti_outlier_strategies"):
        make_strategy("standing_high", {}, space=None, seed=0)


def test_a_fused_group_falls_back_together() -> None:
    make = partial(standing_high, 1, [["q", "k", "v"], "o", ["gate", "up"]])
    journey = travel(make, world(thresholds(4)), Weather())
    fallbacks = [proposal.parameters["fallback"] for proposal in journey.asked]
    assert fallbacks == [[], ["q", "k", "v", "o"], ["q", "k", "v"]]
    assert journey.done.message == (
        "2 of 3 layer groups fall back with smooth_0; with 1 the demand is not met"
    )


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome("measured", data={"ranking": []}), "no layer that could fall back"),
        (Outcome("measured"), "no usable ranking"),
        (Outcome("failed", error="no memory"), "analysis failed: no memory"),
    ],
)
def test_without_a_ranking_the_other_strategies_still_get_their_chance(
    outcome: Outcome, said: str
) -> None:
    for second in (True, False):
        strategy = standing_high(2)
        tell(strategy, ask(strategy), False)
        strategy.tell(ask(strategy), outcome)
        zero = ask(strategy)
        assert spot(zero) == (1, 0)
        tell(strategy, zero, second)
        done = strategy.ask()
        assert isinstance(done, Done)
        assert done.best == (zero if second else None)
        assert second or (done.verdict == "failed" and said in done.message)


# Several at a time


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 70), st.data(), WEATHERS, st.booleans())
def test_width_and_order_do_not_change_the_end_level(
    layers: int, data: st.DataObject, weather: Weather, ranked: bool
) -> None:
    needed = data.draw(st.lists(st.integers(0, layers + 1), min_size=1, max_size=4))
    truth = thresholds(*needed)
    candidates = names(layers) if ranked else []
    journey = travel(partial(standing_high, len(needed), candidates), world(truth, layers), weather)
    assert end_of(journey.done) == sequential(layers, len(needed), truth)[0]
    assert journey.done.verdict == ("satisfied" if journey.done.best else "exhausted")
    assert all(proposal.repeat == 0 for proposal in journey.asked)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.data(), st.integers(0, 10**6))
def test_the_number_of_slots_may_change_on_the_way(
    layers: int, data: st.DataObject, seed: int
) -> None:
    needed = data.draw(st.lists(st.integers(0, layers + 1), min_size=1, max_size=3))
    weather = Weather(seed, (1, 2, 4, 6), in_time=0.5, eager=0.8)
    truth = thresholds(*needed)
    journey = travel(partial(standing_high, len(needed), names(layers)), world(truth), weather)
    assert end_of(journey.done) == sequential(layers, len(needed), truth)[0]


def test_equal_end_levels_and_bounds_of_the_benchmark_hold() -> None:
    program = ROOT / "benchmarks" / "standing_high_rounds.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| 94 | 4 |" in done.stdout


def test_a_round_is_spread_over_the_strategies() -> None:
    strategy = standing_high(2, names(16), width=5)
    asked = [spot(ask(strategy)) for _ in range(5)]
    assert asked[0] == (0, 0)
    assert sorted(asked[1:]) == [(0, 6), (0, 12), (1, 5), (1, 11)]
    assert strategy.ask() is WAIT


def test_one_satisfied_level_makes_the_higher_ones_useless_on_every_ladder() -> None:
    strategy = standing_high(3, names(16), width=4)
    asked = {spot(proposal): proposal for proposal in (ask(strategy) for _ in range(4))}
    assert set(asked) == {(0, 0), (0, 9), (1, 8), (2, 8)}
    assert strategy.obsolete() == set()
    tell(strategy, asked[1, 8], True)
    assert strategy.obsolete() == {asked[0, 9].number, asked[2, 8].number}
    tell(strategy, asked[0, 0], True)
    assert strategy.best() == asked[0, 0]
    assert strategy.ask() is WAIT
    for useless in (asked[0, 9], asked[2, 8]):
        strategy.tell(useless, Outcome("cancelled"))
    done = strategy.ask()
    assert isinstance(done, Done) and done.best == asked[0, 0]
    assert done.message == "plain quantization with smooth_0 meets the demand, no layer falls back"


def test_a_strategy_unsatisfied_at_the_ceiling_is_out() -> None:
    strategy = standing_high(2, names(16), width=3)
    asked = {spot(proposal): proposal for proposal in (ask(strategy) for _ in range(3))}
    assert set(asked) == {(0, 0), (0, 9), (1, 8)}
    tell(strategy, asked[1, 8], False)
    tell(strategy, asked[0, 0], False)
    tell(strategy, asked[0, 9], True)
    while isinstance(step := strategy.ask(), Proposal):
        assert spot(step)[0] == 0
        tell(strategy, step, spot(step)[1] >= 7)
    assert isinstance(step, Done) and end_of(step) == 7


def test_zero_fallback_of_all_strategies_is_measured_beside_the_analysis() -> None:
    strategy = standing_high(3, width=4)
    steps = [ask(strategy) for _ in range(4)]
    assert [step.kind for step in steps] == ["candidate", "analysis", "candidate", "candidate"]
    assert [spot(step) for step in steps if step.kind == "candidate"] == [(0, 0), (1, 0), (2, 0)]
    tell(strategy, steps[2], True)
    assert strategy.obsolete() == {steps[0].number, steps[1].number, steps[3].number}


def test_a_free_slot_works_ahead_in_the_largest_part() -> None:
    strategy = standing_high(1, names(64), width=2)
    zero, middle = ask(strategy), ask(strategy)
    tell(strategy, zero, False)
    ahead = ask(strategy)
    assert ahead.labels["role"] == "ahead" and ahead.labels["round"] == 2
    assert spot(ahead)[1] < spot(middle)[1]
    assert ahead.why.startswith("ahead: 11 of 64 layers with smooth_0, for which 1..64 is open")


def test_a_cancelled_trial_that_is_still_needed_is_proposed_again() -> None:
    strategy = standing_high(2, names(8))
    strategy.tell(ask(strategy), Outcome("cancelled"))
    again = ask(strategy)
    assert (spot(again), again.repeat) == ((0, 0), 1)


@pytest.mark.parametrize("width", [2, 4, 6])
@pytest.mark.parametrize("strategies", [1, 2, 4])
def test_most_holds_in_the_worst_of_worlds(width: int, strategies: int) -> None:
    """Every answer comes from the probe, and is the one, that leaves most to search."""
    strategy = standing_high(strategies, names(64), width)
    most, asked = strategy.most(), 0
    low, ceiling = [-1] * strategies, 65
    flying: dict[int, Proposal] = {}

    def left(probe: Proposal, satisfied: bool) -> int:
        which, level = spot(probe)
        if satisfied:
            return sum(max(min(level, ceiling) - edge - 1, 0) for edge in low)
        edges = [max(edge, level) if which == each else edge for each, edge in enumerate(low)]
        return sum(max(ceiling - edge - 1, 0) for edge in edges)

    while not isinstance(step := strategy.ask(), Done):
        if isinstance(step, Proposal):
            flying[step.number] = step
            asked += 1
            continue
        choices = [
            (left(probe, satisfied), -probe.number, satisfied)
            for probe in flying.values()
            for satisfied in (False, True)
        ]
        _, number, satisfied = max(choices)
        probe = flying.pop(-number)
        which, level = spot(probe)
        if satisfied:
            ceiling = min(ceiling, level)
        else:
            low[which] = max(low[which], level)
        tell(strategy, probe, satisfied)
        for useless in strategy.obsolete():
            strategy.tell(flying.pop(useless), Outcome("cancelled"))
    assert most is not None and asked <= most


def test_tells_how_much_is_to_come() -> None:
    assert [standing_high(1, names(64), width).most() for width in (1, 2, 4)] == [8, 14, 24]
    strategy = standing_high(2, names(64), 4)
    assert strategy.remaining() == 16
    while isinstance(step := strategy.ask(), Proposal):
        tell(strategy, step, spot(step)[1] >= 40)
    assert strategy.remaining() == 0
    assert standing_high().most() is None and standing_high().remaining() is None


# The contract


@pytest.mark.parametrize("needed", [(0, 3), (9, 4, 13), (13, 12), (13, 13)])
@pytest.mark.parametrize("candidates", [names(12), []], ids=["given", "analysed"])
def test_keeps_the_contract(needed: Sequence[int], candidates: list[str]) -> None:
    prefixes = [names(12)[:number] for number in range(13)]

    def inside(proposal: Proposal) -> bool:
        parameters: Mapping[str, Any] = proposal.parameters
        return proposal.kind == "analysis" or parameters["fallback"] in prefixes

    make = partial(standing_high, len(needed), candidates)
    check_strategy(make, world(thresholds(*needed), 12), inside=inside)
