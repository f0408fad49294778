"""A run's folder has one owner at a time, and a dead one never keeps it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import RunLock, RunLockedError

Program = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def locked(program: Program, programs: Path, tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds ``tmp_path``."""
    holder = program(programs / "locker.py", tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_the_second_is_told_who_is_first(locked: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(RunLockedError, match=f"process {locked.pid} on") as error:
        RunLock(tmp_path).acquire()
    holder = error.value.holder
    assert holder is not None
    assert (holder.pid, holder.host) == (locked.pid, socket.gethostname())
    assert holder.started in str(error.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_of_the_holder_frees_the_folder_at_once(
    number: signal.Signals, locked: subprocess.Popen[str], tmp_path: Path
) -> None:
    locked.send_signal(number)
    locked.wait()
    with RunLock(tmp_path):
        pass


def test_one_process_cannot_take_it_twice_but_again(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunLockedError, match=str(os.getpid())):
        RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        pass


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    reader, writer = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.write(writer, b".")
        signal.pause()
    os.read(reader, 1)
    executed = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        executed.kill()
        executed.wait()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("content", [b"", b"\0" * 9, b'{"pid": 1}', b"[]"])
def test_what_a_dead_run_left_in_the_file_never_blocks(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_bytes(content)
    with RunLock(tmp_path), pytest.raises(RunLockedError, match=str(os.getpid())):
        RunLock(tmp_path).acquire()


STALE = {"pid": 2**30, "host": socket.gethostname(), "started": "yesterday", "command": "dead"}


@pytest.mark.parametrize("content", ["", json.dumps(STALE)])
def test_a_holder_that_has_not_written_yet_excludes_and_is_not_mistaken_for_a_dead_one(
    content: str, tmp_path: Path
) -> None:
    with RunLock(tmp_path):
        (tmp_path / "run.lock").write_text(content)
        with pytest.raises(RunLockedError, match="has not said its name"):
            RunLock(tmp_path).acquire()


def test_the_folder_is_made(tmp_path: Path) -> None:
    with RunLock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
