"""Binary fallback: order of the reference, answers, disagreeing measurements, failures."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from searchers import WAIT, Done, Outcome, Proposal, Space, Strategy, make_strategy
from searchers.testing import Answer, Journey, Weather, check_strategy, travel

ROOT = Path(__file__).parents[2]


def names(count: int) -> list[str]:
    return [f"model.layers.{index}" for index in range(count)]


def fallback(candidates: Sequence[Any] = (), width: int = 1, **options: Any) -> Strategy:
    options["candidates"] = list(candidates)
    return make_strategy("binary_fallback", options, space=None, seed=0, width=width)


def level(proposal: Proposal) -> int:
    return len(proposal.parameters["fallback"])


def world(table: Sequence[bool], layers: Sequence[str] | None = None) -> Answer:
    """Trials that satisfy the demand where ``table[level]`` does; the analysis ranks ``layers``."""
    ranked = [{"layers": [name], "score": 1.0} for name in layers or names(len(table) - 1)]

    def answer(proposal: Proposal) -> Outcome:
        if proposal.kind == "analysis":
            return Outcome("measured", data={"ranking": ranked})
        return Outcome("measured", satisfied=table[level(proposal)])

    return answer


def threshold(count: int, needed: int) -> list[bool]:
    return [number >= needed for number in range(count + 1)]


def reference(count: int, satisfied: Callable[[int], bool]) -> tuple[int | None, list[int]]:
    """msModelSlim's procedure: (answer, levels in the order of their first evaluation)."""
    order: list[int] = []

    def evaluate(number: int) -> bool:
        if number not in order:
            order.append(number)
        return satisfied(number)

    if evaluate(0):
        return 0, order
    low, high = 1, count
    while low < high:
        middle = (low + high) // 2
        if evaluate(middle):
            high = middle
        else:
            low = middle + 1
    return (low if evaluate(low) else None), order


def answer_of(done: Done) -> int | None:
    return None if done.best is None else level(done.best)


def ask(strategy: Strategy) -> Proposal:
    step = strategy.ask()
    assert isinstance(step, Proposal), step
    return step


def tell(strategy: Strategy, proposal: Proposal, satisfied: bool) -> None:
    strategy.tell(proposal, Outcome("measured", satisfied=satisfied))


TABLES = st.lists(st.booleans(), min_size=2, max_size=41)
WEATHERS = st.builds(
    Weather,
    seed=st.integers(0, 10**6),
    widths=st.integers(1, 8).map(lambda width: (width,)),
    in_time=st.sampled_from([0.0, 0.5, 1.0]),
    eager=st.sampled_from([0.5, 1.0]),
)


# One at a time: the reference


@settings(deadline=None)
@given(TABLES)
def test_alone_it_asks_in_the_order_of_the_reference(table: list[bool]) -> None:
    count = len(table) - 1
    found, order = reference(count, lambda number: table[number])
    journey = travel(partial(fallback, names(count)), world(table), Weather())
    assert [level(proposal) for proposal in journey.asked] == order
    assert answer_of(journey.done) == found
    assert journey.done.verdict == ("exhausted" if found is None else "satisfied")


def test_the_analysis_is_asked_for_only_after_zero_fallback_has_failed() -> None:
    journey = travel(fallback, world(threshold(5, 4)), Weather())
    kinds = [proposal.kind for proposal in journey.asked]
    assert kinds == ["candidate", "analysis", "candidate", "candidate"]
    assert answer_of(journey.done) == 4
    satisfied = travel(fallback, world(threshold(5, 0)), Weather())
    assert [proposal.kind for proposal in satisfied.asked] == ["candidate"]


def test_says_why_in_words() -> None:
    journey = travel(partial(fallback, names(64)), world(threshold(64, 64)), Weather())
    assert [proposal.why for proposal in journey.asked] == [
        "zero fallback: does plain quantization already meet the demand?",
        "bisection: 32 of 64 layers (answer lies in 1..64, or there is none)",
        "bisection: 48 of 64 layers (answer lies in 33..64, or there is none)",
        "bisection: 56 of 64 layers (answer lies in 49..64, or there is none)",
        "bisection: 60 of 64 layers (answer lies in 57..64, or there is none)",
        "bisection: 62 of 64 layers (answer lies in 61..64, or there is none)",
        "bisection: 63 of 64 layers (answer lies in 63..64, or there is none)",
        "full fallback: 64 of 64 layers, for nothing less was enough",
    ]
    journey = travel(partial(fallback, names(64)), world(threshold(64, 17)), Weather())
    assert journey.asked[3].why == "bisection: 24 of 64 layers (answer lies in 17..32)"
    assert journey.done.message == "17 of 64 layers fall back; with 16 the demand is not met"


# Candidates


def test_a_fused_group_falls_back_together() -> None:
    groups = [["q", "k", "v"], "o", ["gate", "up"]]
    table = [False] * 4 + [True] * 3
    journey = travel(partial(fallback, groups), world(table), Weather())
    fallbacks = [proposal.parameters["fallback"] for proposal in journey.asked]
    assert fallbacks == [[], ["q", "k", "v", "o"], ["q", "k", "v"]]
    assert journey.done.message == "2 of 3 layer groups fall back; with 1 the demand is not met"


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        (["a", ["b", "a"]], "repeated: a"),
        (["a", []], "every group at least one"),
        ([""], "needs a name"),
        ([3], "candidates"),
    ],
)
def test_wrong_candidates_are_refused(candidates: list[Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        fallback(candidates)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"ranking": []}, "no layer that could fall back"),
        ({}, "no usable ranking"),
        (
            {"ranking": [{"layers": ["a"], "score": 1.0}, {"layers": ["a"], "score": 0.0}]},
            "repeated",
        ),
    ],
)
@pytest.mark.parametrize("width", [1, 2])
def test_an_analysis_without_candidates_is_a_failure(
    data: Mapping[str, Any], said: str, width: int
) -> None:
    strategy = fallback(width=width)
    tell(strategy, ask(strategy), False)
    strategy.tell(ask(strategy), Outcome("measured", data=data))
    done = strategy.ask()
    assert isinstance(done, Done) and done.verdict == "failed" and said in done.message


def test_a_failed_analysis_does_not_spoil_a_satisfied_zero_fallback() -> None:
    strategy = fallback(width=2)
    zero, analysis = ask(strategy), ask(strategy)
    strategy.tell(analysis, Outcome("failed", error="no memory"))
    assert strategy.ask() is WAIT
    tell(strategy, zero, True)
    done = strategy.ask()
    assert isinstance(done, Done) and done.best == zero

    strategy = fallback(width=2)
    zero, analysis = ask(strategy), ask(strategy)
    strategy.tell(analysis, Outcome("failed", error="no memory"))
    tell(strategy, zero, False)
    done = strategy.ask()
    assert isinstance(done, Done) and done.verdict == "failed" and "no memory" in done.message


def test_takes_no_space() -> None:
    space = Space.model_validate({"x": {"type": "bool"}})
    with pytest.raises(ValueError, match="takes no space"):
        make_strategy("binary_fallback", {}, space=space, seed=0)


# Several at a time


@settings(deadline=None)
@given(st.integers(1, 70), st.data(), WEATHERS, st.booleans())
def test_width_and_order_do_not_change_the_answer(
    count: int, data: st.DataObject, weather: Weather, ranked: bool
) -> None:
    table = threshold(count, data.draw(st.integers(0, count + 1)))
    candidates = names(count) if ranked else []
    journey = travel(partial(fallback, candidates), world(table), weather)
    assert answer_of(journey.done) == reference(count, lambda number: table[number])[0]
    assert "contradict" not in journey.done.message


def test_bounds_and_answers_of_the_benchmark_hold() -> None:
    program = ROOT / "benchmarks" / "binary_fallback_rounds.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| 4 | given |" in done.stdout


def test_zero_fallback_and_analysis_go_together_when_there_is_room() -> None:
    strategy = fallback(width=2)
    zero, analysis = ask(strategy), ask(strategy)
    assert (zero.parameters, analysis.kind) == ({"fallback": []}, "analysis")
    assert strategy.ask() is WAIT
    tell(strategy, zero, True)
    assert strategy.obsolete() == {analysis.number}


def test_decided_probes_are_named_as_soon_as_they_are() -> None:
    strategy = fallback(names(8), width=3)
    zero, middle, other = ask(strategy), ask(strategy), ask(strategy)
    assert [level(zero), level(middle), level(other)] == [0, 3, 6]
    assert strategy.obsolete() == set()
    tell(strategy, middle, True)
    assert strategy.obsolete() == {other.number}
    tell(strategy, zero, True)
    assert strategy.obsolete() == {other.number}
    assert strategy.ask() is WAIT
    strategy.tell(other, Outcome("cancelled"))
    done = strategy.ask()
    assert isinstance(done, Done) and done.best == zero


def test_a_free_slot_works_ahead_where_the_answer_most_likely_lies() -> None:
    strategy = fallback(names(64), width=2)
    zero, middle = ask(strategy), ask(strategy)
    tell(strategy, zero, False)
    ahead = ask(strategy)
    assert ahead.labels["role"] == "ahead"
    assert ahead.why == "ahead: 11 of 64 layers (if the answer lies in 1..33)"
    tell(strategy, ahead, False)
    assert level(ask(strategy)) == 44, "34..64 has become the larger part"
    tell(strategy, middle, True)
    assert len(strategy.obsolete()) == 1
    assert level(ask(strategy)) == 22


@pytest.mark.parametrize("width", [2, 4, 8])
def test_working_ahead_stays_within_bounds_in_the_worst_of_worlds(width: int) -> None:
    """Every answer comes from the probe, and is the one, that leaves most to search."""
    strategy = fallback(names(64), width)
    most, asked, low, high = strategy.most(), 0, -1, 65
    flying: dict[int, Proposal] = {}
    while not isinstance(step := strategy.ask(), Done):
        if isinstance(step, Proposal):
            flying[step.number] = step
            asked += 1
            continue
        answers = [(high - level(probe), probe.number, False) for probe in flying.values()]
        answers += [(level(probe) - low, probe.number, True) for probe in flying.values()]
        rest, number, satisfied = max(answers)
        low, high = (low, low + rest) if satisfied else (high - rest, high)
        tell(strategy, flying.pop(number), satisfied)
        for useless in strategy.obsolete():
            strategy.tell(flying.pop(useless), Outcome("cancelled"))
        twin = fallback(names(64), width)
        twin.restore(strategy.state())
        strategy = twin
    assert most is not None and asked <= most


def test_a_cancelled_probe_that_is_still_needed_is_proposed_again() -> None:
    strategy = fallback(names(8))
    strategy.tell(ask(strategy), Outcome("cancelled"))
    again = ask(strategy)
    assert (level(again), again.repeat) == (0, 1)


def test_tells_how_much_is_to_come() -> None:
    assert [fallback(names(64), width).most() for width in (1, 2, 4)] == [8, 14, 20]
    strategy = fallback(names(64))
    left = []
    while isinstance(step := strategy.ask(), Proposal):
        left.append(strategy.remaining())
        tell(strategy, step, level(step) >= 40)
    assert left == [8, 7, 6, 4, 3, 2, 1]
    assert strategy.remaining() == 0
    assert fallback().most() is None and fallback().remaining() is None


# Measurements that contradict each other


def majorities(journey: Journey) -> dict[int, int]:
    """By level, how many more measurements were satisfied than not."""
    balance: dict[int, int] = defaultdict(int)
    for proposal, outcome in journey.measured():
        balance[level(proposal)] += 1 if outcome.satisfied else -1
    return balance


def check_delivery(journey: Journey) -> None:
    """What is delivered was measured good, and one level less was measured bad."""
    found = answer_of(journey.done)
    balance = majorities(journey)
    if found is None:
        return
    assert balance[found] > 0
    assert found == 0 or balance[found - 1] < 0
    if any(balance[larger] < 0 for larger in balance if larger > found):
        assert sum(level(proposal) == found for proposal, _ in journey.measured()) >= 2


@settings(deadline=None, max_examples=300)
@given(TABLES, WEATHERS)
def test_any_truth_ends_with_a_verified_locally_smallest_answer(
    table: list[bool], weather: Weather
) -> None:
    count = len(table) - 1
    journey = travel(partial(fallback, names(count)), world(table), weather)
    check_delivery(journey)
    assert len(journey.asked) <= 3 * (count + 1)
    sequential = reference(count, lambda number: table[number])[0]
    if "contradict" in journey.done.message and sequential is not None:
        found = answer_of(journey.done)
        assert found is not None and found <= sequential


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.data(), st.floats(0.3, 5), WEATHERS)
def test_noise_is_settled_by_majority(
    count: int, data: st.DataObject, softness: float, weather: Weather
) -> None:
    needed = data.draw(st.integers(0, count + 1))

    def noisy(proposal: Proposal) -> Outcome:
        chance = random.Random(f"{weather.seed}/{level(proposal)}/{proposal.repeat}")
        shifted = level(proposal) + chance.gauss(0, softness)
        return Outcome("measured", satisfied=shifted >= needed)

    journey = travel(partial(fallback, names(count)), noisy, weather)
    check_delivery(journey)
    measured = [level(proposal) for proposal, _ in journey.measured()]
    assert all(measured.count(number) <= 3 for number in measured)


def contradict(good: int = 6, bad: int = 12) -> tuple[Strategy, dict[int, Proposal]]:
    """A search over 17 layers in which ``good`` satisfied and the larger ``bad`` did not."""
    strategy = fallback(names(17), width=3)
    flying = {level(proposal): proposal for proposal in (ask(strategy) for _ in range(3))}
    assert set(flying) == {0, 6, 12}
    tell(strategy, flying[0], False)
    tell(strategy, flying[bad], False)
    tell(strategy, flying[good], True)
    return strategy, flying


def test_a_contradiction_is_said_and_both_levels_are_measured_again() -> None:
    strategy, _ = contradict()
    first, second = ask(strategy), ask(strategy)
    assert strategy.ask() is WAIT
    assert [(level(probe), probe.repeat) for probe in (first, second)] == [(6, 1), (12, 1)]
    assert strategy.obsolete() == set()
    assert first.why == (
        "re-test: 6 of 17 layers; a fallback of 6 met the demand, the larger one of 12 did not"
    )
    assert first.labels["contradictions"] == [[6, 12]]


def test_a_lucky_measurement_is_outvoted() -> None:
    strategy, _ = contradict()
    good, bad = ask(strategy), ask(strategy)
    tell(strategy, bad, False)
    tell(strategy, good, False)
    third = ask(strategy)
    assert (level(third), third.repeat) == (6, 2)
    assert strategy.best() is None
    tell(strategy, third, False)
    while isinstance(step := strategy.ask(), Proposal):
        assert level(step) > 12
        tell(strategy, step, level(step) >= 15)
    assert isinstance(step, Done) and answer_of(step) == 15
    assert "a fallback of 6 met the demand, the larger one of 12 did not" in step.message
    assert "settled by re-tests" in step.message


def test_an_unlucky_measurement_is_outvoted() -> None:
    strategy, _ = contradict()
    good, bad = ask(strategy), ask(strategy)
    tell(strategy, bad, True)
    tell(strategy, good, True)
    third = ask(strategy)
    assert (level(third), third.repeat) == (12, 2)
    tell(strategy, third, True)
    while isinstance(step := strategy.ask(), Proposal):
        assert 0 < level(step) < 6
        tell(strategy, step, level(step) >= 4)
    assert isinstance(step, Done) and answer_of(step) == 4


def test_a_confirmed_contradiction_follows_sequential_bisection_too() -> None:
    table = [False] * 18
    for good in (2, 6, 7, 9):
        table[good] = True
    strategy, _ = contradict()
    asked = []
    while isinstance(step := strategy.ask(), Proposal):
        asked.append((level(step), step.labels["role"]))
        assert strategy.obsolete() == set()
        tell(strategy, step, table[level(step)])
    assert asked[:4] == [(6, "retest"), (12, "retest"), (9, "replay"), (5, "replay")]
    assert isinstance(step, Done) and answer_of(step) == 6
    assert "which re-tests confirmed" in step.message


# Failures


def test_a_failed_probe_is_replaced_by_its_neighbour_and_never_counts_as_bad() -> None:
    strategy = fallback(names(8))
    tell(strategy, ask(strategy), False)
    middle = ask(strategy)
    assert level(middle) == 4
    strategy.tell(middle, Outcome("failed", error="node lost"))
    neighbour = ask(strategy)
    assert level(neighbour) in (3, 5)
    tell(strategy, neighbour, True)
    asked = []
    while isinstance(step := strategy.ask(), Proposal):
        asked.append(level(step))
        tell(strategy, step, level(step) >= 2)
    assert 4 not in asked
    assert isinstance(step, Done) and answer_of(step) == 2


def test_a_level_that_could_not_be_measured_is_said() -> None:
    strategy = fallback(names(4))
    while isinstance(step := strategy.ask(), Proposal):
        if level(step) == 2:
            strategy.tell(step, Outcome("failed", error="node lost"))
        else:
            tell(strategy, step, level(step) >= 3)
    assert isinstance(step, Done) and answer_of(step) == 3
    assert step.message == (
        "3 of 4 layers fall back; with 1 the demand is not met. "
        "Could not be measured: a fallback of 2"
    )


def test_exhausted_is_only_said_when_full_fallback_was_measured() -> None:
    strategy = fallback(names(4))
    while isinstance(step := strategy.ask(), Proposal):
        if level(step) == 4:
            strategy.tell(step, Outcome("failed", error="node lost"))
        else:
            tell(strategy, step, False)
    assert isinstance(step, Done) and step.verdict == "failed"
    exhausted = travel(partial(fallback, names(4)), world([False] * 5), Weather()).done
    assert exhausted.verdict == "exhausted"
    assert "even with all 4 layers in fallback" in exhausted.message
    assert "unquantized model" in exhausted.message


def test_too_many_failures_end_the_search_with_what_is_known() -> None:
    strategy = fallback(names(64), max_failures=1)
    tell(strategy, ask(strategy), False)
    tell(strategy, ask(strategy), True)
    for _ in range(2):
        strategy.tell(ask(strategy), Outcome("failed", error="node lost"))
    done = strategy.ask()
    assert isinstance(done, Done) and answer_of(done) == 32
    assert "cut short: 2 trials failed" in done.message


def test_a_failed_re_test_leaves_the_first_measurement_standing() -> None:
    strategy, _ = contradict()
    good, bad = ask(strategy), ask(strategy)
    strategy.tell(good, Outcome("failed", error="node lost"))
    tell(strategy, bad, False)
    while isinstance(step := strategy.ask(), Proposal):
        assert (level(step), step.repeat) != (6, 2)
        tell(strategy, step, False)
    assert isinstance(step, Done) and answer_of(step) == 6


def test_a_tie_that_cannot_be_broken_is_not_delivered() -> None:
    strategy, _ = contradict()
    good, bad = ask(strategy), ask(strategy)
    tell(strategy, bad, False)
    tell(strategy, good, False)
    strategy.tell(ask(strategy), Outcome("failed", error="node lost"))
    while isinstance(step := strategy.ask(), Proposal):
        assert level(step) > 12
        tell(strategy, step, level(step) >= 15)
    assert isinstance(step, Done) and answer_of(step) == 15


def test_needs_to_be_told_whether_the_demand_is_met() -> None:
    strategy = fallback(names(4))
    with pytest.raises(ValueError, match="whether the demand is satisfied"):
        strategy.tell(ask(strategy), Outcome("measured", objective=0.7))


# The contract


@pytest.mark.parametrize("needed", [0, 1, 7, 19, 20, 21])
@pytest.mark.parametrize("candidates", [names(20), []], ids=["given", "analysed"])
def test_keeps_the_contract(needed: int, candidates: list[str]) -> None:
    prefixes = [names(20)[:number] for number in range(21)]

    def inside(proposal: Proposal) -> bool:
        return proposal.kind == "analysis" or proposal.parameters["fallback"] in prefixes

    check_strategy(partial(fallback, candidates), world(threshold(20, needed)), inside=inside)


@settings(deadline=None, max_examples=25)
@given(TABLES, st.integers(1, 5))
def test_keeps_the_contract_whatever_the_truth(table: list[bool], width: int) -> None:
    candidates = names(len(table) - 1)
    check_strategy(partial(fallback, candidates), world(table), widths=(width,), seeds=(0,))
