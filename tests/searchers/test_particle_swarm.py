"""Particle swarm: the contract, what it compares by, and what it does with what it knows."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from searchers import (
    Bound,
    Done,
    Goal,
    Outcome,
    Proposal,
    Space,
    Strategy,
    make_strategy,
    strategy_options,
)
from searchers._swarm_options import Schedule
from searchers.testing import Weather, check_strategy, travel

SMALL = Space.model_validate(
    {
        "batch": {"type": "int", "low": 1, "high": 4},
        "mode": {"type": "enum", "values": ["fcfs", "priority"]},
    }
)
DERIVED = Space.model_validate(
    {
        "batch": {"type": "int", "low": 1, "high": 256, "log": True},
        "prefill": {"type": "ratio", "of": "batch", "low": 0.1, "high": 0.7, "minimum": 1},
        "tp": {"type": "enum", "values": [1, 2, 4, 8]},
        "pp": {"type": "enum", "values": [1, 2, 4, 8]},
        "dp": {"type": "ternary_factories", "of": ["tp", "pp"], "product": 8},
        "rate": {"type": "float", "low": 0.5, "high": 2},
    }
)
HILLS = Space.model_validate(
    {
        f"x{index}": {"type": "int", "low": 1, "high": 1000, "log": index % 2 == 0}
        for index in range(5)
    }
)


def swarm(space: Space, **options: Any) -> Callable[[], Strategy]:
    seed = options.pop("seed", 0)
    return lambda: make_strategy("particle_swarm", options, space=space, seed=seed)


def measure(proposal: Proposal) -> Outcome:
    batch = proposal.parameters["batch"]
    return Outcome("measured", satisfied=batch <= 3, objective=float(batch))


def hill(proposal: Proposal) -> Outcome:
    """A smooth peak away from the middle; 1 at the top."""
    units = HILLS.encode(proposal.parameters)
    return Outcome("measured", objective=math.exp(-sum((unit - 0.3) ** 2 for unit in units) * 3))


@pytest.mark.parametrize(
    "options",
    [
        {"particles": 4, "iterations": 4},
        {"particles": 3, "trials": 14, "preset": "serviceparam"},
        {
            "particles": 5,
            "trials": 20,
            "patience": 1,
            "boundary": "clip",
            "topology": "ring",
            "inertia": {"schedule": "random", "start": 0.9, "end": 0.4},
        },
    ],
)
@pytest.mark.parametrize("space", [SMALL, DERIVED])
def test_keeps_the_contract(space: Space, options: dict[str, Any]) -> None:
    check_strategy(
        swarm(space, **options),
        measure,
        inside=lambda proposal: space.contains(proposal.parameters),
        widths=(1, 3, 7),
        seeds=range(1),
    )


def test_measures_particles_times_iterations_or_all_there_is() -> None:
    assert swarm(DERIVED, particles=6, iterations=5)().most() == 30
    assert swarm(SMALL, particles=6, iterations=5)().most() == 8
    done = travel(swarm(SMALL, particles=6, iterations=5), measure, Weather()).done
    assert done.best is not None and done.best.parameters["batch"] == 3


def regret(strategy: Strategy) -> float:
    while isinstance(step := strategy.ask(), Proposal):
        strategy.tell(step, hill(step))
    assert isinstance(step, Done) and step.best is not None
    return 1 - (hill(step.best).objective or 0.0)


def mean_regret(kind: str, options: dict[str, Any]) -> float:
    found = [regret(make_strategy(kind, options, space=HILLS, seed=seed)) for seed in range(8)]
    return sum(found) / len(found)


def test_finds_a_hill_that_chance_and_the_preset_of_serviceparam_do_not() -> None:
    found = mean_regret("particle_swarm", {"trials": 100})
    assert found < 0.02
    assert mean_regret("random", {"trials": 100}) > 5 * found
    assert mean_regret("particle_swarm", {"trials": 100, "preset": "serviceparam"}) > 5 * found


def ask(strategy: Strategy) -> Proposal:
    step = strategy.ask()
    assert isinstance(step, Proposal)
    return step


def test_without_any_satisfying_point_it_goes_where_the_bounds_are_exceeded_least() -> None:
    line = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    strategy = swarm(line, particles=5, iterations=10)()
    strategy.goal = Goal(maximize=("speed",), bounds=(Bound("ttft", max=0.1),))
    asked = []
    while isinstance(step := strategy.ask(), Proposal):
        x = step.parameters["x"]
        asked.append(x)
        metrics = {"speed": x, "ttft": 0.2 + x}
        strategy.tell(step, Outcome("measured", metrics, satisfied=False, objective=x))
    assert step == Done("exhausted", None, "none of 50 measured points satisfies the demand")
    assert sum(asked[-10:]) / 10 < 0.1


def test_a_failed_trial_is_no_measurement() -> None:
    """The particle whose trial failed goes on as if it had not met the point."""
    strategy = swarm(HILLS, particles=3, trials=9)()
    first = ask(strategy)
    strategy.tell(first, Outcome("failed", error="out of luck"))
    state = strategy.state()
    assert state["merits"] == {}
    assert strategy.best() is None


def test_points_met_before_are_passed_without_a_trial() -> None:
    journey = travel(swarm(SMALL, particles=2, trials=8), measure, Weather())
    points = [json.dumps(proposal.parameters) for proposal in journey.asked]
    assert len(set(points)) == len(points) == 8


def test_known_points_of_an_earlier_run_lead_the_swarm() -> None:
    strategy = swarm(HILLS, particles=6, trials=12)()
    top = HILLS.decode([0.3] * 5)
    known = {"x0": 1, "x1": 1, "x2": 1, "x3": 1, "x4": 1}
    for parameters, objective in ((known, 0.1), (top, 1.0)):
        strategy.learn(parameters, Outcome("measured", objective=objective))
    strategy.learn({"x0": 5}, Outcome("measured", objective=9.0))
    strategy.learn(HILLS.decode([0.9] * 5), Outcome("failed"))
    first = ask(strategy)
    assert first.parameters == top
    assert strategy.best() is None
    assert strategy.remaining() == 12


def test_the_swarm_grows_to_the_number_of_slots() -> None:
    strategy = swarm(HILLS, particles=2, trials=20)()
    strategy.width = 5
    particles = {ask(strategy).labels["particle"] for _ in range(5)}
    assert particles == {0, 1, 2, 3, 4}


def test_the_first_velocity_of_serviceparam_is_below_one_unit_of_the_parameter() -> None:
    """So its best particle tests a point next to the last one, as the original is seen to do."""
    space = Space.model_validate({"tokens": {"type": "int", "low": 8192, "high": 65536}})
    for seed in range(10):
        strategy = swarm(space, particles=1, trials=2, preset="serviceparam", seed=seed)()
        first, second = ask(strategy), None
        strategy.tell(first, Outcome("measured", objective=1.0))
        second = ask(strategy)
        steps = second.parameters["tokens"] - first.parameters["tokens"]
        assert steps in (1, 2) or abs(steps) < 6000  # a step of 0 is a duplicate, pushed away


def test_a_stagnant_swarm_is_scattered_but_for_its_leader() -> None:
    strategy = swarm(HILLS, particles=4, trials=60, patience=2)()
    first = ask(strategy)
    strategy.tell(first, Outcome("measured", objective=1.0))
    far = 0
    while isinstance(step := strategy.ask(), Proposal):
        distance = math.dist(HILLS.encode(step.parameters), HILLS.encode(first.parameters))
        far += step.number > 30 and distance > 0.5
        strategy.tell(step, Outcome("measured", objective=0.0))
    assert strategy.state()["scattered"] > 0
    assert far >= 5
    assert strategy.best() == first


@given(
    st.sampled_from(["constant", "linear", "exp_decay", "nonlin_mod", "random"]), st.floats(0, 1)
)
def test_schedules_stay_between_their_ends(kind: str, progress: float) -> None:
    schedule = Schedule.model_validate({"schedule": kind, "start": 0.9, "end": 0.4})
    value = schedule.at(progress, random.Random(0))
    assert 0.4 - 1e-9 <= value <= 0.9 + 1e-9
    if kind != "random":
        assert schedule.at(0.0, random.Random(0)) == pytest.approx(0.9)
    if kind not in ("random", "constant"):
        assert schedule.at(1.0, random.Random(0)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either iterations or trials"),
        ({"iterations": 3, "trials": 3}, "either iterations or trials"),
        ({"trials": 3, "preset": "pyswarms"}, "constriction"),
        ({"trials": 3, "inertia": -0.1}, "inertia must not be negative"),
        ({"trials": 3, "social": {"schedule": "exp_decay", "start": 1, "end": 0}}, "multiplies"),
        ({"trials": 3, "w": 0.7}, "Extra inputs"),
    ],
)
def test_wrong_options_say_what_is_wrong(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        strategy_options("particle_swarm").model_validate(options)
