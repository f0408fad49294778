"""Real runs under ``watch``: the driver is killed in the middle of a trial, and comes back."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.tuner.autotune.repo import evaluations, flags, hold, results, speeds, write_repo
from tests.tuner.runs import Run, assert_nothing_left, ledger

SPEEDS = {"g97": 100.0, "g98": 120.0, "g99": 110.0}
BEST = ("0.97", "0.98")
"""What best_params.json may say, one after the other."""


def servers(repo: Path) -> list[tuple[int, str]]:
    """Process id and parameter of every server that was started, in order."""
    file = repo / "starts.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(line.split()[0]), line.split()[1]) for line in lines]


def best(repo: Path) -> str | None:
    try:
        document = json.loads((repo / "best_params.json").read_text())
    except FileNotFoundError:
        return None
    value: str = document["GPU_MEMORY_UTILIZATION"]
    return value


def driver(run: Run) -> int | None:
    """The driver of the session under way."""
    try:
        record = json.loads((run.folder / "run.json").read_text())
    except (OSError, ValueError):
        return None
    last = record["sessions"][-1]
    return None if last["ended"] else int(last["pid"])


class Case:
    """One run under watch, and everything best_params.json has said.

    Args:
        held: The server or evaluation at which it stops until :meth:`go_on`.
    """

    def __init__(self, repo: Path, held: str = "") -> None:
        self.repo = write_repo(repo)
        self.bests: list[str] = []
        self.held = hold(repo, held) if held else None
        call = flags(repo)
        environment = speeds(**SPEEDS)
        self.run = Run(
            *("watch", "--backoff", "0.1", *call),
            storage=repo / "tune_runs",
            name="tune_results",
            environment=environment,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        self.run.until(lambda run: self.look() or condition())

    def look(self) -> bool:
        now = best(self.repo)
        if now is not None and self.bests[-1:] != [now]:
            self.bests.append(now)
        return False

    def kill(self) -> None:
        """SIGKILL for the driver; its servers have to be gone before the next one begins."""
        pid = driver(self.run)
        assert pid is not None
        old = servers(self.repo)
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: driver(self.run) not in (None, pid))
        for server, _ in old:
            assert not psutil.pid_exists(server)

    def go_on(self, held: str = "") -> None:
        """To the next server or evaluation that is held, or to the end."""
        file, self.held = self.held, hold(self.repo, held) if held else None
        assert file is not None
        file.unlink()

    def finish(self) -> None:
        self.until(lambda: len(results(self.repo)) == 3)
        assert self.run.wait() == 0, self.run.said()
        self.look()

    def check(self, *repeated: str, ended: bool = True) -> None:
        """Nothing is measured twice; only what was interrupted is carried out again.

        Args:
            repeated: Trials that were interrupted.
            ended: They were; otherwise they may also have ended in time.
        """
        assert tuple(self.bests) in (BEST, BEST[1:]), self.bests
        counts = Counter(item["identity"] for item in ledger(self.run.folder))
        assert sorted(counts.values()) == [1, 1, 1]
        keys = [line["trial_key"] for line in results(self.repo)]
        assert len(keys) == len(set(keys)) == 3
        assert all(line["status"] == "ok" for line in results(self.repo))
        for name, times in Counter(gpu for _, gpu in servers(self.repo)).items():
            fewest = 1 + (ended and name in repeated)
            assert fewest <= times <= 1 + (name in repeated), servers(self.repo)
        for what, times in Counter(evaluations(self.repo)).items():
            assert times <= 1 + (what.split()[0] in repeated), what
        assert_nothing_left(self.run.folder)


def test_a_driver_killed_while_a_server_is_evaluated_comes_back(tmp_path: Path) -> None:
    case = Case(tmp_path, "0.98 1")
    case.until(lambda: "0.98 1" in evaluations(tmp_path))
    case.kill()
    case.go_on()
    case.finish()
    case.check("0.98")
    said = case.run.said()
    assert "the run died with SIGKILL; started again in 0.1 s" in said
    assert "ended with exit code 0; not started again" in said
    assert not (tmp_path / "autotune.watchdog.pid").exists()


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["first start", "start", "second run", "measured", "told"])
def test_killed_in_any_phase(tmp_path: Path, phase: str) -> None:
    def measured() -> int:
        return sum(1 for _ in (tmp_path / "tune_runs").glob("*/trials/*/measurement.json"))

    phases: dict[str, tuple[str, Callable[[], bool]]] = {
        "first start": ("0.97", lambda: len(servers(tmp_path)) == 1),
        "start": ("0.98", lambda: len(servers(tmp_path)) == 2),
        "second run": ("0.98 2", lambda: "0.98 2" in evaluations(tmp_path)),
        "measured": ("0.99", lambda: measured() == 2),
        "told": ("0.99", lambda: best(tmp_path) == "0.98"),
    }
    held, condition = phases[phase]
    case = Case(tmp_path, held)
    case.until(condition)
    case.kill()
    case.go_on()
    case.finish()
    # The server after the one that was measured may have been started, or not yet.
    case.check(held.split()[0], ended=held != "0.99")


@pytest.mark.slow
def test_killed_again_and_again_it_gets_there(tmp_path: Path) -> None:
    values = ("0.97", "0.98", "0.99")
    case = Case(tmp_path, f"{values[0]} 1")
    for value, following in zip(values, (*values[1:], ""), strict=True):
        case.until(lambda value=value: f"{value} 1" in evaluations(tmp_path))
        case.kill()
        case.go_on(following and f"{following} 1")
    case.finish()
    case.check("0.97", "0.98", "0.99")


@pytest.mark.slow
def test_a_user_who_stops_the_watch_stops_the_run_in_order(tmp_path: Path) -> None:
    case = Case(tmp_path, "0.98 1")
    case.until(lambda: "0.98 1" in evaluations(tmp_path))
    case.run.signal(signal.SIGTERM)
    assert case.run.wait() == 143, case.run.said()
    case.go_on()
    assert_nothing_left(case.run.folder)
    record = json.loads((case.run.folder / "run.json").read_text())
    assert record["verdict"] == "interrupted" and record["sessions"][-1]["ended"]
    again = Case(tmp_path)
    again.finish()
    again.check("0.98")


@pytest.mark.slow
def test_a_second_watch_of_the_run_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, "0.97")
    case.until(lambda: bool(servers(tmp_path)))
    second = Case(tmp_path)
    assert second.run.wait() == 2
    assert f"is watched already by process {case.run.process.pid} " in second.run.said()
    case.go_on()
    case.finish()
    case.check()
