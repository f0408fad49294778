"""Optuna's samplers as strategies: the contract, constraints, objectives, and known points."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from searchers import (
    Bound,
    Goal,
    OptunaSearch,
    Outcome,
    Proposal,
    Space,
    Strategy,
    make_strategy,
    strategy_options,
)
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
        "mode": {"type": "enum", "values": ["", "fcfs", "priority"]},
        "tp": {"type": "enum", "values": [1, 2, 4, 8]},
        "pp": {"type": "enum", "values": [1, 2, 4, 8]},
        "dp": {"type": "ternary_factories", "of": ["tp", "pp"], "product": 8},
        "rate": {"type": "float", "low": 0.5, "high": 2, "log": True},
    }
)
LINE = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
PLANE = Space.model_validate(
    {"x": {"type": "float", "low": 0, "high": 1}, "y": {"type": "int", "low": 0, "high": 20}}
)
SLO = Goal(maximize=("speed",), bounds=(Bound("ttft", max=0.2),))


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


GP = pytest.param(
    "gp",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(not has("scipy", "torch"), reason="needs scipy and torch"),
    ],
)
CMA_ES = pytest.param("cma_es", marks=pytest.mark.skipif(not has("cmaes"), reason="needs cmaes"))


def optuna(space: Space, goal: Goal | None = None, **options: Any) -> Callable[[], Strategy]:
    seed = options.pop("seed", 0)
    return lambda: make_strategy("optuna", options, space=space, seed=seed, goal=goal)


def measure(proposal: Proposal) -> Outcome:
    batch = proposal.parameters["batch"]
    return Outcome("measured", satisfied=batch <= 3, objective=float(batch))


def serve(proposal: Proposal) -> Outcome:
    """The more the faster, until the latency is too high."""
    x = proposal.parameters["x"]
    return Outcome("measured", {"speed": x, "ttft": x}, satisfied=x <= 0.2, objective=x)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", CMA_ES])
@pytest.mark.parametrize("space", [SMALL, DERIVED])
def test_keeps_the_contract(space: Space, sampler: str) -> None:
    check_strategy(
        optuna(space, trials=12, sampler=sampler, startup=4, population=4),
        measure,
        inside=lambda proposal: space.contains(proposal.parameters),
        widths=(1, 3),
        seeds=range(1),
    )


@pytest.mark.parametrize("sampler", [GP])
def test_a_process_continues_where_it_was_stopped(sampler: str) -> None:
    make = optuna(PLANE, SLO, trials=7, sampler=sampler, startup=3)
    for weather in (Weather(0, failing=0.2), Weather(1, (2,), in_time=0.5)):
        once = travel(make, serve, weather)
        stopped = Weather(**{**vars(weather), "restarts": True})
        assert travel(make, serve, stopped) == once


def points(make: Callable[[], Strategy], answer: Callable[[Proposal], Outcome]) -> list[Any]:
    """What is asked for, one after the other, as (parameters, whether they satisfy)."""
    strategy, found = make(), []
    while isinstance(step := strategy.ask(), Proposal):
        outcome = answer(step)
        found.append((step.parameters, outcome.satisfied))
        strategy.tell(step, outcome)
    return found


@pytest.mark.parametrize("sampler", ["tpe", GP, CMA_ES])
def test_learns_where_the_bounds_are_kept(sampler: str) -> None:
    """The objective points away from there."""
    trials = 14 if sampler == "gp" else 50
    make = optuna(PLANE, SLO, trials=trials, sampler=sampler, startup=5)
    asked = [point["x"] for point, _ in points(make, serve)]
    late = asked[-trials // 3 :]
    assert sum(x <= 0.25 for x in late) >= 0.5 * len(late)
    assert max(x for x in asked if x <= 0.2) > 0.15


def test_a_generation_descends_from_points_that_keep_the_bounds() -> None:
    make = optuna(PLANE, SLO, trials=80, sampler="nsga2", population=8)
    late = [bool(satisfied) for _, satisfied in points(make, serve)[40:]]
    assert sum(late) >= 0.4 * len(late)  # by chance: 0.2


def test_the_excess_leads_where_a_verdict_alone_does_not() -> None:
    """With everything beyond its bounds at first, only by how much tells the way."""

    def far(proposal: Proposal) -> Outcome:
        x, y = proposal.parameters["x"], proposal.parameters["y"]
        ttft = 0.1 + x + y / 20
        return Outcome("measured", {"ttft": ttft}, satisfied=ttft <= 0.2, objective=x)

    def satisfied(goal: Goal | None) -> int:
        found = [points(optuna(PLANE, goal, trials=40, seed=seed), far) for seed in range(3)]
        return sum(bool(good) for asked in found for _, good in asked)

    assert satisfied(SLO) >= 2 * satisfied(None) + 5


def trade(proposal: Proposal) -> Outcome:
    """Speed against latency, with a second parameter that only does harm."""
    x, y = proposal.parameters["x"], proposal.parameters["y"] / 20
    metrics = {"speed": x - y, "ttft": x * x + y}
    return Outcome("measured", metrics, satisfied=metrics["ttft"] <= 0.8, objective=0.0)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_several_objectives_give_a_front(sampler: str) -> None:
    goal = Goal(maximize=("speed",), minimize=("ttft",), bounds=(Bound("ttft", max=0.8),))
    strategy = optuna(PLANE, goal, trials=40, sampler=sampler, population=8)()
    measured: dict[int, tuple[Proposal, Outcome]] = {}
    while isinstance(step := strategy.ask(), Proposal):
        measured[step.number] = step, trade(step)
        strategy.tell(*measured[step.number])
    assert isinstance(strategy, OptunaSearch)
    good = {
        number: (outcome.metrics["speed"], -outcome.metrics["ttft"])
        for number, (_, outcome) in measured.items()
        if outcome.satisfied
    }
    best = [
        number
        for number, values in good.items()
        if not any(
            other != values and all(a >= b for a, b in zip(other, values, strict=True))
            for other in good.values()
        )
    ]
    front = strategy.front()
    assert [proposal.number for proposal in front] == best
    assert len(front) >= 5
    fastest = max(good, key=lambda number: good[number][0])
    assert strategy.best() == measured[fastest][0]


@pytest.mark.parametrize("sampler", [CMA_ES])
def test_a_sampler_for_one_objective_says_so(sampler: str) -> None:
    goal = Goal(maximize=("speed", "goodput"))
    with pytest.raises(ValueError, match="cma_es knows one objective only; use tpe, gp or nsga2"):
        optuna(PLANE, goal, trials=5, sampler=sampler)().ask()


def test_points_without_numbers_are_told_as_the_worst() -> None:
    """A candidate rejected early satisfies nothing and measured nothing."""

    def reject(proposal: Proposal) -> Outcome:
        if proposal.parameters["x"] > 0.5:
            return Outcome("measured", data={"stopped": {"by": "kv_memory"}}, satisfied=False)
        return serve(proposal)

    late = points(optuna(PLANE, SLO, trials=40, seed=1), reject)[20:]
    assert sum(point["x"] > 0.5 for point, _ in late) <= 4


def test_known_points_replace_the_start_at_random() -> None:
    strategy = optuna(LINE, SLO, trials=10, seed=3)()
    for number in range(21):
        known = Proposal(0, {"x": number / 20})
        strategy.learn(known.parameters, serve(known))
    strategy.learn({"x": 7.0}, Outcome("measured", objective=99.0))
    first = strategy.ask()
    assert isinstance(first, Proposal)
    assert (first.parameters, first.why) == ({"x": 0.2}, "best known point")
    strategy.tell(first, serve(first))
    near = []
    while isinstance(step := strategy.ask(), Proposal):
        near.append(0.05 <= step.parameters["x"] <= 0.35)
        strategy.tell(step, serve(step))
    assert sum(near) >= 7
    assert strategy.state()["measured"] == 10


def test_knowledge_is_part_of_the_state() -> None:
    strategy = optuna(LINE, SLO, trials=10)()
    strategy.learn({"x": 0.1}, serve(Proposal(0, {"x": 0.1})))
    twin = optuna(LINE, SLO, trials=10)()
    twin.restore(json.loads(json.dumps(strategy.state())))
    assert twin.ask() == strategy.ask()


def test_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        travel(optuna(PLANE, SLO, trials=14, startup=3), serve, Weather())


def test_is_loaded_only_when_asked_for() -> None:
    program = "import sys, searchers; print('optuna' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchers._optuna.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="sampler gp needs optuna and scipy and torch"):
        optuna(LINE, trials=3, sampler="gp")()


def test_wrong_options_say_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="'tpe', 'gp', 'cma_es', 'nsga2' or 'random'"):
        strategy_options("optuna").model_validate({"trials": 3, "sampler": "bayes"})
