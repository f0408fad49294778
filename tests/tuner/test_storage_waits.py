"""What a driver does with its files while its storage is gone; time passes only by waiting."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster import Storage, StorageError
from searchers import Proposal
from tests.tuner.runs import write_experiment
from tests.tuner.test_ledger import measurement
from trainables import Measurement, TrialType
from tuner._delivery import Delivery
from tuner._ledger import Ledger
from tuner._outcome import Carrier
from tuner._run_folder import RunError
from tuner._status_file import StatusFile
from tuner._store import RunStore
from tuner._storyteller import Storyteller
from tuner.experiment import load_experiment


class Away:
    """A run's store whose storage is put away for some seconds."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.back: float | None = None
        self.said: list[str] = []
        self.folder = folder
        storage = Storage(
            folder / "run",
            say=self.said.append,
            clock=lambda: self.now,
            sleep=self._sleep,
        )
        (folder / "run").mkdir(parents=True)
        self.store = RunStore(folder / "run", storage)
        self.store.begin(resume=False)

    def vanish(self, seconds: float) -> None:
        self.folder.rename(self.folder.with_name("gone"))
        self.folder.mkdir()  # where it was mounted
        self.back = self.now + seconds

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.back is not None and self.now >= self.back:
            self.back = None
            self.folder.rmdir()
            self.folder.with_name("gone").rename(self.folder)


@pytest.fixture
def away(tmp_path: Path) -> Away:
    return Away(tmp_path / "storage")


def test_events_and_measurements_stand_in_their_files_once_and_in_order(away: Away) -> None:
    store, ledger = away.store, away.store.ledger()
    ledger.append(measurement("a"))
    store.log_event({"event": "one"})
    away.vanish(30)
    store.log_event({"event": "two"})
    away.vanish(30)
    ledger.append(measurement("b"))
    store.log_event({"event": "three"})
    told = [json.loads(line)["event"] for line in store.events_file.read_text().splitlines()]
    assert told == ["one", "two", "three"]
    assert [item.identity for item in Ledger(store.folder / "ledger.jsonl")] == ["a", "b"]
    assert [said.rpartition(" is back ")[2] for said in away.said[1::2]] == ["after 30 s"] * 2


def test_what_is_in_the_ledger_is_not_taken_for_nothing(away: Away) -> None:
    away.store.ledger().append(measurement("a"))
    away.vanish(30)
    assert [item.identity for item in away.store.ledger()] == ["a"]


def test_a_resume_waits_for_a_storage_that_can_only_be_read(
    away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def refuse(file: Path, data: bytes) -> int:
        if away.now < 15:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return write_bytes(file, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with away.store.lock():
        assert away.now == 15.0


def test_a_new_run_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="run cannot be written to: Not a directory"):
        RunStore(tmp_path / "file" / "run").lock()


def test_the_status_is_written_as_often_as_before(away: Away) -> None:
    status = StatusFile(away.store, lambda: {"now": away.now})
    away.vanish(500)
    status.changed()
    assert json.loads(away.store.status_file.read_text())["now"] == 0.0
    away.now += 1.0
    status.changed()
    assert json.loads(away.store.status_file.read_text())["now"] == 501.0


def test_a_measurement_that_cannot_be_seen_is_not_taken_for_none(
    away: Away, tmp_path: Path
) -> None:
    store, ledger = away.store, away.store.ledger()
    campaign = SimpleNamespace(live=lambda: {0: SimpleNamespace(identity="a")})
    nodes = SimpleNamespace(ended=lambda *_: None, given_up=dict)
    experiment = load_experiment(write_experiment(tmp_path))
    carrier = Carrier(experiment, store, ledger, cast(Any, campaign), cast(Any, nodes), "run")
    measurement("a").write(store.trial_folder("a"))
    away.vanish(20)
    outcome = carrier.outcome(Proposal(0, {}), {"status": "measured"}, errored=False)
    assert outcome.status == "measured"
    assert ledger.find("a") is not None


class Weights:
    """Delivers as trials do: by moving."""

    def __init__(self, away: Away) -> None:
        self.away = away

    def deliver(self, verified: Measurement, folder: Path) -> None:
        (self.away.store.folder / "weights").rename(folder / "weights")
        self.away.vanish(20)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def deliverables(self, parameters: Mapping[str, Any]) -> Mapping[str, str]:
        return {"practice.yaml": "x"}

    def holds(self, verified: Measurement, folder: Path) -> bool:
        return (folder / "weights").exists()


def test_weights_are_delivered_although_it_was_unclear_whether_they_were_moved(away: Away) -> None:
    store = away.store
    (store.folder / "weights").write_text("heavy")
    delivery = Delivery(store, cast(TrialType, Weights(away)))
    delivery.deliver(measurement("a", kind="verification"), {"x": 1}, {})
    assert (store.best / "weights").read_text() == "heavy"
    names = {"weights", "practice.yaml", "parameters.json", "result.json", "manifest.json"}
    assert {path.name for path in store.best.iterdir()} == names
    assert not list(store.folder.glob("best.*"))


Tell = Callable[[Any], list[str]]


@pytest.fixture
def tell(away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Tells one view; what the user is told of it."""

    def told(view: Any) -> list[str]:
        monkeypatch.setattr("tuner._storyteller.make_view", lambda block, pedigree: view)
        experiment = load_experiment(write_experiment(tmp_path))
        storyteller = Storyteller(replace(experiment, views=({"type": "mine"},)), away.store)
        return list(storyteller.tell(None, None, None))

    return told


class View:
    """Writes a file of its own."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def update(self, story: Any) -> tuple[str, ...]:
        self.file.write_text("up to date")
        return ()


def test_a_view_is_told_again_when_the_storage_is_back(away: Away, tell: Tell) -> None:
    view = View(away.store.folder / "view")
    away.vanish(20)
    assert tell(view) == []
    assert view.file.read_text() == "up to date"


def test_a_view_that_fails_elsewhere_is_said_and_not_waited_for(away: Away, tell: Tell) -> None:
    (said,) = tell(View(away.folder.with_name("elsewhere") / "view"))
    assert said.startswith("the view mine is not up to date: ")
    assert away.now == 0.0


def test_a_storage_that_stays_away_is_not_taken_for_a_view_that_fails(
    away: Away, tell: Tell
) -> None:
    away.vanish(10_000)
    with pytest.raises(StorageError):
        tell(View(away.store.folder / "view"))
