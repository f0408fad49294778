"""What a run's view counts: devices' time by phase, failures by class, how far demands are met."""

from __future__ import annotations

from typing import Any

import pytest

from searchers import Outcome, Proposal
from tuner._campaign import Event, Ticket
from tuner._phases import phase_of
from tuner._view import RunView
from tuner.experiment import Objective


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A view under a clock of its own, and short words for what it hears."""

    def __init__(self, **objective: Any) -> None:
        self.clock = Clock()
        wanted = Objective.model_validate(objective or {"maximize": "rate"})
        self.view = RunView("run", wanted, clock=self.clock)

    def ticket(self, name: str) -> Ticket:
        return Ticket(Proposal(0, {"a": name}), "search", 0, name)

    def begins(self, name: str) -> None:
        self.view.on_event(Event("proposed", self.ticket(name)))

    def reports(self, name: str, stage: str, seconds: float, **resources: float) -> None:
        bundles = [{"resources": resources, "labels": {}}]
        self.view.on_report(
            {
                "identity": name,
                "status": "running",
                "stage": stage,
                "hostname": "node-1",
                "node_ip": "10.0.0.1",
                "time_total_s": seconds,
                "config": {"placement": {"bundles": bundles * 2, "strategy": "PACK"}},
            }
        )

    def ends(self, name: str, outcome: Outcome) -> None:
        self.view.on_event(Event(outcome.status, self.ticket(name), outcome))


@pytest.mark.parametrize(
    ("stage", "phase"),
    [
        ("deploy", "starting"),
        ("health", "starting"),
        ("quantize", "producing"),
        ("deliver", "producing"),
        ("benchmark-12", "measuring"),
        ("evaluate", "measuring"),
        ("a stage of a plug-in", "measuring"),
    ],
)
def test_stages_belong_to_phases(stage: str, phase: str) -> None:
    assert phase_of(stage) == phase


def test_devices_are_counted_from_the_start_of_the_trial_not_from_its_place_in_the_queue() -> None:
    watched = Watched()
    watched.begins("t")
    watched.clock.now += 1000.0
    watched.reports("t", "deploy", 2.0, NPU=4, CPU=8)
    watched.clock.now += 8.0
    watched.reports("t", "benchmark-1", 10.0, NPU=4, CPU=8)
    watched.clock.now += 20.0
    watched.ends("t", Outcome("measured", {"rate": 1.0}))
    assert watched.view.resource == "NPU"
    assert watched.view.device_seconds == pytest.approx(
        {"starting": 10.0 * 8, "measuring": 20.0 * 8, "producing": 0.0}
    )
    row = watched.view.rows[-1]
    assert (row.node, row.devices) == ("node-1", 8.0)


def test_running_trials_are_told_with_the_address_of_their_node() -> None:
    watched = Watched()
    watched.begins("t")
    assert watched.view.to_json()["running"][0]["node"] == ""
    watched.reports("t", "deploy", 2.0, NPU=1)
    assert watched.view.to_json()["running"][0]["node"] == "10.0.0.1"


def test_on_which_nodes_a_trial_holds_what_is_told_once() -> None:
    watched = Watched()
    watched.begins("t")
    bundles = [{"resources": {"CPU": 1.0}}, {"resources": {"NPU": 4.0}}]
    report = {
        "identity": "t",
        "node_ip": "10.0.0.1",
        "addresses": [],
        "config": {"placement": {"bundles": bundles}},
    }
    assert watched.view.spread(report) == []
    report["addresses"] = ["10.0.0.2"]
    assert watched.view.spread(report) == [
        {"address": "10.0.0.1", "resources": {"CPU": 1.0}},
        {"address": "10.0.0.2", "resources": {"NPU": 4.0}},
    ]
    assert watched.view.spread(report) == []


def test_counting_twice_counts_once() -> None:
    watched = Watched()
    watched.begins("t")
    watched.reports("t", "benchmark-1", 0.0, NPU=1)
    watched.clock.now += 5.0
    watched.view.count_devices()
    watched.view.count_devices()
    assert watched.view.device_seconds["measuring"] == pytest.approx(10.0)


def test_failures_are_counted_by_class() -> None:
    watched = Watched()
    for name, failure in (("a", "device"), ("b", "device"), ("c", "timeout")):
        watched.begins(name)
        watched.ends(name, Outcome("failed", data={"failure": {"class": failure}}, error="x"))
    assert watched.view.failures == {"device": 2, "timeout": 1}


def test_attainment_is_the_share_of_demands_met() -> None:
    watched = Watched(
        maximize="rate",
        limits=[{"metric": "ttft", "max": 1.0}, {"metric": "tpot", "max": 0.1}],
    )
    watched.begins("t")
    watched.ends("t", Outcome("measured", {"rate": 5.0, "ttft": 0.5, "tpot": 0.5}))
    assert watched.view.last is not None
    assert (watched.view.last.attainment, watched.view.last.value) == (0.5, 5.0)


def test_what_is_minimised_keeps_its_sign() -> None:
    watched = Watched(minimize="latency")
    watched.begins("t")
    watched.ends("t", Outcome("measured", {"latency": 3.0}))
    assert watched.view.last is not None and watched.view.last.value == 3.0
