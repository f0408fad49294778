"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.experiment import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1D", 86400),
        ("2H", 7200),
        ("3D4H", 273600),
        ("1D2H30M15S", 95415),
        ("30M", 1800),
        ("45S", 45),
        ("0S", 0),
        ("1D30M", 88200),
        (7200, 7200),
        (0.5, 0.5),
    ],
)
def test_accepted_forms(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "D", "2h", "4H3D", "1.5H", "60", " 2H", "2H\n", -1, True, None, [1]]
)
def test_refused_forms(text: object) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@given(st.integers(0, 100), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"{days}D{hours}H{minutes}M{seconds}S"
    assert parse_duration(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def test_people_read_the_two_leading_units() -> None:
    assert [format_duration(seconds) for seconds in (0.4, 59, 61, 3600, 90061)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
