"""A supervisor over small programs that end, crash and hang."""

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

from cluster import find_processes
from tuner._store import RunStore
from tuner.watch import RestartPolicy, Supervisor, WatchedError

QUICK = RestartPolicy(first_s=0.01, most_s=0.02, crashes=3, within_s=60)


class Watched:
    """A supervisor, and what it told."""

    def __init__(self, folder: Path, program: str, policy: RestartPolicy = QUICK) -> None:
        self.said: list[str] = []
        self.crashes: list[str] = []
        self.loops: list[str] = []
        self.pid_file = folder / "watch.pid"
        self.log = folder / "watch.log"
        self.supervisor = Supervisor(
            [sys.executable, "-S", "-E", "-c", program, str(folder)],
            folder=folder / "run",
            log=self.log,
            pid_file=self.pid_file,
            policy=policy,
            say=self.said.append,
            on_crash=self.crashes.append,
            on_loop=self.loops.append,
        )


COUNT = """
import os, signal, sys
folder = sys.argv[1]
with open(folder + "/starts", "a") as stream:
    stream.write("x")
number = os.path.getsize(folder + "/starts")
"""


def starts(folder: Path) -> int:
    return (folder / "starts").stat().st_size


@pytest.mark.parametrize("code", [0, 2, 3, 4])
def test_a_normal_end_is_the_end(tmp_path: Path, code: int) -> None:
    watched = Watched(tmp_path, f"{COUNT}\nprint('done')\nsys.exit({code})")
    assert watched.supervisor.run() == code
    assert starts(tmp_path) == 1
    assert not watched.crashes
    assert "done" in watched.log.read_text()
    assert not watched.pid_file.exists()


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(130)", 130), ("os.kill(os.getpid(), 15)", 143)]
)
def test_one_that_the_user_stopped_is_not_started_again(
    tmp_path: Path, end: str, code: int
) -> None:
    watched = Watched(tmp_path, f"{COUNT}\n{end}")
    assert watched.supervisor.run() == code
    assert starts(tmp_path) == 1


def test_crashes_are_answered_by_restarts_until_it_ends(tmp_path: Path) -> None:
    program = f"{COUNT}\nif number < 3: os.kill(os.getpid(), signal.SIGKILL)\nsys.exit(3)"
    watched = Watched(tmp_path, program)
    assert watched.supervisor.run() == 3
    assert starts(tmp_path) == 3
    assert watched.crashes == ["the run died with SIGKILL"] * 2
    assert not watched.loops


def test_a_crash_loop_is_given_up_and_told(tmp_path: Path) -> None:
    watched = Watched(tmp_path, f"{COUNT}\nsys.exit('no card')")
    assert watched.supervisor.run() == 1
    assert starts(tmp_path) == 3
    (told,) = watched.loops
    assert "exit code 1, 3 times within 60 s" in told and str(watched.log) in told
    assert "no card" in watched.log.read_text()


def test_a_second_supervisor_is_refused_and_told_who_works(tmp_path: Path) -> None:
    other = Watched(tmp_path, "pass")
    said: list[str] = []

    class Asking(Watched):
        def ask(self) -> None:
            with pytest.raises(WatchedError) as caught:
                other.supervisor.run()
            said.append(str(caught.value))

    watched = Asking(tmp_path, "import sys; sys.exit(1)", RestartPolicy(0.01, 0.02, 1, 60))
    watched.supervisor._on_loop = lambda text: watched.ask()
    assert watched.supervisor.run() == 1
    assert f"process {os.getpid()} " in said[0]
    assert other.supervisor.run() == 0, "free again"


def test_the_pid_file_holds_the_pid_alone(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "import sys; sys.exit(1)", RestartPolicy(0.01, 0.02, 1, 60))
    seen: list[str] = []
    watched.supervisor._on_loop = lambda text: seen.append(watched.pid_file.read_text())
    watched.supervisor.run()
    assert seen == [f"{os.getpid()}\n"]


HANGS = f"{COUNT}\nimport time\n{{}}\nopen(folder + '/up', 'w').close()\ntime.sleep(600)"
POLITE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def signal_when(number: int, *conditions: Callable[[], bool]) -> None:
    """Send a signal to this process from a thread, each time the next condition holds."""

    def send() -> None:
        for condition in conditions:
            while not condition():
                time.sleep(0.02)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize(("manner", "times"), [(POLITE, 1), (DEAF, 2)])
def test_a_signal_ends_the_run_first_and_then_the_supervisor(
    tmp_path: Path, manner: str, times: int
) -> None:
    watched = Watched(tmp_path, HANGS.format(manner))
    is_up = (tmp_path / "up").exists
    signal_when(signal.SIGTERM, *[is_up, lambda: "told to end" in watched.said[-1]][:times])
    assert watched.supervisor.run() == 143
    assert starts(tmp_path) == 1
    pid = next(line.split()[-1] for line in watched.said if line.startswith("started"))
    assert not psutil.pid_exists(int(pid))
    assert not watched.pid_file.exists()


def test_a_signal_between_two_starts_ends_the_waiting(tmp_path: Path) -> None:
    watched = Watched(tmp_path, f"{COUNT}\nsys.exit(1)", RestartPolicy(600, 600, 5, 3600))
    signal_when(signal.SIGINT, lambda: bool(watched.crashes))
    assert watched.supervisor.run() == 130
    assert starts(tmp_path) == 1


def test_what_a_dead_run_left_behind_is_gone_before_the_restart(tmp_path: Path) -> None:
    """A server that has left its process tree, as one started by another daemon has."""
    store = RunStore(tmp_path / "run")
    store.folder.mkdir()
    identity = store.begin(resume=False).run_id
    server = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"],
        env={**os.environ, "TUNER_RUN_ID": identity},
    )
    seen: list[int | None] = []
    watched = Watched(tmp_path, f"{COUNT}\nsys.exit(1 if number < 2 else 0)")
    watched.supervisor._on_crash = lambda said: seen.append(len(find_processes(identity)))
    assert watched.supervisor.run() == 0
    assert seen == [0]
    assert server.wait(120) in (-signal.SIGTERM, -signal.SIGKILL)


def test_the_run_ends_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tests.tuner.watch.test_supervisor import HANGS, Watched
Watched(Path({str(tmp_path)!r}), HANGS.format("pass")).supervisor.run()
"""
    watcher = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 240
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    log = (tmp_path / "watch.log").read_text()
    pid = int(log.split("started as process ")[1].split()[0])
    assert psutil.pid_exists(pid)
    watcher.kill()
    watcher.wait()
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    assert Watched(tmp_path, "pass").supervisor.run() == 0, "its lock and pid file stop nobody"
