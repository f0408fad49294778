"""A trial whose storage is gone for a while: it waits, and loses nothing that it has finished."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.test_pump import spec
from trainables import Measurement, TrialPump


def until(pump: TrialPump, wanted: str, note: str = "") -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        report = pump.advance(0.1)
        if report["status"] == wanted and note in report["note"]:
            return report
        assert report["status"] == "running", report
        assert time.monotonic() < deadline, report


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A folder that is where its link points to."""
    (tmp_path / "server").mkdir()
    link = tmp_path / "storage"
    link.symlink_to("server")
    return link


def vanish(storage: Path) -> None:
    storage.with_name("server").rename(storage.with_name("server.gone"))


def come_back(storage: Path) -> None:
    storage.with_name("server.gone").rename(storage.with_name("server"))


def test_a_result_is_kept_until_it_can_be_written(storage: Path) -> None:
    folder = storage / "trial"
    pump = TrialPump(spec(folder, kind="baseline"))
    until(pump, "running")
    vanish(storage)
    report = until(pump, "running", "waits for")
    assert str(folder) in report["note"]
    come_back(storage)
    until(pump, "measured")
    assert Measurement.read(folder) is not None


def test_a_failure_is_told_once_a_repetition_could_succeed(storage: Path) -> None:
    folder = storage / "trial"
    pump = TrialPump(spec(folder, seconds=0.5))
    until(pump, "running")
    vanish(storage)
    until(pump, "running", "waits for")
    come_back(storage)
    report = until(pump, "failed")
    assert report["failure"]["message"].startswith("the storage was gone for ")
    assert Measurement.read(folder) is None


def test_a_storage_that_stays_away_is_not_waited_for_for_ever(storage: Path) -> None:
    pump = TrialPump(spec(storage / "trial", kind="baseline"), storage_s=0.5)
    until(pump, "running")
    vanish(storage)
    failure = until(pump, "failed")["failure"]
    assert failure["class"] == "tool"
    assert str(storage / "trial") in failure["message"]
