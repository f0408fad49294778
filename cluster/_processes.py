"""Child programs that never outlive their owner, with everything they start.

A :class:`ProcessTree` is started through a small warden process (``_warden.py``), which takes the
whole tree down when the program ends, when it is told to, or when the owner dies by any means.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from cluster._locks import close_in_forked_children
from cluster._orphans import (
    LABEL_VARIABLE,
    RUN_VARIABLE,
    TREE_VARIABLE,
    ProcessesRemainError,
    describe,
    sweep_tree,
)

_WARDEN = Path(__file__).with_name("_warden.py")
_START_BOUND_S = 60.0
_KILL_BOUND_S = 20.0
"""Longer than the warden's own bound for processes that do not vanish after KILL."""
_SET_BY_RAY = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "TUNE_ORIG_WORKING_DIR")
"""Variables Ray writes into a running driver or worker, meant for that process only."""
_TAIL_BYTES = 256 * 1024


def child_environment(
    run_id: str, label: str, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment for a program of a run: this process's own, cleaned of Ray, and marked.

    A Ray worker carries ``RAY_*`` and an ``OMP_NUM_THREADS`` that Ray derived from the CPUs of the
    worker, not of the program; an engine that uses Ray itself would join our cluster. Those go;
    what Ray changed returns to what this process was started with. Visible devices
    (``ASCEND_RT_VISIBLE_DEVICES``, ``CUDA_VISIBLE_DEVICES``) stay. ``extra`` wins over all.
    """
    original = psutil.Process().environ()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    for name in _SET_BY_RAY:
        environment.pop(name, None)
        if name in original:
            environment[name] = original[name]
    # setproctitle would overwrite the environment the kernel shows, and with it our marks.
    environment["SPT_NOENV"] = "1"
    environment.update(extra or {})
    environment.update({RUN_VARIABLE: run_id, LABEL_VARIABLE: label})
    return environment


class ProcessTree:
    """A running program and all that descends from it. Made by :meth:`start`.

    Leaving its context stops it. Methods may be called from any thread.
    """

    def __init__(self, channel: socket.socket, tree: str, log: Path) -> None:
        self._channel = channel
        self._tree = tree
        self._log = log
        self._lock = threading.RLock()
        self._received = b""
        self._pid = 0
        self._warden = 0
        self._code: int | None = None
        self._remaining: list[int] = []
        close_in_forked_children(channel)

    @classmethod
    def start(
        cls,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        run_id: str,
        label: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        orphan_grace_s: float | None = None,
    ) -> ProcessTree:
        """Start ``argv``; its output is appended to ``log``, its input is empty.

        Args:
            argv: Program and arguments; the program is searched in the ``PATH`` of ``env``.
            log: File for standard output and error; folders are made.
            run_id: Marks the tree for :func:`cluster.sweep`.
            label: What this is, for people: ``engine``, ``quantize``.
            env: The complete environment; :func:`child_environment` by default.
            cwd: Working folder; this process's own by default.
            orphan_grace_s: Seconds between TERM and KILL once this process has died; 2 by default,
                more for a program that has to clean up what lives outside of its tree.

        Raises:
            OSError: The program or the folder does not exist or may not be used, or the warden
                did not come up.
        """
        arguments = [os.fsencode(argument) for argument in argv]
        if not arguments or any(b"\0" in argument for argument in arguments):
            raise ValueError(f"not a command line: {argv!r}")
        tree = uuid.uuid4().hex
        environment = dict(child_environment(run_id, label) if env is None else env)
        environment.update({RUN_VARIABLE: run_id, LABEL_VARIABLE: label, TREE_VARIABLE: tree})
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        close_in_forked_children(theirs)
        started = cls(ours, tree, log)
        try:
            with theirs, log.open("ab") as output:
                _spawn_warden(theirs, output, cwd, environment)
            started._order(arguments)
            if orphan_grace_s is not None:
                ours.sendall(b"orphaned %f\n" % orphan_grace_s)
        except BaseException:
            ours.close()
            raise
        return started

    def _order(self, arguments: Sequence[bytes]) -> None:
        """Tell the warden what to run and wait until it runs."""
        message = b"\0".join(arguments)
        self._channel.settimeout(_START_BOUND_S)
        self._channel.sendall(b"%d\n" % len(message) + message)
        while b"\n" not in self._received:
            data = self._channel.recv(4096)
            if not data:
                raise BrokenPipeError(f"the warden ended at once; see the end of {self._log}")
            self._received += data
        self._channel.settimeout(None)
        line, _, self._received = self._received.partition(b"\n")
        word, *values = line.split()
        if word == b"refused":
            code = int(values[0])
            self._channel.settimeout(_START_BOUND_S)
            self._channel.recv(1)  # returns when the warden is gone
            raise OSError(code, os.strerror(code), os.fsdecode(arguments[0]))
        self._pid, self._warden = map(int, values)

    @property
    def pid(self) -> int:
        """Process id of the program itself, which is also its process group and session."""
        return self._pid

    def pids(self) -> set[int]:
        """Process ids of the whole tree as it is now, wherever it forked to."""
        with suppress(psutil.Error):
            return {child.pid for child in psutil.Process(self._warden).children(True)}
        return set()

    def poll(self) -> int | None:
        """The program's exit status, or the negative number of the signal that ended it.

        ``None`` as long as anything of the tree lives: what the program left behind is ended
        before its exit is reported.
        """
        return self.wait(0)

    def wait(self, timeout: float) -> int | None:
        """:meth:`poll`, after waiting at most ``timeout`` seconds for it; wakes at the event."""
        deadline = time.monotonic() + timeout
        while self._code is None:
            poll = select.poll()
            poll.register(self._channel, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            self._receive()
        return self._code

    def stop(self, grace_s: float = 10.0) -> None:
        """End the tree: TERM to all of it, KILL after ``grace_s`` seconds, return when it is gone.

        Harmless on a tree that has ended. Raises :class:`ProcessesRemainError` when something is
        still there about 15 s after KILL.
        """
        with suppress(OSError):
            self._channel.sendall(b"stop %f\n" % grace_s)
        if self.wait(grace_s + _KILL_BOUND_S) is None:
            self._lose_warden()
        self._channel.close()
        remaining = describe(self._remaining)
        if remaining:
            raise ProcessesRemainError(remaining)

    def _receive(self) -> None:
        """Take in what the warden says. Its last words count once it is gone."""
        with self._lock:
            if self._code is not None:
                return
            try:
                data = self._channel.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._received += data
            if not data and self._received.endswith(b"\n"):
                _, code, *remaining = self._received.split()
                self._remaining = [int(pid) for pid in remaining]
                self._code = int(code)
            elif not data:
                self._lose_warden()

    def _lose_warden(self) -> None:
        """The warden was killed, and the program with it; end what it can no longer end."""
        with self._lock:
            self._code = -signal.SIGKILL
            sweep_tree(self._tree, grace_s=0)

    def log_tail(self, lines: int = 40) -> str:
        """The last ``lines`` lines of the log, at most 256 KiB of them."""
        with self._log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> ProcessTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _spawn_warden(
    channel: socket.socket, output: IO[bytes], cwd: Path | None, environment: Mapping[str, str]
) -> None:
    """Start a warden and return once it is on its own, no child of this process."""
    try:
        subprocess.run(
            [sys.executable, "-S", "-E", "-I", str(_WARDEN)],
            stdin=channel.fileno(),
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            timeout=_START_BOUND_S,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise BrokenPipeError(f"the warden did not come up: {error}") from error
