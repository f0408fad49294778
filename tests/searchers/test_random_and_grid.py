"""Random search and grid search: which points, in which order, and what they deliver."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import Done, Goal, Outcome, PointStrategy, Proposal, Space, Strategy, make_strategy
from searchers.testing import Weather, check_strategy, travel

FINITE = Space.model_validate(
    {
        "batch": {"type": "int", "low": 1, "high": 512, "log": True},
        "mode": {"type": "enum", "values": ["fcfs", "priority"]},
    }
)
SMALL = Space.model_validate(
    {
        "batch": {"type": "int", "low": 1, "high": 4},
        "mode": {"type": "enum", "values": ["fcfs", "priority"]},
        "tp": {"type": "constant", "value": 8},
    }
)
CONTINUOUS = Space.model_validate({"rate": {"type": "float", "low": 0.5, "high": 2}})


def measure(proposal: Proposal) -> Outcome:
    """A throughput that grows with the batch, under an SLO that large batches break."""
    batch = proposal.parameters["batch"]
    faster = proposal.parameters["mode"] == "priority"
    return Outcome("measured", satisfied=batch <= 3, objective=batch + 0.5 * faster)


def random_search(space: Space, trials: int, seed: int = 0) -> Callable[[], Strategy]:
    return lambda: make_strategy("random", {"trials": trials}, space=space, seed=seed)


def grid_search(space: Space, points: int | None = None) -> Callable[[], Strategy]:
    return lambda: make_strategy("grid", {"points": points}, space=space, seed=0)


def points(make: Callable[[], Strategy], width: int = 1) -> list[str]:
    journey = travel(make, lambda _: Outcome("measured"), Weather(widths=(width,)))
    return [json.dumps(proposal.parameters) for proposal in journey.asked]


@pytest.mark.parametrize(
    "make",
    [
        random_search(SMALL, 5),
        random_search(SMALL, 50),
        random_search(FINITE, 12),
        grid_search(SMALL),
    ],
)
def test_keeps_the_contract(make: Callable[[], Strategy]) -> None:
    space = FINITE if len(points(make)) == 12 else SMALL
    check_strategy(make, measure, inside=lambda proposal: space.contains(proposal.parameters))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_random_never_repeats_a_point_and_ends(trials: int, seed: int) -> None:
    found = points(random_search(SMALL, trials, seed))
    assert len(found) == len(set(found)) == min(trials, 8)


def test_random_visits_every_point_of_a_finite_space() -> None:
    whole = {json.dumps(point) for point in FINITE.grid()}
    assert set(points(random_search(FINITE, 10_000))) == whole


def test_random_depends_on_nothing_but_its_seed() -> None:
    once = points(random_search(CONTINUOUS, 20, seed=7))
    assert points(random_search(CONTINUOUS, 20, seed=7)) == once
    assert points(random_search(CONTINUOUS, 20, seed=7), width=4) == once
    assert points(random_search(CONTINUOUS, 20, seed=8)) != once


def test_random_points_cover_the_space_evenly() -> None:
    rates = [json.loads(point)["rate"] for point in points(random_search(CONTINUOUS, 400))]
    quarters = [
        sum(0.5 + 0.375 * k <= rate < 0.875 + 0.375 * k for rate in rates) for k in range(4)
    ]
    assert min(quarters) > 70


def test_grid_visits_all_points_in_order() -> None:
    assert points(grid_search(SMALL)) == [json.dumps(point) for point in SMALL.grid()]
    assert [json.loads(point)["rate"] for point in points(grid_search(CONTINUOUS, 4))] == [
        0.5,
        1.0,
        1.5,
        2.0,
    ]


def test_grid_over_a_continuous_parameter_needs_points() -> None:
    with pytest.raises(ValueError, match="rate: is continuous"):
        make_strategy("grid", {}, space=CONTINUOUS, seed=0)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_delivers_the_highest_objective_that_is_satisfied(width: int, seed: int) -> None:
    done = travel(grid_search(SMALL), measure, Weather(seed, (width,))).done
    assert done.verdict == "satisfied" and done.best is not None
    assert done.best.parameters == {"batch": 3, "mode": "priority", "tp": 8}


def outcome(satisfied: bool | None, objective: float | None) -> Callable[[Proposal], Outcome]:
    return lambda _: Outcome("measured", satisfied=satisfied, objective=objective)


@pytest.mark.parametrize("width", [1, 3])
def test_without_a_demand_everything_measured_counts(width: int) -> None:
    def small_is_good(proposal: Proposal) -> Outcome:
        return Outcome("measured", objective=-proposal.parameters["batch"])

    done = travel(grid_search(SMALL), small_is_good, Weather(3, (width,))).done
    assert done.best is not None and done.best.parameters["batch"] == 1


@pytest.mark.parametrize("objective", [None, float("nan"), 1.0])
def test_equal_candidates_are_told_apart_by_the_order_of_asking(objective: float | None) -> None:
    for seed in range(5):
        done = travel(grid_search(SMALL), outcome(True, objective), Weather(seed, (4,))).done
        assert done.best is not None and done.best.number == 0


def test_nothing_satisfied_is_exhausted() -> None:
    done = travel(grid_search(SMALL), outcome(False, 1.0), Weather()).done
    assert done == Done("exhausted", None, "none of 8 measured points satisfies the demand")


def test_a_cancelled_point_is_measured_later() -> None:
    strategy = make_strategy("random", {"trials": 1}, space=SMALL, seed=0)
    first = strategy.ask()
    assert isinstance(first, Proposal)
    strategy.tell(first, Outcome("cancelled"))
    second = strategy.ask()
    assert isinstance(second, Proposal)
    assert (second.parameters, second.repeat) == (first.parameters, 1)
    strategy.tell(second, Outcome("measured"))
    assert strategy.best() == second


def test_the_number_of_trials_is_known_beforehand() -> None:
    strategy = random_search(SMALL, 50)()
    assert (strategy.most(), strategy.remaining()) == (8, 8)
    assert grid_search(CONTINUOUS, 4)().most() == 4


def test_the_front_has_every_satisfying_point_that_nothing_beats() -> None:
    strategy = grid_search(SMALL)()
    strategy.goal = Goal(maximize=("speed",), minimize=("latency",))
    while isinstance(step := strategy.ask(), Proposal):
        batch, late = step.parameters["batch"], step.parameters["mode"] == "priority"
        metrics = {"speed": min(batch, 3.0), "latency": batch + 10.0 * late}
        strategy.tell(step, Outcome("measured", metrics, satisfied=batch > 1, objective=batch))
    assert isinstance(strategy, PointStrategy)
    found = [proposal.parameters for proposal in strategy.front()]
    assert found == [{"batch": batch, "mode": "fcfs", "tp": 8} for batch in (2, 3)]


def test_the_front_of_a_single_objective_is_the_best_and_its_equals() -> None:
    strategy = grid_search(SMALL)()
    while isinstance(step := strategy.ask(), Proposal):
        strategy.tell(step, Outcome("measured", objective=min(step.parameters["batch"], 3)))
    assert isinstance(strategy, PointStrategy)
    assert [proposal.parameters["batch"] for proposal in strategy.front()] == [3, 3, 4, 4]
