"""Keeps one driver running until it comes to an end of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from uuid import uuid4

from cluster import (
    ProcessesRemainError,
    ProcessTree,
    RunLock,
    RunLockedError,
    sweep,
    write_atomic,
)
from tuner._store import RunStore, now
from tuner.watch._policy import RestartPolicy, ending

_LOOK_S = 0.5
_STOP_S = 150.0
"""How long a driver may take to end in order: trials are taken down, Ray saves its state, and
notifications are sent, each within bounds of its own."""
_GRACE_S = 10.0
_HURRY_S = 1.0
"""Between TERM and KILL for what did not end in order; the second after a repeated signal."""
_FAILED = 1


class WatchedError(RuntimeError):
    """Somebody watches this run already."""


class Supervisor:
    """Runs a command, and runs it again after a crash.

    The command is a driver of the run in ``folder`` that goes on where an earlier one stopped. It
    runs in a process tree that ends, whole, when it ends and when the supervisor does, by whatever
    way; what a dead driver's trials left behind elsewhere is found by the id of the run.

    Args:
        command: Program and arguments.
        folder: The run's folder; one supervisor works for it at a time.
        log: What the command prints is appended to it, and what the supervisor says.
        pid_file: Holds the supervisor's process id, nothing else, while it works.
        say: Tells the user one line.
        on_crash: Hears of a crash in a sentence, before the restart.
        on_loop: Hears that there will be no further restart.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        pid_file: Path,
        policy: RestartPolicy,
        say: Callable[[str], None],
        on_crash: Callable[[str], None],
        on_loop: Callable[[str], None],
    ) -> None:
        self._command = list(command)
        self._folder = folder
        self._log = log
        self._pid_file = pid_file
        self._policy = policy
        self._tell = say
        self._on_crash, self._on_loop = on_crash, on_loop
        self._signal: int | None = None
        self._hurry = False
        self._waking = threading.Event()

    def run(self) -> int:
        """Until the command ends normally, is stopped, or crashes in a loop; the exit code.

        Raises:
            WatchedError: Another supervisor works for this run; says who.
        """
        with self._alone(), self._signals():
            crashes: list[float] = []
            while True:
                code = self._session()
                if (stopped := self._stopped) is not None:
                    return stopped
                kind = ending(code)
                if kind != "crash":
                    self._say(f"ended with {_named(code)}; not started again")
                    return code if code >= 0 else 128 - code
                crashes.append(time.monotonic())
                said = f"the run died with {_named(code)}"
                self._sweep()
                self._on_crash(said)
                delay = self._policy.delay(crashes)
                if delay is None:
                    self._give_up(said)
                    return _FAILED
                self._say(f"{said}; started again in {delay:g} s (see {self._log})")
                self._waking.wait(delay)
                if (stopped := self._stopped) is not None:
                    return stopped

    @property
    def _stopped(self) -> int | None:
        """The exit code of one that was told to end; None while it was not."""
        return None if self._signal is None else 128 + self._signal

    def _session(self) -> int:
        """Run the command once; its exit status, negative for a signal."""
        tree = ProcessTree.start(
            self._command,
            log=self._log,
            run_id=f"watch-{uuid4().hex[:12]}",
            label="driver",
            env=dict(os.environ),
        )
        self._say(f"started as process {tree.pid}")
        asked: float | None = None
        try:
            while (code := tree.wait(_LOOK_S)) is None:
                if self._signal is None:
                    continue
                if asked is None:
                    asked = time.monotonic()
                    self._say(f"told to end by {_named(-self._signal)}; waiting for the run")
                    with suppress(ProcessLookupError):
                        os.kill(tree.pid, self._signal)
                elif self._hurry or time.monotonic() - asked > _STOP_S:
                    break
            return -signal.SIGKILL if code is None else code
        finally:
            tree.stop(_HURRY_S if self._hurry else _GRACE_S)

    def _sweep(self) -> None:
        """End what the dead driver's trials left: engines, evaluations, their children."""
        record = RunStore(self._folder).record()
        if record is None:
            return
        try:
            for process in sweep(record.run_id):
                self._say(f"ended what was left of it: {process}")
        except ProcessesRemainError as error:
            self._say(str(error))

    def _give_up(self, said: str) -> None:
        policy = self._policy
        text = (
            f"{said}, {policy.crashes} times within {policy.within_s:g} s; not started again. "
            f"See {self._log}; what was measured is safe, and the same command goes on with it"
        )
        self._say(text)
        self._on_loop(text)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = RunLock(self._folder, file="watch.lock")
        try:
            lock.acquire()
        except RunLockedError as error:
            raise WatchedError(f"{self._folder} is watched already by {error.holder}") from None
        try:
            write_atomic(self._pid_file, f"{os.getpid()}\n")
            yield
        finally:
            self._pid_file.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._hurry = self._signal is not None
        self._signal = number
        self._waking.set()

    def _say(self, line: str) -> None:
        self._tell(line)
        with suppress(OSError):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as stream:
                stream.write(f"{now()} watch: {line}\n")


def _named(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
