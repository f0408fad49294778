"""What a run says in a terminal and in a log file."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from searchers import Outcome, Proposal
from tuner._campaign import Event, Ticket
from tuner._terminal import Terminal
from tuner._view import RunView
from tuner.experiment import Objective

LIMITS = [{"metric": "ttft_p90_s", "max": 0.1}, {"metric": "success_rate", "min": 1.0}]
SIMULATED = "simulated (latency analytic), nothing was measured"


class Log:
    """The log of a run under a clock of its own."""

    def __init__(self, **objective: Any) -> None:
        self.now = 0.0
        wanted = Objective.model_validate(objective or {"maximize": "rate", "limits": LIMITS})
        self.view = RunView("run", wanted, clock=lambda: self.now)
        self.file = io.StringIO()
        console = Console(file=self.file, highlight=False, soft_wrap=True)
        self.terminal = Terminal(self.view, console)

    def begins(self, number: int, kind: str = "candidate", why: str = "") -> None:
        self._hears(number, kind, "proposed", why=why)

    def ends(self, number: int, outcome: Outcome, kind: str = "candidate") -> None:
        self._hears(number, kind, outcome.status, outcome)

    def reports(self, number: int, stage: str) -> None:
        report = {"identity": f"{number:032x}", "status": "running", "stage": stage}
        self.view.on_report(report)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.terminal.tick()

    def lines(self) -> list[str]:
        """All that is new, without the clock."""
        said = [line.partition("] ")[2] for line in self.file.getvalue().splitlines()]
        self.file.truncate(0)
        self.file.seek(0)
        return said

    def _hears(
        self, number: int, kind: Any, event: Any, outcome: Outcome | None = None, *, why: str = ""
    ) -> None:
        proposal = Proposal(number, {"seqs": number}, kind, why=why)
        told = Event(event, Ticket(proposal, "search", number, f"{number:032x}"), outcome)
        self.terminal.event(told, self.view.on_event(told))


def measured(rate: float, ttft: float = 0.05, **data: Any) -> Outcome:
    return Outcome("measured", {"rate": rate, "ttft_p90_s": ttft, "success_rate": 1.0}, data)


def test_what_all_trials_have_to_keep_is_said_once() -> None:
    log = Log()
    with log.terminal:
        log.begins(1, why="random point")
        log.now = 42.0
        log.ends(1, measured(16254.3))
    assert log.lines() == [
        "wanted: maximize rate; ttft_p90_s <= 0.1, success_rate >= 1",
        "#1 starts: seqs 1 (random point)",
        "#1 took 42 s: satisfied: rate 16250, ttft_p90_s 0.05, success_rate 1",
    ]


def test_a_demand_that_is_not_met_stands_beside_its_value() -> None:
    log = Log()
    log.begins(1)
    log.ends(1, measured(5.0, ttft=0.2))
    assert log.lines()[1].endswith(
        "not satisfied: rate 5, ttft_p90_s 0.2 (demand <= 0.1), success_rate 1"
    )


def test_what_is_relative_to_the_baseline_is_said_in_numbers_once_that_is_there() -> None:
    log = Log(expectations=[{"metric": "accuracy", "target": "baseline", "tolerance": "5%"}])
    with log.terminal:
        log.begins(0, "baseline", why="baseline: what all else is compared with")
        log.ends(0, Outcome("measured", {"accuracy": 0.8}), "baseline")
    first, starts, _, now = log.lines()
    assert first == "wanted: accuracy at most 5 % worse than the baseline's"
    assert starts == "#0 baseline starts: seqs 0 (what all else is compared with)"
    assert now == "wanted: accuracy >= 0.76"


def test_how_an_engine_is_simulated_is_said_once() -> None:
    log = Log()
    given_up = "given up (incumbent): at most 5 rate, the best known has 9"
    runs = [{"stage": "probe-1"}]
    for number, note in enumerate(
        (
            f"{SIMULATED}; the weights are not here",
            f"{given_up}; {SIMULATED}; the weights are not here",
            f"{SIMULATED}; probe-1: 3 of 9 requests failed",
            f"{SIMULATED}; probe-1: 3 of 9 requests failed",
        )
    ):
        log.begins(number)
        log.ends(number, measured(9.0, note=note, simulation={}, runs=runs))
    said = log.lines()
    assert [line for line in said if SIMULATED in line or "weights" in line] == [
        f"for all trials: {SIMULATED}; the weights are not here"
    ]
    assert sum(line.endswith(f", {given_up}") for line in said) == 1
    assert sum(line.endswith(", probe-1: 3 of 9 requests failed") for line in said) == 2
    assert log.view.to_json()["notes"] == [SIMULATED, "the weights are not here"]


def test_of_a_trial_that_was_given_up_the_reason_counts() -> None:
    log = Log()
    log.begins(1)
    log.ends(1, measured(5.0, stopped={"by": "incumbent"}, note="given up: at most 8 rate"))
    assert log.lines()[1].endswith(": cannot win: rate 5, given up: at most 8 rate")


def test_a_note_of_a_real_trial_stays_with_it() -> None:
    log = Log()
    for number in range(2):
        log.begins(number)
        log.ends(number, measured(9.0, note="a warm engine"))
    assert sum(line.endswith(", a warm engine") for line in log.lines()) == 2


def test_only_long_stages_are_told_and_each_once() -> None:
    log = Log()
    log.begins(1)
    for stage, seconds in (("place", 1.0), ("deploy", 30.0), ("probe-1", 2.0)):
        log.reports(1, stage)
        for _ in range(10):
            log.later(seconds / 10)
    assert [line for line in log.lines() if "stage" in line] == ["#1 stage deploy"]


def test_a_log_gives_a_sign_of_life() -> None:
    log = Log()
    log.begins(1)
    log.reports(1, "deploy")
    log.later(30)
    log.lines()
    log.later(61)
    assert log.lines() == ["0 measured, 0 reused, 0 failed", "running: #1 deploy for 1 min 31 s"]


@pytest.mark.parametrize(
    ("status", "data", "expected"),
    [
        ("failed", {"failure": {"class": "device"}}, "failed after 8 s: device: it broke"),
        ("cancelled", {}, "cancelled after 8 s: its answer is known without it"),
    ],
)
def test_what_came_to_nothing_says_why(status: Any, data: dict[str, Any], expected: str) -> None:
    log = Log()
    log.begins(255)
    log.now = 8.0
    log.ends(255, Outcome(status, data=data, error="it broke"))
    folder = f"  [{'0' * 16}]" if status == "failed" else ""
    assert log.lines()[1] == f"#255 {expected}{folder}"
