"""A trial whose storage is gone for a while: it waits, and loses nothing that it has finished."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.trainables.test_pump import spec
from tests.vanishing import come_back, linked, vanish
from trainables import Measurement, TrialPump


def until(pump: TrialPump, wanted: str, note: str = "") -> dict[str, Any]:
    deadline = time.monotonic() + 240
    while True:
        report = pump.advance(0.1)
        if report["status"] == wanted and note in report["note"]:
            return report
        assert report["status"] == "running", report
        assert time.monotonic() < deadline, report


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return linked(tmp_path)


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


def test_a_trial_begins_where_its_storage_is_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "mount" / "trials" / "trial"
    (tmp_path / "mount").mkdir()
    pump = TrialPump(spec(folder, kind="baseline"))
    until(pump, "running", "waits for")
    assert not list((tmp_path / "mount").iterdir()), "nothing is mounted there"
    folder.parent.mkdir()
    until(pump, "measured")


def test_a_full_disk_is_waited_for_but_with_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    begun = TrialPump(spec(tmp_path / "a", kind="baseline"))
    failed = TrialPump(spec(tmp_path / "b", failure_rate=1.0))
    with monkeypatch.context() as patched:
        patched.setattr("trainables._pump.probe", Mock(side_effect=[None, full]))
        until(failed, "failed")
        patched.setattr("trainables._pump.probe", Mock(side_effect=full))
        until(begun, "running", "waits for")
    until(begun, "measured")
