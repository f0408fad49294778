"""What ends a session before its search does: a signal, or the death of Ray."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cluster import Connection
from tuner._terminal import Say

_WATCH_SECONDS = 1.0
_LEAVE_SECONDS = 15.0


class Watchdog:
    """Ends a session whose private Ray has died: Ray Tune itself may wait for it for ever.

    Measurements are on disk and trials end with their workers, so leaving at once loses nothing.
    """

    def __init__(self, connection: Connection, say: Say) -> None:
        self._connection = connection
        self._say = say
        self._over = threading.Event()

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_SECONDS):
            if self._connection.lost:
                self._say(f"{self._connection.lost}; resume continues where it stopped")
                os.kill(os.getpid(), signal.SIGUSR1)
                if not self._over.wait(_LEAVE_SECONDS):
                    os._exit(1)
                return


class Interrupted(KeyboardInterrupt):
    """A signal ended a session before it had a result.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Signals:
    """SIGINT and SIGTERM end a session in order: Ray saves its state, trials are taken down.

    While Ray Tune runs, it is asked to stop by the signal it understands; before and after,
    the signal unwinds our own stack. What leaves it so is :class:`Interrupted`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._graceful = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.getsignal(number)
            self.install()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, KeyboardInterrupt) and self.received is not None:
            raise Interrupted(self.received) from error

    def install(self) -> None:
        """Take the signals (again: starting Ray takes SIGTERM for itself)."""
        for number in self._before:
            signal.signal(number, self._handle)

    @contextmanager
    def gracefully(self) -> Iterator[None]:
        """While inside, a signal lets Ray Tune end its loop instead of raising."""
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        self.received = number
        if self._graceful and first:
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            raise KeyboardInterrupt
