"""The virtual clock, and what strategies are told on it."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from searchers import Strategy
from tests.tuner.replay.tables import SWEEP, Scripted, point, task
from tuner.replay import (
    Case,
    Contender,
    NeverRecorded,
    Settings,
    TableTask,
    replay,
    simulate,
)

TIMED = """
    tp,load,engine,throughput,ttft,duration
    1,1,a,10,0.1,5
    1,8,a,60,0.5,1
    2,1,a,15,0.1,2
    2,8,a,100,0.9,7
"""
ALL = [point(tp, load, "a") for tp in (1, 2) for load in (1, 8)]


def test_one_at_a_time_takes_the_sum_of_the_durations(tmp_path: Path) -> None:
    strategy = Scripted(ALL)
    run = simulate(task(tmp_path, TIMED), strategy, budget=10)
    assert run.times == [5, 6, 8, 15]
    assert run.truths == [10, 60, 15, 100]
    assert [number for number, _ in strategy.told] == [0, 1, 2, 3]
    assert (run.best, run.ended, run.asked) == ((100, ALL[3]), "done", 4)


def test_two_at_once_end_in_the_order_of_their_durations(tmp_path: Path) -> None:
    strategy = Scripted(ALL)
    run = simulate(task(tmp_path, TIMED), strategy, budget=10, workers=2)
    assert [number for number, _ in strategy.told] == [1, 2, 0, 3]
    assert run.times == [1, 3, 5, 10]
    assert run.truths == [60, 15, 10, 100]


def test_the_budget_ends_the_asking_and_what_flies_still_counts(tmp_path: Path) -> None:
    strategy = Scripted(ALL)
    run = simulate(task(tmp_path, TIMED), strategy, budget=3, workers=2)
    assert (len(run.truths), run.asked, run.ended) == (3, 3, "budget")


def test_durations_nobody_recorded_are_alike_but_not_equal(tmp_path: Path) -> None:
    one = task(tmp_path)
    run = simulate(one, Scripted(ALL), budget=4)
    steps = [end - begun for begun, end in zip([0.0, *run.times], run.times, strict=False)]
    assert len(set(steps)) == 4
    assert all(0.5 < step < 2 for step in steps)
    assert simulate(one, Scripted(ALL), budget=4).times == run.times
    assert simulate(one, Scripted(ALL), budget=4, seed=1).times != run.times


def test_a_strategy_is_told_metrics_verdict_and_failures(tmp_path: Path) -> None:
    text = "tp,load,engine,throughput,ttft,power\n1,1,a,10,0.1,300\n2,1,a,50,3,400\n4,1,a,,,\n"
    strategy = Scripted([point(tp, 1, "a") for tp in (1, 2, 4)])
    one = task(tmp_path, text)
    run = simulate(one, strategy, budget=3)
    good, slow, failed = (outcome for _, outcome in strategy.told)
    assert good.metrics == {"throughput": 10, "ttft": 0.1, "power": 300}
    assert (good.satisfied, good.objective) == (True, 10)
    assert (slow.satisfied, slow.objective) == (False, 50)
    assert (failed.status, failed.error) == ("failed", "no throughput, ttft was recorded")
    assert run.truths == [10, None, None]
    assert strategy.goal.objectives == (("throughput", 1),)


def hole(tmp_path: Path, missing: str = "free") -> TableTask:
    """The sweep without (2, 1, a) and (1, 8, b)."""
    text = SWEEP.replace("    2,1,a,15,0.1\n", "").replace("    1,8,b,97,0.8\n", "")
    return task(tmp_path, text, missing=missing)


def test_points_without_a_row_are_free_and_told_as_failed(tmp_path: Path) -> None:
    strategy = Scripted(ALL)
    run = simulate(hole(tmp_path), strategy, budget=3)
    assert run.truths == [10, 60, 100]
    assert (run.unrecorded, run.asked) == (1, 4)
    assert strategy.told[2][1].status == "failed"


def test_points_without_a_row_may_count_or_be_an_error(tmp_path: Path) -> None:
    run = simulate(hole(tmp_path), Scripted(ALL), budget=3, missing="count")
    assert run.truths == [10, 60, None]
    with pytest.raises(NeverRecorded, match='"engine": "a", "load": 1, "tp": 2'):
        simulate(hole(tmp_path), Scripted(ALL), budget=3, missing="fail")


def test_points_without_a_row_may_be_answered_by_the_nearest(tmp_path: Path) -> None:
    space = "{tp: {type: int, low: 1, high: 64}, load: {type: enum, values: [1, 8]}, "
    space += "engine: {type: enum, values: [a, b]}}"
    one = task(tmp_path, space=space, missing="nearest")
    points = [point(64, 8, "a"), point(40, 1, "b")]
    run = simulate(one, Scripted(points), budget=2, missing="nearest")
    assert (run.truths, run.unrecorded) == ([100, 20], 0)


def test_free_points_without_a_row_are_bounded(tmp_path: Path) -> None:
    strategy = Scripted([point(2, 1, "a")] * 100_000)
    run = simulate(hole(tmp_path), strategy, budget=2)
    assert (run.ended, run.truths) == ("unrecorded", [])
    assert run.asked == 1101


def test_a_point_asked_again_counts_again(tmp_path: Path) -> None:
    run = simulate(task(tmp_path), Scripted([ALL[0], ALL[0], ALL[3]]), budget=10)
    assert (run.truths, run.duplicates) == ([10, 10, 100], 1)


def test_a_run_may_end_when_it_has_found_enough(tmp_path: Path) -> None:
    run = simulate(task(tmp_path), Scripted([ALL[1], ALL[3], ALL[0]]), budget=10, enough=95)
    assert (run.truths, run.ended) == ([60, 100], "found")


def test_a_strategy_that_waits_for_nothing_ends_the_run(tmp_path: Path) -> None:
    class Stuck(Scripted):
        def tell(self, *_: object) -> None:
            """Loses what it is told."""

    run = simulate(task(tmp_path), Stuck(ALL), budget=10)
    assert (run.ended, len(run.truths)) == ("stuck", 4)


def test_obsolete_trials_are_cancelled_and_count(tmp_path: Path) -> None:
    class Decided(Scripted):
        def obsolete(self) -> frozenset[int]:
            return frozenset({0}) if self.told and self.told[0][0] == 1 else frozenset()

    strategy = Decided(ALL)
    run = simulate(task(tmp_path, TIMED), strategy, budget=10, workers=2)
    assert [(n, outcome.status) for n, outcome in strategy.told] == [
        (1, "measured"),
        (0, "cancelled"),
        (2, "measured"),
        (3, "measured"),
    ]
    assert run.times == [1, 1, 3, 8]
    assert run.truths == [60, None, 15, 100]


def test_repeats_are_drawn_alike_for_every_strategy(tmp_path: Path) -> None:
    text = "tp,load,engine,throughput,ttft\n" + "".join(f"1,1,a,{n},0.5\n" for n in range(100, 200))
    text += "2,1,a,5,0.5\n"
    one = task(tmp_path, text, repeats="random")
    told = []
    for before in (0, 1):
        strategy = Scripted([point(2, 1, "a")] * before + [point(1, 1, "a")] * 3)
        run = simulate(one, strategy, budget=10)
        told.append([outcome.objective for _, outcome in strategy.told][before:])
        assert run.truths[before:] == [149.5] * 3
    assert told[0] == told[1]
    assert len(set(told[0])) > 1


def searches(world: TableTask, seed: int, workers: int) -> list[float | None]:
    strategy: Strategy = Contender("random", "random").strategy(world.space, seed=seed, trials=8)
    return simulate(world, strategy, budget=8, workers=workers, seed=seed).truths


@pytest.mark.parametrize("workers", [1, 3])
def test_every_configuration_is_met_once_whatever_the_width(tmp_path: Path, workers: int) -> None:
    one = task(tmp_path)
    for seed in range(5):
        truths = searches(one, seed, workers)
        assert Counter(truths) == Counter([10, 60, 15, 100, 12, 97, 20, None])
        assert truths == searches(one, seed, workers)


def test_random_search_needs_what_drawing_without_replacement_needs(tmp_path: Path) -> None:
    one = task(tmp_path)
    firsts = []
    for seed in range(400):
        truths = searches(one, seed, workers=1)
        firsts.append(1 + next(n for n, truth in enumerate(truths) if truth and truth >= 95))
    assert fmean(firsts) == pytest.approx(9 / 3, rel=0.1)


def test_alike_tasks_are_searched_with_different_luck(tmp_path: Path) -> None:
    one = task(tmp_path)
    twins = [replace(one, name=f"twin {number}") for number in range(20)]
    settings = Settings(seeds=1)
    runs = replay(twins, [Contender("random", "random")], settings)
    assert len({tuple(run.truths) for [run] in runs.values()}) > 15
    alone = replay(twins[-1:], [Contender("random", "random")], settings)
    assert alone[Case(0, 0, 1)][0].truths == runs[Case(0, 19, 1)][0].truths


def test_what_chance_decides_does_not_touch_the_global_generator(tmp_path: Path) -> None:
    random.seed(7)
    before = json.dumps(random.getstate())
    searches(task(tmp_path), seed=0, workers=2)
    assert json.dumps(random.getstate()) == before
