"""Iterations of a live vLLM: what is recorded of them.

The stand-ins have what the recorder reads of vLLM's scheduler and of its outputs, by the same
names; ``test_a_real_vllm`` shows that the real one has it too.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.latency.live import (
    Bench,
    output,
)


@pytest.mark.parametrize("old", [False, True])
def test_what_is_scheduled_is_recorded(old: bool) -> None:
    bench = Bench(a=100, b=40)
    bench.work(10.0, 10.5, output(("a", 64, 0)))
    bench.work(10.75, 11.0, output(("b", 28, 12), cached=[("a", 36, 64)], old=old))
    bench.work(11.0, 11.25, output(cached=[("a", 1, 100), ("b", 1, 40)], old=old), busy=False)
    bench.work(20.0, 20.5, output(cached=[("b", 1, 41)], old=old))
    assert [(one["prefills"], one["decodes"]) for one in bench.records] == [
        ([[64, 0]], []),
        ([[36, 64], [28, 12]], []),
        ([], [100, 40]),
        ([], [41]),
    ]
    times = [(one["at"], one["seconds"], one["gap"], one["cpu"]) for one in bench.records]
    assert times == [
        (10.0, 0.5, None, 0.125),
        (10.75, 0.25, 0.25, 0.0625),
        (11.0, 0.25, 0.0, 0.0625),
        (20.0, 0.5, None, 0.125),
    ]
    assert {(one["running"], one["waiting"]) for one in bench.records} == {(2, 1)}


def test_with_asynchronous_scheduling_each_iteration_gets_the_time_it_had_for_itself() -> None:
    bench = Bench(a=10)
    first = bench.scheduled(0.0, output(("a", 10, 0)))
    second = bench.scheduled(0.1, output(cached=[("a", 1, 10)]))
    bench.arrived(1.0, first)
    third = bench.scheduled(1.1, output(cached=[("a", 1, 11)]))
    bench.arrived(1.4, second)
    bench.arrived(1.7, third)
    found = [(one["at"], one["seconds"], one["gap"], one["cpu"]) for one in bench.records]
    assert found == [(0.0, 1.0, None, 0.25), (1.0, 0.4, 0.0, 0.1), (1.4, 0.3, 0.0, 0.075)]


def test_a_part_of_a_prompt_is_one_however_short_and_so_is_what_is_computed_again() -> None:
    bench = Bench(a=33, b=50)
    last_token = bench.work(0, 1, output(cached=[("a", 1, 32)]))
    assert (last_token["prefills"], last_token["decodes"]) == ([[1, 32]], [])
    after_preemption = bench.work(1, 2, output(cached=[("b", 60, 0), ("a", 1, 33)]))
    assert (after_preemption["prefills"], after_preemption["decodes"]) == ([[60, 0]], [33])
    speculation = bench.work(2, 3, output(cached=[("a", 4, 34)]))
    assert (speculation["prefills"], speculation["decodes"]) == ([[4, 34]], [])


def test_what_computes_nothing_or_was_never_seen_leaves_no_record() -> None:
    bench = Bench(a=10)
    empty = bench.scheduled(0.0, output())
    lost = bench.scheduled(0.5, output(("a", 5, 0)))
    kept = bench.scheduled(1.0, output(cached=[("a", 5, 5)]))
    bench.arrived(1.5, empty)
    bench.arrived(2.0, output(("a", 5, 0)))
    bench.arrived(3.0, kept)
    bench.arrived(4.0, lost)
    assert [one["prefills"] for one in bench.records] == [[[5, 5]]]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 5), st.booleans()), max_size=30))
def test_iterations_never_overlap_and_fill_the_time_that_the_engine_was_busy(
    course: list[tuple[float, float, bool]],
) -> None:
    bench = Bench(a=1)
    batches = [output(cached=[("a", 1, number + 1)]) for number in range(len(course) + 1)]
    bench.scheduled(0.0, batches[0])
    now = 0.0
    for number, (pause, duration, early) in enumerate(course):
        if early:
            now += pause
            bench.scheduled(now, batches[number + 1])
        now += duration
        bench.arrived(now, batches[number])
        if not early:
            now += pause
            bench.scheduled(now, batches[number + 1])
    end = 0.0
    for one in bench.records:
        assert one["seconds"] > 0
        assert one["at"] == pytest.approx(end + (one["gap"] or 0.0), abs=1e-4)
        end = one["at"] + one["seconds"]
