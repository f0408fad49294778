"""How a server comes up, does not, or is not ours; and that nothing of a trial is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, lease_ports, port_owners
from tests.later import later
from tests.trainables.script.conftest import Carried, Make, finished, foreign_server, free_port
from trainables import CANCEL, TrialPump, TrialSpec


def test_a_start_that_crashes_is_told_with_its_exit_code_and_its_last_words(
    carry_out: Carried,
) -> None:
    failure = carry_out({"BEHAVIOUR": "crash"})["failure"]
    assert (failure["class"], failure["stage"]) == ("startup", "start")
    assert "ended with exit code 3" in failure["message"]
    assert "s after its start, before it served" in failure["message"]
    assert "RuntimeError: the weights are of another model" in failure["excerpt"]
    record = failure["record"]
    assert (record["status"], record["phase"], record["exit_code"]) == ("crashed", "startup", 3)
    assert record["startup_s"] > 0
    assert record["eval_runs"] == []


def test_a_start_that_hangs_is_a_timeout_with_its_seconds(carry_out: Carried) -> None:
    failure = carry_out({"BEHAVIOUR": "hang"}, ready={"timeout": 1}, stop_grace=0.2)["failure"]
    assert failure["class"] == "timeout"
    assert f"did not serve within {failure['record']['startup_s']:.1f} s" in failure["message"]
    assert "does not listen on port" in failure["message"]
    assert "trial.ready.timeout" in failure["suggestion"]
    record = failure["record"]
    assert (record["status"], record["exit_code"]) == ("timeout", None)
    assert record["health"]["status"] is None
    assert record["startup_s"] >= 1


def test_a_start_that_leaves_its_server_in_the_background_is_told_to_stay(
    carry_out: Carried,
) -> None:
    failure = carry_out({"BEHAVIOUR": "leave"})["failure"]
    assert failure["class"] == "startup"
    assert "ended with exit code 0" in failure["message"]
    assert "has to stay in the foreground" in failure["suggestion"]


@pytest.mark.parametrize("status", [200, 404, 499])
def test_any_answer_within_the_range_is_ready(carry_out: Carried, status: int) -> None:
    report = carry_out({"STATUS": status}, evaluate={"runs": 1})
    assert report["measurement"].data["health"]["status"] == status


def test_an_answer_outside_of_it_is_waited_out(spec: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = later(monkeypatch, "trainables.script._server")
    pump = TrialPump(spec({"STATUS": 503}))
    while "/ answers 503" not in (report := pump.advance(0.2))["note"]:
        assert report["status"] == "running"
    clock.skip(10_000)
    failure = finished(pump)["failure"]
    assert failure["class"] == "timeout"
    assert "/ answers 503" in failure["message"]
    assert failure["record"]["health"]["status"] == 503


def test_a_taken_port_is_waited_for_and_then_an_infrastructure_failure(carry_out: Carried) -> None:
    port = free_port()
    with foreign_server(port) as asked:
        report = carry_out(port=port, port_busy_retries=2, port_busy_wait=0.2)
    failure = report["failure"]
    assert (failure["class"], failure["stage"]) == ("startup", "port")
    assert f"port {port} is taken by process {os.getpid()}" in failure["message"]
    assert re.search(r"\(3 looks in [0-9.]+ s\)", failure["message"])
    assert failure["record"]["health"]["said"] == "not started"
    assert not (report["folder"] / "server.log").exists()
    assert asked == []


def test_a_port_that_becomes_free_is_used(spec: Make) -> None:
    port = free_port()
    made = spec(port=port, port_busy_retries=10_000, port_busy_wait=0.2, evaluate={"runs": 1})
    pump = TrialPump(made)
    with foreign_server(port):
        while "is taken by" not in (report := pump.advance(0.2))["note"]:
            assert report["status"] == "running"
    assert finished(pump)["status"] == "measured"


def test_a_port_that_another_trial_has_is_waited_for_until_its_end(spec: Make) -> None:
    port = free_port()
    pump = TrialPump(spec(port=port, port_busy_retries=0, evaluate={"runs": 1}))
    with lease_ports(ports=[port]):
        for _ in range(10):
            report = pump.advance(0.1)
            assert (report["status"], report["stage"]) == ("running", "port")
            assert "another trial" in report["note"]
    assert finished(pump)["status"] == "measured"


def test_a_foreign_server_that_takes_the_port_is_never_evaluated(spec: Make) -> None:
    """Ours is up and silent when somebody else begins to answer on its port."""
    port = free_port()
    pump = TrialPump(spec({"BEHAVIOUR": "hang"}, port=port, stop_grace=0.2))
    advance_to(pump, "start")
    with foreign_server(port) as asked:
        failure = finished(pump)["failure"]
    assert failure["class"] == "startup"
    assert f"port {port} is also served by process {os.getpid()}" in failure["message"]
    assert failure["record"]["eval_runs"] == []
    assert asked == []


def test_a_foreign_server_beside_ours_makes_its_numbers_worthless(
    spec: Make, tmp_path: Path
) -> None:
    """The kernel spreads connections over all sockets that share a port."""
    port, waiting, go = free_port(), tmp_path / "waiting", tmp_path / "go"
    told = {"BEHAVIOUR": "share", "EVALUATION": "wait", "WAITING": str(waiting), "GO": str(go)}
    pump = TrialPump(spec(told, port=port))
    while not waiting.exists():
        assert pump.advance(0.1)["status"] == "running"
    with foreign_server(port, shared=True):
        go.touch()
        report = finished(pump)
    assert report["status"] == "failed"
    assert "is also served by process" in report["failure"]["message"]


@pytest.mark.parametrize("phase", ["cooldown", "port", "start", "evaluate"])
def test_a_trial_cancelled_in_any_phase_leaves_nothing(spec: Make, phase: str) -> None:
    made = in_phase(spec, phase)
    port = made.settings["options"]["port"]
    pump = TrialPump(made)
    with lease_ports(ports=[port] if phase == "port" else []):
        advance_to(pump, phase)
        Path(made.folder, CANCEL).touch()
        assert finished(pump)["status"] == "cancelled"
    assert not find_processes(made.run_id)
    assert not port_owners(port)
    with lease_ports(ports=[port]):
        pass


@pytest.mark.parametrize("phase", ["port", "start", "evaluate"])
def test_a_killed_owner_takes_its_trial_with_it(spec: Make, tmp_path: Path, phase: str) -> None:
    made = in_phase(spec, phase)
    file = tmp_path / "spec.py"
    file.write_text(OWNER.format(spec=made.to_json()))
    port = made.settings["options"]["port"]
    with lease_ports(ports=[port] if phase == "port" else []):
        owner = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        assert any(line.strip() == phase for line in owner.stdout)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    deadline = time.monotonic() + 120
    while (left := find_processes(made.run_id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    with lease_ports(ports=[port]):
        pass


OWNER = """
from trainables import TrialPump, TrialSpec

pump = TrialPump(TrialSpec.from_json({spec!r}))
while True:
    print(pump.advance(0.5)["stage"], flush=True)
"""


def in_phase(spec: Make, phase: str) -> TrialSpec:
    """A trial that stays in a phase, with processes that ignore what they can."""
    told: dict[str, Any] = {"BEHAVIOUR": "grandchildren", "EVALUATION": "sleep"}
    if phase == "start":
        told["BEHAVIOUR"] = "hang"
    cooldown = 600 if phase == "cooldown" else 0
    return spec(told, port=free_port(), cooldown=cooldown, stop_grace=0.2)


def advance_to(pump: TrialPump, stage: str) -> None:
    while (report := pump.advance(0.2))["stage"] != stage:
        assert report["status"] == "running"
