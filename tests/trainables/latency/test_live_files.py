"""Files of recorded iterations, and that the engine never notices whatever happens to them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.trainables.latency.live import (
    Scheduler,
    iterate,
    output,
    until_written,
)
from trainables.latency import read_records, record_vllm
from trainables.simulation import Chunk


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Any]:
    """Makes schedulers of a class that is watched, each test its own."""

    class Watched(Scheduler):
        pass

    def make(most_bytes: int = record_vllm.MOST_BYTES, kind: type = Watched) -> Any:
        record_vllm.watch_schedulers(Watched, tmp_path / "iterations.jsonl", most_bytes)
        return kind(a=1000)

    make.base = Watched  # type: ignore[attr-defined]
    return make


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING):
        yield lambda: [one.message for one in caplog.records]


def test_files_of_a_scheduler(watched: Callable[..., Any], tmp_path: Path) -> None:
    begin = time.time()
    scheduler = watched()
    iterate(scheduler, 3)
    assert scheduler.shutdown() == "down"
    records = read_records(tmp_path / "iterations.jsonl")
    assert [one.decodes for one in records] == [(1000,), (1001,), (1002,)]
    assert all(one.seconds > 0 and begin - 1 < one.at < time.time() + 1 for one in records)
    settings = json.loads((tmp_path / "iterations.json").read_text())
    assert settings["num_blocks"] == 100
    assert settings["block_size"] == 16
    assert settings["max_num_seqs"] == 8
    assert settings["async_scheduling"] is True
    assert settings["max_model_len"] is None


def test_an_idle_engine_may_be_killed(
    watched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_vllm, "FLUSH_SECONDS", 1000)
    scheduler = watched()
    iterate(scheduler, 2)
    scheduler.busy = False
    iterate(scheduler, 1, 1002)
    assert len(until_written(tmp_path / "iterations.jsonl", 3)) == 3
    scheduler.shutdown()


def test_every_start_has_files_of_its_own(watched: Callable[..., Any], tmp_path: Path) -> None:
    first, second = watched(), watched()
    iterate(second, 2)
    iterate(first, 1)
    first.shutdown(), second.shutdown()
    assert len(read_records(tmp_path / "iterations.jsonl")) == 1
    assert len(read_records(tmp_path / "iterations-2.jsonl")) == 2
    assert (tmp_path / "iterations-2.json").exists()


def test_schedulers_of_a_platform_are_recorded_as_they_schedule(
    watched: Callable[..., Any], tmp_path: Path
) -> None:
    class Platform(watched.base):  # type: ignore[misc, name-defined]
        def schedule(self, throttle: bool = False) -> Any:
            return output(("a", 7, 0))

    scheduler = watched(kind=Platform)
    scheduler.update_from_output(scheduler.schedule(), "x")
    scheduler.shutdown()
    (found,) = read_records(tmp_path / "iterations.jsonl")
    assert found.prefills == (Chunk(7, 0),)


def test_a_failure_inside_ends_the_recording_and_nothing_else(
    watched: Callable[..., Any], said: Callable[[], list[str]], tmp_path: Path
) -> None:
    scheduler = watched()
    iterate(scheduler, 2)
    strange = SimpleNamespace(total_num_scheduled_tokens=5)
    scheduler.script.append(strange)
    assert scheduler.schedule() is strange
    assert scheduler.update_from_output(strange, "outcome") == "OUTCOME"
    iterate(scheduler, 2)
    assert scheduler.shutdown() == "down"
    assert len(said()) == 1
    assert "no longer recorded" in said()[0] and "scheduled_new_reqs" in said()[0]
    assert len(until_written(tmp_path / "iterations.jsonl", 2)) == 2


def test_an_engine_without_what_is_read_starts_all_the_same(
    watched: Callable[..., Any], said: Callable[[], list[str]], tmp_path: Path
) -> None:
    class Changed(watched.base):  # type: ignore[misc, name-defined]
        vllm_config = property(lambda self: self.gone, lambda self, value: None)

    iterate(watched(kind=Changed), 2)
    assert len(said()) == 1
    assert "not recorded" in said()[0]
    assert not list(tmp_path.iterdir())


def test_a_file_never_grows_beyond_its_limit(
    watched: Callable[..., Any],
    said: Callable[[], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_vllm, "FLUSH_SECONDS", 0.001)
    scheduler = watched(most_bytes=1000)
    for first in range(1000, 9000, 10):
        iterate(scheduler, 10, first)
        if said():
            break
        time.sleep(0.002)
    assert len(said()) == 1
    assert record_vllm.BYTES_VARIABLE in said()[0]
    found = until_written(tmp_path / "iterations.jsonl", 1)
    assert [one.decodes for one in found] == [(1000 + n,) for n in range(len(found))]
    assert (tmp_path / "iterations.jsonl").stat().st_size <= 1000
    assert "schedule" not in vars(scheduler)


def test_a_full_disk_is_told_to_who_records() -> None:
    with Path("/dev/full").open("ab", buffering=0) as full:
        writer = record_vllm.LineWriter(full, 1000)
        writer.write({"seconds": 1.0})
        writer.close(10)
    with pytest.raises(RuntimeError, match="No space left"):
        writer.write({"seconds": 1.0})


def test_a_disk_that_hangs_costs_a_bounded_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_vllm, "MOST_PENDING", 5)
    monkeypatch.setattr(record_vllm, "FLUSH_SECONDS", 1000)
    with (tmp_path / "file").open("ab", buffering=0) as file:
        writer = record_vllm.LineWriter(file, 10**6)
        with pytest.raises(RuntimeError, match="5 iterations wait"):
            for _ in range(6):
                writer.write({})
        writer.close(10)
