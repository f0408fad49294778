"""What the log says a trial tries."""

from __future__ import annotations

from typing import Any

import pytest

from searchers import Proposal
from tuner._tried import tried


def said(parameters: dict[str, Any], why: str) -> str:
    return tried(Proposal(0, parameters, "candidate", 0, why, {}))


@pytest.mark.parametrize(
    ("parameters", "why", "expected"),
    [
        ({"seqs": 16384, "share": 0.9, "eager": True}, "", "seqs 16384, share 0.9, eager true"),
        ({"seqs": 64}, "expected gain 3 %", "seqs 64 (expected gain 3 %)"),
        ({"seqs": 64, "block": 16}, "instead of the best so far: seqs 64", None),
        ({"fallback": ["a", "b"]}, "bisection: 2 of 8 layers", None),
        (
            {"x": 1, "tp": 2},
            "expected gain 3 % of output",
            "x 1, tp 2 (expected gain 3 % of output)",
        ),
        ({}, "baseline: what all else is compared with", None),
    ],
)
def test_parameters_are_named_once(
    parameters: dict[str, Any], why: str, expected: str | None
) -> None:
    assert said(parameters, why) == (why if expected is None else expected)


def test_many_parameters_do_not_fill_the_line() -> None:
    line = said({f"name{number}": number for number in range(20)}, "random")
    assert line.endswith("name7 7 and 12 more (random)")
