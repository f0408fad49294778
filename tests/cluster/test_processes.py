"""A program never outlives its owner, whatever dies in whatever way, and says how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster import ProcessTree, _processes, child_environment, find_processes

Program = Callable[..., subprocess.Popen[str]]
Wait = Callable[..., None]


@pytest.fixture
def start(run_id: str, tmp_path: Path) -> Callable[..., ProcessTree]:
    def begin(*argv: str, **options: object) -> ProcessTree:
        log = tmp_path / "log"
        return ProcessTree.start(argv, log=log, run_id=run_id, label="test", **options)

    return begin


@pytest.fixture
def family(start: Callable[..., ProcessTree], programs: Path, tmp_path: Path, until: Wait):
    """A tree with a setsid grandchild and a double-forked, TERM-deaf great-grandchild."""
    tree = start(sys.executable, str(programs / "family.py"), str(tmp_path))
    until((tmp_path / "child").exists, "the family lives")
    return tree


def members(folder: Path) -> list[int]:
    return [int((folder / n).read_text()) for n in ("child", "grandchild", "great-grandchild")]


def warden_of(tree: ProcessTree) -> psutil.Process:
    parent = psutil.Process(tree.pid).parent()
    assert parent is not None
    return parent


def test_stop_ends_the_whole_family_before_it_returns(
    family: ProcessTree, tmp_path: Path, run_id: str
) -> None:
    assert family.pids() == set(members(tmp_path))
    family.stop(grace_s=0.5)
    assert find_processes(run_id) == []
    assert family.poll() in (-signal.SIGTERM, -signal.SIGKILL)
    family.stop()


@pytest.mark.parametrize("way", ["stop", "exit", "return"])
def test_family_ends_with_an_owner_that_ends_itself(
    way: str, program: Program, programs: Path, run_id: str, tmp_path: Path, vanishes: Wait
) -> None:
    owner = program(programs / "owner.py", run_id, tmp_path, way)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    owner.wait(120)
    vanishes(run_id)


@pytest.mark.parametrize(
    ("way", "number"),
    [
        ("hang", signal.SIGKILL),
        ("hang", signal.SIGTERM),
        ("hang", signal.SIGSEGV),
        ("fork", signal.SIGKILL),
    ],
)
def test_family_ends_with_an_owner_that_is_killed(
    way: str,
    number: signal.Signals,
    program: Program,
    programs: Path,
    run_id: str,
    tmp_path: Path,
    vanishes: Wait,
) -> None:
    owner = program(programs / "owner.py", run_id, tmp_path, way)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    assert len(find_processes(run_id)) == 4
    owner.send_signal(number)
    try:
        vanishes(run_id)
    finally:
        if way == "fork":
            os.kill(int((tmp_path / "forked").read_text()), signal.SIGKILL)


def test_killing_the_owners_process_group_does_not_stop_the_clean_up(
    programs: Path, run_id: str, tmp_path: Path, vanishes: Wait
) -> None:
    owner = subprocess.Popen(
        [sys.executable, str(programs / "owner.py"), run_id, str(tmp_path), "hang"],
        stdout=subprocess.PIPE,
        process_group=0,
        env={**os.environ, "PYTHONPATH": str(programs.parents[2])},
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    os.killpg(owner.pid, signal.SIGKILL)
    owner.communicate()
    vanishes(run_id)


def test_owner_ends_what_a_killed_warden_leaves(
    family: ProcessTree, run_id: str, until: Wait
) -> None:
    warden_of(family).kill()
    until(lambda: family.poll() is not None, "the owner notices")
    assert family.poll() == -signal.SIGKILL
    assert find_processes(run_id) == []


def test_a_program_that_supervises_others_ends_with_all_of_them(
    start: Callable[..., ProcessTree], programs: Path, run_id: str, tmp_path: Path, until: Wait
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(programs.parents[2])}
    owner = [sys.executable, str(programs / "owner.py"), run_id, str(tmp_path), "hang"]
    tree = start(*owner, env=environment)
    until((tmp_path / "child").exists, "the family lives")
    assert tree.pids() > set(members(tmp_path))
    tree.stop(grace_s=0.5)
    assert find_processes(run_id) == []


def test_warden_told_to_terminate_takes_the_family_along(family: ProcessTree, run_id: str) -> None:
    warden_of(family).terminate()
    assert family.wait(120) in (-signal.SIGTERM, -signal.SIGKILL)
    assert find_processes(run_id) == []


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", -9), ("kill -SEGV $$", -11)],
)
def test_the_way_the_program_ended_reaches_the_owner(
    script: str, code: int, start: Callable[..., ProcessTree]
) -> None:
    with start("sh", "-c", script) as tree:
        assert tree.wait(120) == code
        assert tree.poll() == code


def test_what_the_program_leaves_behind_is_gone_before_its_end_is_told(
    start: Callable[..., ProcessTree], run_id: str, tmp_path: Path
) -> None:
    leaves = tmp_path / "leaves"
    script = f"setsid sleep 300 & until [ -e {leaves} ]; do sleep 0.05; done; exit 5"
    tree = start("sh", "-c", script)
    assert tree.poll() is None
    leaves.touch()
    assert tree.wait(120) == 5
    assert find_processes(run_id) == []


def test_wait_returns_at_its_bound_and_wakes_at_the_end(
    start: Callable[..., ProcessTree],
) -> None:
    tree = start("cat", "/dev/zero")
    before = time.monotonic()
    assert tree.wait(0.3) is None
    assert time.monotonic() - before >= 0.3
    threading.Timer(0.3, os.kill, (tree.pid, signal.SIGINT)).start()
    assert tree.wait(600) == -signal.SIGINT, "before its bound, which is longer than this test's"


def test_stop_gives_the_program_time_to_end_well(
    start: Callable[..., ProcessTree], tmp_path: Path
) -> None:
    script = f"trap 'sleep 0.5 && touch {tmp_path}/clean; exit 0' TERM; echo up; sleep 60 & wait"
    tree = start("sh", "-c", script)
    while "up" not in tree.log_tail():
        assert tree.wait(0.02) is None
    tree.stop(grace_s=120)
    assert tree.poll() == 0
    assert (tmp_path / "clean").exists()


def test_a_suspended_program_is_continued_to_end_well(
    start: Callable[..., ProcessTree],
) -> None:
    tree = start("sh", "-c", "trap 'exit 7' TERM; echo up; sleep 60 & wait")
    while "up" not in tree.log_tail():
        assert tree.wait(0.02) is None
    os.kill(tree.pid, signal.SIGSTOP)
    tree.stop(grace_s=120)
    assert tree.poll() == 7


def test_a_deaf_program_is_killed_after_the_grace(start: Callable[..., ProcessTree]) -> None:
    tree = start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
    while "up" not in tree.log_tail():
        assert tree.wait(0.02) is None
    tree.stop(grace_s=0.3)
    assert tree.poll() == -signal.SIGKILL


def test_leaving_the_context_stops_the_tree_also_after_an_error(
    start: Callable[..., ProcessTree], run_id: str
) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), start("sleep", "60"):
        raise RuntimeError("on purpose")
    assert find_processes(run_id) == []


def test_a_forgotten_tree_ends(
    start: Callable[..., ProcessTree], run_id: str, vanishes: Wait
) -> None:
    tree = start("sleep", "60")
    assert find_processes(run_id)
    del tree
    vanishes(run_id)


@pytest.mark.parametrize("name", ["missing", "not-executable"])
def test_a_program_that_cannot_run_is_said_by_name(
    name: str, start: Callable[..., ProcessTree], tmp_path: Path, run_id: str
) -> None:
    (tmp_path / "not-executable").touch(mode=0o644)
    with pytest.raises((FileNotFoundError, PermissionError), match=name):
        start(str(tmp_path / name))
    assert find_processes(run_id) == []


def test_a_missing_working_folder_is_said(
    start: Callable[..., ProcessTree], tmp_path: Path, run_id: str
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        start("true", cwd=tmp_path / "nowhere")
    assert find_processes(run_id) == []


def test_output_is_appended_to_the_log_and_the_tail_is_its_end(
    start: Callable[..., ProcessTree], tmp_path: Path
) -> None:
    for script in ("echo one; echo two >&2", "echo three; printf '\\377four\\n'"):
        with start("sh", "-c", script) as tree:
            tree.wait(120)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n\xfffour\n"
    assert tree.log_tail(2) == "three\n\ufffdfour"


def test_program_gets_exactly_its_arguments_environment_and_folder(
    start: Callable[..., ProcessTree], tmp_path: Path, run_id: str
) -> None:
    with start("/usr/bin/env", env={"A": "x y"}) as tree:
        tree.wait(120)
    names = {line.split("=")[0] for line in tree.log_tail().splitlines()}
    assert names == {"A", "TUNER_RUN_ID", "TUNER_LABEL", "TUNER_TREE"}
    (tmp_path / "log").unlink()
    with start("sh", "-c", 'pwd; printf "<%s>" "$@"', "sh", "", "a b", "é", cwd=tmp_path) as tree:
        tree.wait(120)
    assert tree.log_tail() == f"{tmp_path}\n<><a b><é>"


def test_program_starts_with_default_signals_though_its_owner_blocks_some(
    start: Callable[..., ProcessTree],
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with start("cat", "/proc/self/status") as tree:
            tree.wait(120)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = dict(line.split(":\t") for line in tree.log_tail(100).splitlines() if ":\t" in line)
    ours = sum(1 << number - 1 for number in signal.valid_signals())  # libc keeps two for itself
    assert int(status["SigBlk"], 16) & ours == 0
    assert int(status["SigIgn"], 16) & ours == 0


def test_memory_exhaustion_takes_the_program_before_its_warden(
    start: Callable[..., ProcessTree],
) -> None:
    with start("sleep", "60") as tree:
        score = Path(f"/proc/{tree.pid}/oom_score_adj").read_text()
        assert int(score) == 1000
        assert int(Path(f"/proc/{warden_of(tree).pid}/oom_score_adj").read_text()) < 1000


def test_supervision_costs_little_at_the_start() -> None:
    """Of what makes Python start slowly, its program imports nothing."""
    argv = [sys.executable, "-S", "-E", "-I", "-X", "importtime", _processes._WARDEN]
    said = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=120
    ).stderr
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert "ctypes" in imported
    slow = {"site", "pathlib", "subprocess", "threading", "re", "typing", "socket", "logging"}
    assert not slow & imported


def test_child_environment_is_free_of_ray_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    started_with = psutil.Process().environ()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "2,3")
    environment = child_environment("run", "engine", {"EXTRA": "1", "RAY_WANTED": "yes"})
    assert [name for name in environment if name.startswith("RAY_")] == ["RAY_WANTED"]
    assert environment.get("OMP_NUM_THREADS") == started_with.get("OMP_NUM_THREADS")
    assert environment["ASCEND_RT_VISIBLE_DEVICES"] == "2,3"
    assert environment["EXTRA"] == "1"
    assert (environment["TUNER_RUN_ID"], environment["TUNER_LABEL"]) == ("run", "engine")


CLEANS_UP = """
import signal, sys, time
from pathlib import Path

def end(*_):
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1], "cleaned").touch()
    sys.exit()

signal.signal(signal.SIGTERM, end)
Path(sys.argv[1], "ready").touch()
time.sleep(600)
"""
OWNER = """
import sys, time
from pathlib import Path
from cluster import ProcessTree
program, run_id, folder, grace, takes = sys.argv[1:]
argv, log = [sys.executable, "-c", program, folder, takes], Path(folder, "log")
grace_s = float(grace) if grace else None
tree = ProcessTree.start(argv, log=log, run_id=run_id, label="t", orphan_grace_s=grace_s)
time.sleep(600)
"""


@pytest.mark.parametrize(("grace", "takes", "cleaned"), [("", "600", False), ("300", "3", True)])
def test_a_program_may_be_given_time_to_clean_up_after_its_owner_has_died(
    grace: str, takes: str, cleaned: bool, run_id: str, tmp_path: Path, until: Wait, vanishes: Wait
) -> None:
    """Three seconds are more than it has otherwise."""
    argv = [sys.executable, "-c", OWNER, CLEANS_UP, run_id, str(tmp_path), grace, takes]
    with subprocess.Popen(argv) as owner:
        try:
            until((tmp_path / "ready").exists, "the program is ready")
        finally:
            owner.kill()
    vanishes(run_id)
    assert (tmp_path / "cleaned").exists() is cleaned
