"""``auto``: the contract, what it learns from, and how few trials it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from searchers import (
    Bound,
    Done,
    Goal,
    Json,
    Outcome,
    Proposal,
    Space,
    Strategy,
    make_strategy,
)
from searchers.testing import Weather, check_strategy, travel

SERVING = Space.model_validate(
    {
        "engine": {"type": "enum", "values": ["vllm", "mindie"]},
        "tensor_parallel_size": {"type": "enum", "values": [1, 2, 4, 8]},
        "concurrency": {"type": "enum", "values": [4, 8, 16, 32, 64, 128]},
        "seed": {"type": "constant", "value": 7},
    }
)
SMALL = Space.model_validate(
    {
        "engine": {"type": "enum", "values": ["vllm", "mindie"]},
        "concurrency": {"type": "int", "low": 1, "high": 5},
    }
)
ENDLESS = Space.model_validate(
    {
        "rate": {"type": "float", "low": 0.5, "high": 64, "log": True},
        "concurrency": {"type": "int", "low": 1, "high": 1024, "log": True},
        "prefix_caching": {"type": "bool"},
    }
)
GOAL = Goal(maximize=("tput",), bounds=(Bound("ttft", max=2.0), Bound("tpot", max=0.03)))
Answer = Callable[[Proposal], Outcome]


def serve(parameters: Mapping[str, Json]) -> dict[str, float]:
    """A server in a closed loop: weights are read once per step, requests compete for compute."""
    devices = parameters.get("tensor_parallel_size", 4)
    load = parameters["concurrency"]
    speed = devices**0.8 * (1.15 if parameters.get("engine") == "mindie" else 1.0)
    tpot = (0.04 + 0.0012 * load) / speed
    ttft = 0.2 * (1 + 0.1 * load) / speed
    return {"tput": load / (tpot + ttft / 256), "ttft": ttft, "tpot": tpot}


def judged(metrics: Mapping[str, float], goal: Goal = GOAL) -> Outcome:
    kept = all((bound.excess(metrics) or 0) <= 0 for bound in goal.bounds)
    return Outcome("measured", metrics, satisfied=kept, objective=metrics["tput"])


def measure(proposal: Proposal) -> Outcome:
    return judged(serve(proposal.parameters))


def auto(space: Space, goal: Goal = GOAL, seed: int = 0, **options: Json) -> Callable[[], Strategy]:
    return lambda: make_strategy("auto", options, space=space, seed=seed, goal=goal)


def best_of(space: Space) -> float:
    outcomes = [judged(serve(point)) for point in space.grid()]
    return max(outcome.objective or 0 for outcome in outcomes if outcome.satisfied)


def needed(strategy: Strategy, answer: Answer, enough: float, most: int = 60) -> int:
    """Trials, one at a time, until one satisfies and its objective is ``enough``."""
    for count in range(1, most + 1):
        proposal = strategy.ask()
        assert isinstance(proposal, Proposal)
        outcome = answer(proposal)
        if outcome.satisfied and (outcome.objective or 0) >= enough:
            return count
        strategy.tell(proposal, outcome)
    return most + 1


@pytest.mark.parametrize(
    ("space", "trials", "goal"),
    [
        (SMALL, None, GOAL),
        (SERVING, 8, GOAL),
        (SMALL, None, Goal()),
        (SMALL, 6, Goal(maximize=("tput",), minimize=("ttft",))),
    ],
)
def test_the_contract_is_kept(space: Space, trials: int | None, goal: Goal) -> None:
    check_strategy(
        auto(space, goal, trials=trials),
        measure,
        inside=lambda proposal: space.contains(proposal.parameters),
        widths=(1, 3),
        seeds=range(1),
    )


def test_a_search_of_an_endless_space_is_resumed_exactly() -> None:
    calm = travel(auto(ENDLESS, trials=8), measure, Weather(widths=(3,)))
    broken = travel(auto(ENDLESS, trials=8), measure, Weather(widths=(3,), restarts=True))
    assert broken == calm
    assert len(calm.asked) == 8


def test_a_known_kind_of_server_needs_few_trials() -> None:
    assert needed(auto(SERVING)(), measure, 0.95 * best_of(SERVING)) <= 5


def test_names_that_say_nothing_cost_little() -> None:
    names = {"engine": "a", "tensor_parallel_size": "b", "concurrency": "c"}
    blind = Space.model_validate(
        {names.get(name, name): parameter for name, parameter in SERVING.model_dump().items()}
    )
    goal = Goal(maximize=("x",), bounds=(Bound("y", max=2.0), Bound("z", max=0.03)))

    def answer(proposal: Proposal) -> Outcome:
        outcome = measure(
            replace(
                proposal, parameters={old: proposal.parameters[new] for old, new in names.items()}
            )
        )
        return replace(outcome, metrics=dict(zip("xyz", outcome.metrics.values(), strict=True)))

    assert needed(auto(blind, goal)(), answer, 0.95 * best_of(SERVING)) <= 9


@pytest.mark.parametrize("hints", [True, False])
def test_parameters_that_change_nothing_cost_little(hints: bool) -> None:
    idle = {
        "block_size": {"type": "enum", "values": [8, 16, 32, 64]},
        "swap_space": {"type": "int", "low": 0, "high": 4},
        "eager": {"type": "bool"},
    }
    space = Space.model_validate({**SERVING.model_dump(), **idle})
    strategy = auto(space, hints=hints)()
    assert needed(strategy, measure, 0.95 * best_of(SERVING)) <= 12


@pytest.mark.parametrize("turned", [False, True])
def test_numbers_may_run_either_way(turned: bool) -> None:
    space = Space.model_validate(
        {
            "a": {"type": "enum", "values": ["x", "y", "z"]},
            "b": {"type": "int", "low": 1, "high": 8},
            "c": {"type": "int", "low": 1, "high": 8},
        }
    )

    def answer(proposal: Proposal) -> Outcome:
        point = proposal.parameters
        b, c = ((9 - point[name] if turned else point[name]) for name in "bc")
        speed = {"x": 0.5, "y": 1.0, "z": 0.8}[point["a"]]
        tput, cost = speed * b * c**0.5, c / speed
        return Outcome("measured", {"t": tput, "l": cost}, {}, cost <= 5, tput)

    goal = Goal(maximize=("t",), bounds=(Bound("l", max=5.0),))
    assert needed(auto(space, goal)(), answer, 0.95 * 8 * 5**0.5) <= 16


def test_everything_is_found_in_the_end() -> None:
    journey = travel(auto(SERVING), measure, Weather())
    assert len(journey.asked) == SERVING.size()
    assert journey.done.best is not None
    assert serve(journey.done.best.parameters)["tput"] == best_of(SERVING)


def test_what_other_runs_measured_is_not_measured_again_and_leads_to_the_best() -> None:
    strategy = auto(SERVING)()
    points = list(SERVING.grid())
    for point in points[::3]:
        strategy.learn(point, judged(serve(point)))
    strategy.learn({**points[0], "concurrency": 5}, judged(serve(points[0])))
    strategy.learn(points[1], Outcome("failed", error="of another day"))
    rest = max(
        outcome.objective or 0
        for number, point in enumerate(points)
        if number % 3 and (outcome := judged(serve(point))).satisfied
    )
    assert needed(strategy, measure, 0.95 * rest) <= 3
    strategy = auto(SERVING)()
    for point in points[::3]:
        strategy.learn(point, judged(serve(point)))
    asked = [proposal.parameters for proposal in travel(lambda: strategy, measure, Weather()).asked]
    again = [point for point in asked if points.index(point) % 3 == 0]
    assert again == asked[:1]
    assert sorted(map(points.index, asked[1:])) == [n for n in range(len(points)) if n % 3]


def test_what_works_is_found_beside_what_always_fails() -> None:
    def answer(proposal: Proposal) -> Outcome:
        small = proposal.parameters["engine"] == "mindie"
        return Outcome("failed", error="out of memory") if small else measure(proposal)

    best = max(
        outcome.objective or 0
        for point in SERVING.grid()
        if point["engine"] == "vllm" and (outcome := judged(serve(point))).satisfied
    )
    assert needed(auto(SERVING)(), answer, 0.95 * best) <= 6


@pytest.mark.parametrize("seed", range(3))
def test_one_value_with_which_nothing_starts_is_recognised(seed: int) -> None:
    memory = {"memory_utilization": {"type": "enum", "values": [0.8, 0.85, 0.9, 0.95]}}
    space = Space.model_validate({**SERVING.model_dump(), **memory})

    def answer(proposal: Proposal) -> Outcome:
        full = proposal.parameters["memory_utilization"] == 0.95
        return Outcome("failed", error="out of memory") if full else measure(proposal)

    strategy = auto(space, seed=seed, hints=False)()
    assert needed(strategy, answer, 0.95 * best_of(SERVING)) <= 12


def test_a_trial_stopped_early_counts_as_what_it_measured() -> None:
    def answer(proposal: Proposal) -> Outcome:
        metrics = serve(proposal.parameters)
        if metrics["tpot"] <= 0.03:
            return judged(metrics)
        stopped = {"stopped": {"by": "windows", "metric": "tpot"}}
        return Outcome("measured", {"tpot": metrics["tpot"]}, stopped, satisfied=False)

    assert needed(auto(SERVING)(), answer, 0.95 * best_of(SERVING)) <= 8


def test_several_objectives_are_traded_against_each_other() -> None:
    goal = Goal(maximize=("tput",), minimize=("ttft",))
    strategy = auto(SERVING, goal, trials=16)()
    journey = travel(lambda: strategy, measure, Weather())
    reached = [serve(proposal.parameters) for proposal in journey.asked]
    everything = [serve(point) for point in SERVING.grid()]
    assert max(m["tput"] for m in reached) >= 0.95 * max(m["tput"] for m in everything)
    assert min(m["ttft"] for m in reached) <= 1.05 * min(m["ttft"] for m in everything)


def test_given_points_are_measured_first_and_once() -> None:
    start = [{"engine": "vllm", "concurrency": 2}, {"engine": "mindie", "concurrency": 5}]
    journey = travel(auto(SMALL, start=start), measure, Weather())
    assert [dict(proposal.parameters) for proposal in journey.asked[:2]] == start
    assert len(journey.asked) == SMALL.size()


def test_wrong_options_say_where() -> None:
    with pytest.raises(ValueError, match=r"start\.1: .*concurrency"):
        auto(SMALL, start=[{"engine": "vllm", "concurrency": 2}, {"engine": "vllm"}])()
    with pytest.raises(ValueError, match="auto needs a space"):
        make_strategy("auto", {}, space=None, seed=0)


def test_zeros_and_negative_values_are_modelled_too() -> None:
    def answer(proposal: Proposal) -> Outcome:
        value = -abs(proposal.parameters["concurrency"] - 3.0)
        return Outcome("measured", {"score": value, "rejected": 0.0}, {}, True, value)

    goal = Goal(maximize=("score",), bounds=(Bound("rejected", max=0.0),))
    assert needed(auto(SMALL, goal)(), answer, 0.0, 10) <= 8


def test_the_state_is_json_after_values_that_are_not() -> None:
    strategy = auto(SMALL)()
    proposal = strategy.ask()
    assert isinstance(proposal, Proposal)
    strategy.tell(proposal, Outcome("measured", {"tput": float("nan"), "ttft": float("inf")}))
    assert json.loads(json.dumps(strategy.state(), allow_nan=False)) == strategy.state()
    assert not isinstance(strategy.ask(), Done)


def test_importing_the_strategies_does_not_load_numpy() -> None:
    script = "import sys, searchers; assert 'auto' in searchers.strategy_types(); "
    script += "raise SystemExit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_best_known_point_is_measured_first_for_only_then_it_can_be_delivered() -> None:
    strategy = make_strategy("auto", {"trials": 3}, space=SERVING, seed=1, goal=GOAL)
    points = list(SERVING.grid())
    for point in points:
        strategy.learn(point, judged(serve(point)))
    best = max(
        (point for point in points if judged(serve(point)).satisfied),
        key=lambda point: judged(serve(point)).objective or 0,
    )
    first = strategy.ask()
    assert isinstance(first, Proposal)
    assert first.parameters == best
