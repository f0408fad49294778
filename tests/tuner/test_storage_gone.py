"""Whole runs whose storage is gone for a while."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.runs import (
    ENVIRONMENT,
    Run,
    assert_nothing_left,
    events,
    hold,
    ledger,
    write_experiment,
)
from tests.vanishing import come_back, linked, vanish

pytestmark = pytest.mark.ray

_IMPATIENT = """
import sys
from cluster import Storage
from tuner.cli import main
Storage.__init__.__kwdefaults__["wait_s"] = 4.0
sys.exit(main())
"""
"""``python -m tuner`` that does not wait for ten minutes."""


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return linked(tmp_path)


@pytest.fixture
def experiment(tmp_path: Path, storage: Path) -> Path:
    return write_experiment(
        tmp_path,
        trial={"stages": ["measure"], "seconds": 1.5},
        search={
            "type": "random",
            "trials": 3,
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        },
        objective={"expectations": [], "maximize": "score"},
        budget={"concurrent": 2, "retries": 1},
        storage=str(storage),
    )


def assert_whole(run: Run, before: list[dict[str, object]]) -> None:
    """All is measured, told and delivered, and nothing of it twice."""
    assert "Traceback" not in run.said()
    result = run.result()
    assert (result["verdict"], result["failed"]) == ("satisfied", 0)
    items = ledger(run.folder)
    assert items[: len(before)] == before
    assert Counter(item["kind"] for item in items) == {"candidate": 3, "verification": 1}
    identities = [str(item["identity"])[:16] for item in items]
    assert len(set(identities)) == len(identities)
    told = [event["trial"] for event in events(run.folder, "measured")]
    assert sorted(told) == sorted(identities)
    assert {event["trial"] for event in events(run.folder, "proposed")} == set(identities)
    assert json.loads((run.folder / "status.json").read_text())["state"] == "satisfied"
    assert (run.folder / "best" / "weights").exists()
    assert_nothing_left(run.folder)


def test_a_run_whose_storage_is_gone_for_a_while_loses_nothing(
    tmp_path: Path, storage: Path, experiment: Path
) -> None:
    run = Run("run", experiment, "--json", storage=tmp_path)
    run.folder = storage / "demo"
    stage = run.until(lambda run: run.measured() and run.hold())
    before = ledger(run.folder)
    vanish(storage)
    stage.resume()
    run.until(lambda run: "waiting 600 s for it" in run.said())
    time.sleep(3)
    come_back(storage)
    assert run.wait() == 0, run.said()
    folder = storage / "demo"
    assert run.said().count(f"{folder} cannot be written to: No such file or directory") == 1
    assert run.said().count(f"{folder} is back after ") == 1
    assert_whole(run, before)


def test_a_signal_ends_the_wait_for_a_storage_as_it_ends_a_run(
    tmp_path: Path, storage: Path, experiment: Path
) -> None:
    run = Run("run", experiment, "--json", storage=tmp_path)
    run.folder = storage / "demo"
    run.until(lambda run: len(run.measured()) == 1)
    vanish(storage)
    run.until(lambda run: "waiting 600 s for it" in run.said())
    run.signal(signal.SIGTERM)
    assert run.wait(60) == 143, run.said()
    assert run.said().splitlines()[-1] == "interrupted; resume continues where it stopped"
    come_back(storage)
    assert_nothing_left(run.folder)


@pytest.mark.slow
def test_a_run_whose_storage_stays_away_ends_and_is_resumed(
    tmp_path: Path, storage: Path, experiment: Path
) -> None:
    with (tmp_path / "said").open("wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", _IMPATIENT, "run", str(experiment)],
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    folder = storage / "demo"
    while not ledger(folder) or (stage := hold(folder)) is None:
        assert driver.poll() is None
        time.sleep(0.05)
    before = ledger(folder)
    vanish(storage)
    stage.resume()
    code = driver.wait(240)
    come_back(storage)
    said = (tmp_path / "said").read_text()
    assert code == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        f"error: {folder} cannot be written to: No such file or directory, for 4 s; "
        "resume goes on once it can be"
    )
    assert ledger(folder)[: len(before)] == before
    resumed = Run("resume", folder, "--json", storage=tmp_path)
    resumed.folder = folder
    assert resumed.wait() == 0, resumed.said()
    assert_whole(resumed, before)


@pytest.fixture
def temp_dir() -> Iterator[Path]:
    """Paths of Ray's sockets are short."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_run_needs_no_snapshot_of_rays(tmp_path: Path, experiment: Path, temp_dir: Path) -> None:
    setting = f"cluster.temp_dir={temp_dir}"
    run = Run("run", experiment, "--json", "--set", setting, storage=tmp_path)
    run.folder = tmp_path / "storage" / "demo"
    stage = run.until(lambda run: run.measured() and run.hold())
    pattern = "**/driver_artifacts/experiment_state-*.json"
    run.until(lambda _: any(temp_dir.glob(pattern)))
    (state,) = temp_dir.glob(pattern)
    state.unlink()
    state.mkdir()  # as where the disk is full, Ray can write it no more
    ray = run.folder / "ray"
    ray.rename(run.folder / "ray.gone")
    ray.touch()
    stage.resume()
    assert run.wait() == 0, run.said()
    assert_whole(run, [])
    assert ray.is_file() and state.is_dir()
