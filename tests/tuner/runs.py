"""Real runs of the command line, as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from cluster import find_processes

ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}


def write_experiment(folder: Path, **changes: Any) -> Path:
    """A rehearsal whose blocks ``changes`` are merged into; storage is ``folder``."""
    document: dict[str, Any] = {
        "name": "demo",
        "trial": {"type": "rehearsal", "layers": 16, "threshold": 5},
        "search": {"type": "binary_fallback"},
        "objective": {
            "expectations": [{"metric": "accuracy", "target": "baseline", "tolerance": 0.01}]
        },
        "cluster": {"dashboard": False, "resources": {"CPU": 0.5}},
        "budget": {"concurrent": 1},
        "storage": str(folder),
    }
    for key, value in changes.items():
        document[key] = document.get(key, {}) | value if isinstance(value, dict) else value
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


class Run:
    """A driver process and the folder it works in."""

    def __init__(
        self,
        *arguments: str | Path,
        storage: Path,
        name: str = "demo",
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        storage.mkdir(exist_ok=True)
        self.folder = storage / name
        self.log = storage / f"driver-{time.monotonic_ns()}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tuner", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=cwd,
                env=ENVIRONMENT | dict(environment or {}),
                text=True,
            )

    def wait(self, timeout: float = 240) -> int:
        """The exit code. What the driver said is in the error if it does not end."""
        try:
            self.stdout, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the driver does not end:\n{self.said()}") from None
        return self.process.returncode

    def result(self) -> dict[str, Any]:
        """The JSON object of the last line of stdout."""
        return dict(json.loads(self.stdout.splitlines()[-1]))

    def said(self) -> str:
        return self.log.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def until(self, condition: Callable[[Run], Any], timeout: float = 240) -> Any:
        """Wait until ``condition(self)`` is true while the driver lives; its value."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if value := condition(self):
                return value
            assert self.process.poll() is None, f"the driver ended early:\n{self.said()}"
            time.sleep(0.02)
        raise AssertionError(f"waited in vain for {condition}:\n{self.said()}")

    def measured(self) -> list[str]:
        """Identities in the ledger, in order."""
        return [item["identity"] for item in ledger(self.folder)]

    def running_stage(self) -> psutil.Process | None:
        """A stage program of a trial under way."""
        return running_stage(self.folder)

    def hold(self) -> psutil.Process | None:
        """Suspend a stage program of a trial under way, which keeps the run from its end."""
        return hold(self.folder)


def run(*arguments: str | Path, storage: Path, timeout: float = 240) -> Run:
    """Start a driver and wait for its end."""
    started = Run(*arguments, storage=storage)
    started.wait(timeout)
    return started


def ledger(folder: Path) -> list[dict[str, Any]]:
    file = folder / "ledger.jsonl"
    if not file.exists():
        return []
    whole, _, _ = file.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def run_id(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "run.json").read_text())["run_id"])
    except (OSError, ValueError):
        return None


def running_stage(folder: Path) -> psutil.Process | None:
    for found in find_processes(run_id(folder) or "none"):
        if "_rehearsal_stage" in found.command:
            with suppress(psutil.NoSuchProcess):
                return psutil.Process(found.pid)
    return None


def hold(folder: Path) -> psutil.Process | None:
    """See :meth:`Run.hold`; None where there was none, or it has just ended."""
    stage = running_stage(folder)
    if stage is None:
        return None
    with suppress(psutil.NoSuchProcess):
        stage.suspend()
        while (status := stage.status()) != psutil.STATUS_ZOMBIE:
            if status == psutil.STATUS_STOPPED:
                return stage
            time.sleep(0.01)
    return None


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Of the whole lines: the driver may just be writing another."""
    whole, _, _ = (folder / "events.jsonl").read_text().rpartition("\n")
    return [event for event in map(json.loads, whole.splitlines()) if event["event"] == kind]


def assert_nothing_measured_twice(folder: Path) -> None:
    """No measurement stands twice in the ledger, is announced twice, or was carried out twice."""
    counts = Counter(item["identity"] for item in ledger(folder))
    known = {identity[:16] for identity in counts}
    for log in folder.glob("trials/*/measure.log"):
        times = log.read_text().splitlines().count("rehearsed")
        # What was cancelled in the middle of it was never carried out.
        assert times == 1 or (times == 0 and log.parent.name not in known), log
    assert counts, "nothing was measured"
    assert max(counts.values()) == 1
    measured = Counter(event["trial"] for event in events(folder, "measured"))
    assert max(measured.values()) == 1


def assert_nothing_left(folder: Path) -> None:
    """No process of the run lives; bounded, since the kernel needs a moment."""
    identity = run_id(folder)
    assert identity is not None
    deadline = time.monotonic() + 120
    while (left := find_processes(identity)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, [str(process) for process in left]


def kill_ray(driver: int) -> None:
    """SIGKILL for every process Ray runs below a driver: all of Ray dies at once."""
    for child in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(word in " ".join(child.cmdline()) for word in ("raylet", "gcs_server", "ray::")):
                child.send_signal(signal.SIGKILL)
