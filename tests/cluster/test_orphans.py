"""What a crashed run leaves on a node is found by its run id, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster import ProcessTree, find_processes, sweep

Program = Callable[..., subprocess.Popen[str]]
Wait = Callable[..., None]


def test_sweep_ends_what_owner_and_warden_leave_when_both_are_killed(
    program: Program, programs: Path, run_id: str, tmp_path: Path, until: Wait
) -> None:
    owner = program(programs / "owner.py", run_id, tmp_path, "hang")
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    child = int((tmp_path / "child").read_text())
    warden = psutil.Process(child).ppid()
    owner.send_signal(signal.SIGSTOP)
    os.kill(warden, signal.SIGKILL)
    owner.kill()
    owner.wait()
    until(
        lambda: child not in {process.pid for process in find_processes(run_id)},
        "the program itself ends with its warden",
    )
    left = {int((tmp_path / name).read_text()) for name in ("grandchild", "great-grandchild")}
    assert {process.pid for process in find_processes(run_id)} >= left
    swept = sweep(run_id, grace_s=0.5)
    assert {process.pid for process in swept} >= left
    assert all(process.label == "family" for process in swept)
    assert find_processes(run_id) == []


def test_sweep_spares_other_runs(run_id: str, tmp_path: Path) -> None:
    others = [f"{run_id}-2", run_id[:-1]]
    trees = [
        ProcessTree.start(["sleep", "600"], log=tmp_path / "log", run_id=name, label="other")
        for name in others
    ]
    try:
        assert sweep(run_id) == []
        assert [tree.poll() for tree in trees] == [None, None]
    finally:
        for tree in trees:
            tree.stop(0)


def test_sweep_spares_what_is_kept_with_its_warden_and_descendants(
    run_id: str, tmp_path: Path, until: Wait
) -> None:
    log = tmp_path / "log"
    script = ["sh", "-c", "sleep 600 & sleep 600"]
    with (
        ProcessTree.start(script, log=log, run_id=run_id, label="kept") as kept,
        ProcessTree.start(script, log=log, run_id=run_id, label="swept") as swept,
    ):
        assert {process.label for process in sweep(run_id, keep=[kept.pid])} == {"swept"}
        assert kept.poll() is None
        until(lambda: len(kept.pids()) >= 2, "its program has started another")
        assert swept.wait(120) is not None


def test_descendants_are_found_though_they_dropped_the_environment(
    run_id: str, tmp_path: Path, until: Wait
) -> None:
    with ProcessTree.start(
        ["sh", "-c", "setsid env -i sleep 61 & sleep 60"],
        log=tmp_path / "log",
        run_id=run_id,
        label="x",
    ):
        until(lambda: "sleep 61" in [p.command for p in find_processes(run_id)], "it is found")
        assert "sleep 61" in [process.command for process in sweep(run_id, grace_s=0.2)]


def test_sweep_called_from_within_the_run_spares_the_caller(
    run_id: str, tmp_path: Path, programs: Path
) -> None:
    code = (
        "import subprocess, cluster\n"
        "other = subprocess.Popen(['sleep', '600'])\n"
        f"found = cluster.sweep({run_id!r}, grace_s=60)\n"
        "print([p.pid for p in found] == [other.pid], other.wait())"
    )
    environment = {**os.environ, "PYTHONPATH": str(programs.parents[2])}
    with ProcessTree.start(
        [sys.executable, "-c", code],
        log=tmp_path / "log",
        run_id=run_id,
        label="caller",
        env=environment,
    ) as tree:
        assert tree.wait(120) == 0, tree.log_tail()
    assert tree.log_tail() == "True -15"


def test_an_empty_run_id_is_refused() -> None:
    with pytest.raises(ValueError, match="TUNER_RUN_ID"):
        sweep("")
