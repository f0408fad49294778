"""Coordinate ascent: the order of the groups, and that the best so far is only ever improved on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchers import Json, Outcome, Proposal, Space, Strategy, make_strategy
from searchers.testing import Weather, check_strategy, travel

SPACE = Space.model_validate(
    {
        "A": {"type": "enum", "values": ["1", "2", "3"]},
        "B": {"type": "enum", "values": ["x", "y"]},
        "C": {"type": "int", "low": 0, "high": 2},
    }
)
START = {"A": "2", "B": "x", "C": 1}


def ascent(space: Space = SPACE, **options: Any) -> Strategy:
    block = {"start": START, **options} if space is SPACE else options
    return make_strategy("coordinate_ascent", block, space=space, seed=0)


def world(value: Callable[[Mapping[str, Json]], float]) -> Callable[[Proposal], Outcome]:
    return lambda proposal: Outcome(
        "measured", satisfied=True, objective=value(proposal.parameters)
    )


def visited(strategy: Strategy, answer: Callable[[Proposal], Outcome], **weather: Any) -> Any:
    journey = travel(lambda: strategy, answer, Weather(**weather))
    points = ["".join(map(str, proposal.parameters.values())) for proposal in journey.asked]
    return points, journey.done


def test_each_parameter_in_turn_is_kept_at_its_best_value() -> None:
    points, done = visited(ascent(), world(lambda p: int(p["A"]) - (p["B"] == "x") + p["C"]))
    assert points == ["2x1", "1x1", "3x1", "3y1", "3y0", "3y2"]
    assert done.best is not None
    assert done.best.parameters == {"A": "3", "B": "y", "C": 2}


def test_what_it_stands_at_is_only_replaced_by_something_better() -> None:
    """From the second group on, the original left out what it stood at, as that was measured
    before, and went to the best of the others, however bad."""
    points, done = visited(ascent(), world(lambda p: -(p["B"] == "y") - (p["C"] != 1)))
    assert points == ["2x1", "1x1", "3x1", "2y1", "2x0", "2x2"]
    assert done.best is not None
    assert done.best.parameters == START


def test_a_group_of_several_parameters_tries_their_combinations() -> None:
    strategy = ascent(groups=[["A", "B"]])
    points, done = visited(strategy, world(lambda p: (p["A"] == "3") * (p["B"] == "y")))
    assert points == ["2x1", "1x1", "1y1", "2y1", "3x1", "3y1"]
    assert done.best is not None
    assert done.best.parameters == {"A": "3", "B": "y", "C": 1}


def test_groups_have_the_order_that_is_given_and_others_stay() -> None:
    points, _ = visited(ascent(groups=["C", "A"]), world(lambda p: 0))
    assert points == ["2x1", "2x0", "2x2", "1x1", "3x1"]


def coupled(point: Mapping[str, Json]) -> float:
    """B = y only pays once C = 2, which comes after it."""
    return point["C"] + 10 * (point["B"] == "y") * (point["C"] == 2) - (point["B"] == "y")


def test_the_number_of_trials_is_bounded() -> None:
    assert ascent().most() == 1 + 2 + 1 + 2
    assert ascent(groups=[["A", "B"]], sweeps=2).most() == 1 + 2 * 5


def test_a_second_sweep_finds_what_only_pays_after_the_first() -> None:
    _, once = visited(ascent(), world(coupled))
    points, twice = visited(ascent(sweeps=5), world(coupled))
    assert once.best is not None
    assert twice.best is not None
    assert once.best.parameters["B"] == "x"
    assert twice.best.parameters == {"A": "2", "B": "y", "C": 2}
    assert len(points) == len(set(points))


def test_points_that_fail_or_break_the_demand_are_not_moved_to() -> None:
    def answer(proposal: Proposal) -> Outcome:
        if proposal.parameters["A"] == "3":
            return Outcome("failed", error="crashed")
        good = proposal.parameters["B"] == "x"
        return Outcome("measured", satisfied=good, objective=1.0 if good else 99.0)

    points, done = visited(ascent(), answer)
    assert points == ["2x1", "1x1", "3x1", "2y1", "2x0", "2x2"]
    assert done.best is not None
    assert done.best.parameters == START


def test_a_start_that_fails_is_left_for_anything_that_runs() -> None:
    def answer(proposal: Proposal) -> Outcome:
        if proposal.parameters["A"] == "2":
            return Outcome("failed", error="crashed")
        return Outcome("measured", satisfied=True, objective=1.0)

    points, done = visited(ascent(), answer)
    assert points == ["2x1", "1x1", "3x1", "1y1", "1x0", "1x2"]
    assert done.best is not None
    assert done.best.parameters == {"A": "1", "B": "x", "C": 1}


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_keeps_the_contract_of_strategies(seed: int, sweeps: int) -> None:
    check_strategy(
        lambda: ascent(sweeps=sweeps),
        world(lambda point: rugged(seed, point)),
        inside=lambda proposal: SPACE.contains(proposal.parameters),
    )


def rugged(seed: int, point: Mapping[str, Json]) -> float:
    return Random(f"{seed}{[*point.values()]}").randrange(5)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_how_many_run_at_once_changes_nothing_but_the_time(seed: int, width: int) -> None:
    answer = world(lambda point: rugged(seed, point))
    alone, first = visited(ascent(sweeps=3), answer)
    together, second = visited(ascent(sweeps=3), answer, seed=seed, widths=(width,))
    assert set(alone) == set(together)
    assert first.best is not None
    assert second.best is not None
    assert first.best.parameters == second.best.parameters


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": ["A", "D"]}, "groups name what the space has not: D"),
        ({"start": {"Z": 1}}, "start names what the space has not: Z"),
        ({"start": {"A": "9"}}, "A: "),
        ({"groups": [[]]}, "every group needs a parameter"),
    ],
)
def test_what_does_not_suit_the_space_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ascent(**options)


def test_a_continuous_parameter_needs_a_number_of_points() -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 0.0, "high": 1.0}})
    with pytest.raises(ValueError, match="x is continuous"):
        ascent(space)
    points, _ = visited(ascent(space, points=3), world(lambda p: p["x"]))
    assert points == ["0.0", "0.5", "1.0"]
