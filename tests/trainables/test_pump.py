"""One trial from its first step to its measurement, without Ray."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes
from trainables import CANCEL, Measurement, MeasurementError, TrialPump, TrialSpec

RUN = "pump-test"


def spec(folder: Path, *, attempt: int = 1, kind: str = "candidate", **options: Any) -> TrialSpec:
    return TrialSpec(
        run_id=RUN,
        identity="cafe",
        folder=str(folder),
        type="rehearsal",
        kind=kind,
        parameters={"fallback": ["model.layers.0"]},
        repeat=0,
        settings={"options": {"type": "rehearsal", **options}, "search": None},
        attempt=attempt,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "trial"
    assert not find_processes(RUN)


def to_the_end(pump: TrialPump) -> list[dict[str, Any]]:
    reports = [pump.advance(0.2)]
    deadline = time.monotonic() + 240
    while reports[-1]["status"] == "running":
        assert time.monotonic() < deadline
        reports.append(pump.advance(0.2))
    return reports


def test_a_trial_goes_through_its_stages_and_leaves_a_measurement(folder: Path) -> None:
    reports = to_the_end(TrialPump(spec(folder, seconds=0.05)))
    stages = [report["stage"] for report in reports]
    assert list(dict.fromkeys(stages)) == ["prepare", "measure"]
    assert reports[-1]["status"] == "measured"
    measurement = Measurement.read(folder)
    assert measurement is not None
    assert measurement.identity == "cafe"
    assert set(measurement.metrics) == {"accuracy", "score"}
    assert [stage["name"] for stage in measurement.stages] == ["prepare", "measure"]
    assert measurement.environment["python"]


def test_a_measured_trial_answers_from_its_measurement(folder: Path) -> None:
    to_the_end(TrialPump(spec(folder)))
    written = Measurement.file(folder).stat().st_mtime_ns
    assert TrialPump(spec(folder)).advance(5)["status"] == "measured"
    assert Measurement.file(folder).stat().st_mtime_ns == written


def test_closing_in_mid_stage_leaves_no_process_and_the_next_pump_continues(folder: Path) -> None:
    pump = TrialPump(spec(folder, seconds=1.5, stages=["first", "second"]))
    while pump.advance(0.1)["stage"] != "second":
        pass
    pump.advance(0.1)
    pump.close()
    assert not find_processes(RUN)
    assert Measurement.read(folder) is None

    to_the_end(TrialPump(spec(folder, seconds=1.5, stages=["first", "second"])))
    measurement = Measurement.read(folder)
    assert measurement is not None
    assert [stage["resumed"] for stage in measurement.stages] == [True, False]


def test_a_cancelled_trial_ends_within_a_step_and_leaves_no_process(folder: Path) -> None:
    pump = TrialPump(spec(folder, seconds=600))
    while not find_processes(RUN):
        pump.advance(0.1)
    (folder / CANCEL).touch()
    *before, last = to_the_end(pump)
    assert last["status"] == "cancelled"
    assert len(before) <= 1
    assert Measurement.read(folder) is None


def test_a_failure_says_its_class_and_is_no_measurement(folder: Path) -> None:
    report = to_the_end(TrialPump(spec(folder, failure_rate=1.0, failure="device")))[-1]
    assert report["status"] == "failed"
    assert report["failure"]["class"] == "device"
    assert report["failure"]["suggestion"]
    assert Measurement.read(folder) is None
    again = to_the_end(TrialPump(spec(folder, attempt=2, failure_rate=1.0)))[-1]
    assert again["status"] == "measured"


def test_a_stage_program_that_is_killed_is_a_failure_and_not_a_measurement(folder: Path) -> None:
    pump = TrialPump(spec(folder, seconds=600))
    while not (stages := [p for p in find_processes(RUN) if "_rehearsal_stage" in p.command]):
        pump.advance(0.1)
    os.kill(stages[-1].pid, signal.SIGKILL)
    report = to_the_end(pump)[-1]
    assert report["status"] == "failed"
    assert report["failure"]["class"] == "out_of_memory"
    assert "SIGKILL" in report["failure"]["message"]
    assert Measurement.read(folder) is None


def test_options_that_the_node_does_not_understand_are_a_failure(folder: Path) -> None:
    report = to_the_end(TrialPump(spec(folder, seconds="oops")))[-1]
    assert report["status"] == "failed"
    assert "seconds" in report["failure"]["message"]


def test_half_a_measurement_is_never_taken_for_one(tmp_path: Path) -> None:
    for text in ("", "{", '{"schema": 1}', '{"schema": 2}', "[]", "null"):
        (tmp_path / "measurement.json").write_text(text)
        with pytest.raises(MeasurementError, match=r"measurement\.json"):
            Measurement.read(tmp_path)
