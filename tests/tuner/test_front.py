"""Which measured points are worth choosing among."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trainables import Measurement
from tuner._front import pareto_front
from tuner.experiment import Objective

TWO = Objective.model_validate(
    {"maximize": "speed", "minimize": "wait", "limits": [{"metric": "wait", "max": 9}]}
)


def measured(speed: float, wait: float, **data: Any) -> Measurement:
    metrics = {"speed": speed, "wait": wait}
    return Measurement("i", "t", "candidate", {}, 0, metrics, data, {}, {}, (), 1, "r", "", 1.0)


def values(found: list[Measurement]) -> list[tuple[float, float]]:
    return [(item.metrics["speed"], item.metrics["wait"]) for item in found]


def test_the_front_holds_what_nothing_beats_in_everything() -> None:
    points = [measured(10, 5), measured(8, 2), measured(7, 3), measured(12, 10), measured(10, 5)]
    assert values(pareto_front(points, TWO, None)) == [(10, 5), (10, 5), (8, 2)]


def test_what_was_given_up_is_no_part_of_it() -> None:
    points = [measured(10, 5, stopped={"by": "windows"}), measured(8, 6)]
    assert values(pareto_front(points, TWO, None)) == [(8, 6)]


def test_one_objective_has_no_front() -> None:
    single = Objective.model_validate({"maximize": "speed"})
    assert pareto_front([measured(1, 1)], single, None) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_every_point_is_on_the_front_or_beaten_by_one_of_it(points: list[tuple[int, int]]) -> None:
    front = values(pareto_front([measured(*point) for point in points], TWO, None))
    for speed, wait in points:
        beaten = any(s >= speed and w <= wait for s, w in front)
        assert beaten or (speed, wait) in front
