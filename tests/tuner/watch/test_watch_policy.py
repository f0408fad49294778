"""When a run is started again."""

from __future__ import annotations

import pytest

from tuner.watch import RestartPolicy, ending


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        *((code, "normal") for code in (0, 2, 3, 4)),
        *((code, "stopped") for code in (130, 143, -2, -15)),
        *((code, "crash") for code in (1, 5, 137, -9, -11, -6, 134)),
    ],
)
def test_ends_and_crashes_are_told_apart(code: int, meaning: str) -> None:
    assert ending(code) == meaning


def test_restarts_become_rarer_and_stop_when_they_do_not_help() -> None:
    policy = RestartPolicy(first_s=5, most_s=30, crashes=6, within_s=100)
    crashes: list[float] = []
    delays = []
    for at in (0, 1, 2, 3, 4, 5):
        crashes.append(at)
        delays.append(policy.delay(crashes))
    assert delays == [5, 10, 20, 30, 30, None]


def test_crashes_of_long_ago_are_forgotten() -> None:
    policy = RestartPolicy(first_s=5, most_s=300, crashes=3, within_s=100)
    assert policy.delay([0, 50]) == 10
    assert policy.delay([0, 50, 100]) is None
    assert policy.delay([0, 50, 101]) == 10
    assert policy.delay([0, 50, 500]) == 5
