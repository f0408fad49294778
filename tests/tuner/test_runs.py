"""Whole runs on a real local Ray, and every way they can be cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.tuner.runs import (
    Run,
    assert_nothing_left,
    assert_nothing_measured_twice,
    events,
    kill_ray,
    ledger,
    run,
    write_experiment,
)

pytestmark = pytest.mark.ray

SLOW = {"trial": {"seconds": 0.6}}


def two_measured(it: Run) -> bool:
    """With the baseline; the third trial is under way, and held."""
    return len(it.measured()) >= 3 and it.hold() is not None


def second_stage_held(it: Run) -> bool:
    """A trial is in its stage ``measure``, and held there."""
    stage = it.hold()
    if stage is None:
        return False
    if any(word.endswith("/measure.json") for word in stage.cmdline()):
        return True
    stage.resume()
    return False


def test_a_run_finds_the_answer_and_a_second_one_reuses_all_of_it(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    first = run("run", file, "--json", storage=tmp_path)
    assert first.process.returncode == 0, first.said()
    result = first.result()
    assert result["verdict"] == "satisfied"
    assert len(result["best"]["fallback"]) == 5
    assert result["failed"] == result["reused"] == 0
    assert result["trials_run"] == len(ledger(first.folder))
    assert (first.folder / "best" / "parameters.json").exists()
    assert_nothing_measured_twice(first.folder)
    assert_nothing_left(first.folder)
    (snapshot,) = first.folder.glob("ray/*/experiment_state-*.json")
    assert json.loads(snapshot.read_text())["trial_data"] == [], "it would grow with the run"

    again = run("run", file, "--json", storage=tmp_path)
    assert again.process.returncode == 0
    assert again.result()["best"] == result["best"]
    assert again.result()["trials_run"] == 0
    assert again.result()["reused"] == result["trials_run"]
    assert "Ray" not in again.said()

    weights = first.folder / "best" / "weights"
    for damage in (weights.unlink, lambda: weights.write_text("something else")):
        damage()
        repaired = run("run", file, "--json", storage=tmp_path)
        assert repaired.process.returncode == 0, repaired.said()
        assert repaired.result()["trials_run"] == 1
        assert json.loads(weights.read_text()) == result["best"]
    assert not list(first.folder.glob("trials/*/artifacts"))


@pytest.mark.parametrize("width", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_driver_killed_after_the_second_trial_then_resumed(tmp_path: Path, width: int) -> None:
    file = write_experiment(tmp_path, budget={"concurrent": width}, **SLOW)
    first = Run("run", file, storage=tmp_path)
    first.until(two_measured)
    known = first.measured()
    first.signal(signal.SIGKILL)
    first.wait()
    assert_nothing_left(first.folder)

    status = run("status", first.folder, storage=tmp_path)
    assert "died" in status.stdout

    resumed = run("resume", first.folder, "--json", storage=tmp_path)
    assert resumed.process.returncode == 0, resumed.said()
    assert len(resumed.result()["best"]["fallback"]) == 5
    assert resumed.measured()[: len(known)] == known
    assert_nothing_measured_twice(first.folder)
    assert_nothing_left(first.folder)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_run_in_order_and_resume_continues(
    tmp_path: Path, number: int, code: int
) -> None:
    file = write_experiment(tmp_path, **SLOW)
    first = Run("run", file, "--json", storage=tmp_path)
    first.until(two_measured)
    first.signal(number)
    assert first.wait() == code, first.said()
    assert first.result()["verdict"] == "interrupted"
    assert_nothing_left(first.folder)

    resumed = run("run", file, "--resume", "--json", storage=tmp_path)
    assert resumed.process.returncode == 0, resumed.said()
    assert len(resumed.result()["best"]["fallback"]) == 5
    assert_nothing_measured_twice(first.folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage of a run whose driver was killed after its second trial, and a copy beside it."""
    storage = tmp_path_factory.mktemp("killed") / "storage"
    storage.mkdir()
    first = Run("run", write_experiment(storage, **SLOW), storage=storage)
    first.until(two_measured)
    first.signal(signal.SIGKILL)
    first.wait()
    assert_nothing_left(first.folder)
    shutil.copytree(storage, storage.with_name("copy"))
    return storage


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", ["torn state", "torn searcher", "missing state", "no snapshot", "torn ledger"]
)
def test_no_damage_of_a_snapshot_costs_a_measurement(killed: Path, damage: str) -> None:
    shutil.rmtree(killed)
    shutil.copytree(killed.with_name("copy"), killed)
    known = [item["identity"] for item in ledger(killed / "demo")]
    _damage(killed / "demo", damage)

    resumed = run("resume", killed, "--json", storage=killed)
    assert resumed.process.returncode == 0, resumed.said()
    assert len(resumed.result()["best"]["fallback"]) == 5
    assert set(known) <= set(resumed.measured())
    assert_nothing_measured_twice(killed / "demo")


def _damage(folder: Path, damage: str) -> None:
    def cut(pattern: str) -> None:
        files = list(folder.glob(pattern))
        assert files, pattern
        for path in files:
            os.truncate(path, path.stat().st_size // 2)

    if damage == "torn state":
        cut("ray/*/experiment_state-*.json")
    elif damage == "torn searcher":
        cut("ray/*/searcher-state-*.pkl")
    elif damage == "missing state":
        for path in folder.glob("ray/*/experiment_state-*.json"):
            path.unlink()
    elif damage == "no snapshot":
        (folder / "ray").rename(folder / "elsewhere")
    else:
        file = folder / "ledger.jsonl"
        os.truncate(file, file.stat().st_size - 30)


@pytest.mark.slow
def test_a_worker_killed_in_mid_trial_costs_only_that_attempt(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, **SLOW)
    it = Run("run", file, "--json", storage=tmp_path)
    it.until(two_measured)
    killed = 0
    for child in psutil.Process(it.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name().startswith("ray::Trial"):
                child.kill()
                killed += 1
    assert killed
    assert it.wait() == 0, it.said()
    assert it.result()["failed"] == 0
    assert len(it.result()["best"]["fallback"]) == 5
    assert_nothing_measured_twice(it.folder)
    assert_nothing_left(it.folder)


@pytest.mark.slow
def test_ray_killed_as_a_whole_ends_the_driver_and_resume_continues(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, **SLOW)
    first = Run("run", file, storage=tmp_path)
    first.until(two_measured)
    kill_ray(first.process.pid)
    assert first.wait() not in (0, 3, 4)
    assert_nothing_left(first.folder)
    resumed = run("resume", first.folder, "--json", storage=tmp_path)
    assert resumed.process.returncode == 0, resumed.said()
    assert len(resumed.result()["best"]["fallback"]) == 5
    assert_nothing_measured_twice(first.folder)


@pytest.mark.slow
def test_a_trial_resumes_after_its_last_finished_stage(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, **SLOW)
    first = Run("run", file, storage=tmp_path)
    first.until(second_stage_held)
    first.signal(signal.SIGKILL)
    first.wait()
    resumed = run("resume", first.folder, storage=tmp_path)
    assert resumed.process.returncode == 0
    stages = [stage for item in ledger(first.folder) for stage in item["stages"]]
    assert [stage["name"] for stage in stages if stage["resumed"]] == ["prepare"]


def test_a_second_driver_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, trial={"seconds": 300.0})
    first = Run("run", file, storage=tmp_path)
    stage = first.until(Run.running_stage)
    second = run("run", file, storage=tmp_path)
    assert second.process.returncode == 2
    assert str(first.process.pid) in second.said()
    assert first.running_stage() == stage, "the first is not disturbed"
    first.signal(signal.SIGINT)
    assert first.wait() == 130


def test_what_no_node_has_is_refused_before_anything_starts(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, cluster={"resources": {"CPU": 0.5, "NPU_Z": 1}})
    it = run("run", file, storage=tmp_path)
    assert it.process.returncode == 2
    assert "NPU_Z" in it.said()
    assert not any(it.folder.glob("trials/*"))


def test_nothing_satisfies_is_exit_3_and_delivers_nothing(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, trial={"layers": 4, "threshold": 9})
    it = run("run", file, "--json", storage=tmp_path)
    assert it.process.returncode == 3, it.said()
    assert it.result()["verdict"] == "exhausted"
    assert not (it.folder / "best").exists()


def test_a_spent_budget_is_exit_4_and_delivers_the_best_so_far(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, budget={"trials": 3})
    it = run("run", file, "--json", storage=tmp_path)
    assert it.process.returncode == 4, it.said()
    assert len(it.result()["best"]["fallback"]) == 8
    assert (it.folder / "best" / "parameters.json").exists()


@pytest.mark.slow
def test_a_time_budget_ends_a_trial_under_way(tmp_path: Path) -> None:
    file = write_experiment(
        tmp_path,
        trial={"seconds": 300.0},
        objective={"expectations": [{"metric": "accuracy", "target": 0.9}]},
        budget={"time": 8},
    )
    it = run("run", file, "--json", storage=tmp_path)
    assert it.process.returncode == 4, it.said()
    assert it.result()["best"] is None
    assert_nothing_left(it.folder)


@pytest.mark.slow
def test_failures_of_infrastructure_are_retried_and_never_measured(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, trial={"failure_rate": 1.0})
    it = run("run", file, "--json", storage=tmp_path)
    assert it.process.returncode == 0, it.said()
    assert len(it.result()["best"]["fallback"]) == 5
    assert len(events(it.folder, "retry")) == it.result()["trials_run"]

    given_up = run("run", file, "--json", "--set", "budget.retries=0", "--set",
                   f"storage={tmp_path / 'other'}", storage=tmp_path / "other")  # fmt: skip
    assert given_up.process.returncode == 1, given_up.said()
    assert ledger(given_up.folder) == []


def test_quiet_output_and_a_verdict_as_the_last_line(tmp_path: Path) -> None:
    it = run("run", write_experiment(tmp_path), storage=tmp_path)
    assert it.stdout.splitlines()[-1].startswith("satisfied: ")
    assert str(it.folder / "best") in it.stdout.splitlines()[-1]
    for noise in ("WARNING", "Traceback", "tune.run", "Trial status", "raylet"):
        assert noise not in it.said() + it.stdout
    said = it.said()
    assert "baseline" in said and "starts" in said and "satisfied" in said


def test_a_random_search_finds_the_best_point_of_a_space(tmp_path: Path) -> None:
    file = write_experiment(
        tmp_path,
        trial={"optimum": {"x": 3}},
        objective={"expectations": [], "maximize": "score"},
        search={
            "type": "grid",
            "space": {"x": {"type": "int", "low": 0, "high": 5}},
        },
        budget={"concurrent": 2},
    )
    it = run("run", file, "--json", storage=tmp_path)
    assert it.process.returncode == 0, it.said()
    assert it.result()["best"] == {"x": 3}
    assert it.result()["objective"] == 0.0


def test_the_dry_run_says_what_would_run_and_touches_nothing(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "run", str(file), "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("binary_fallback", "prepare -> measure", "baseline", "CPU 0.5", "at most"):
        assert word in done.stdout
    assert not (tmp_path / "demo").exists()
