"""A storage that may be gone for a while: read-only, not mounted, full, or without an answer from
its server."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from cluster._files import write_atomic, write_json
from cluster._private_cluster import ClusterError

STORAGE_S = 600.0
"""How long a storage that is gone is waited for."""
_GONE = frozenset(
    {
        errno.ENOENT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ETIMEDOUT,
    }
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROBE = ".there"
_PROBE_BYTES = 4096
_AGAIN_S = 0.5
T = TypeVar("T")


class StorageError(ClusterError):
    """A storage has been gone for longer than it is waited for."""


def is_gone(error: OSError) -> bool:
    """Whether an error is what one gets from a storage that is gone."""
    return error.errno in _GONE


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no space, or no more of it for this user."""
    return error.errno in _FULL


def probe(folder: Path) -> None:
    """Raise ``OSError`` when nothing can be written into ``folder``."""
    file = folder / _PROBE
    try:
        file.write_bytes(bytes(_PROBE_BYTES))
    finally:
        with suppress(OSError):
            file.unlink()


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Storage:
    """A folder through which everything is written that must not be lost with its file system.

    What cannot be done since the storage is gone is done again until it is back, in the order in
    which it was asked for, since the caller waits as well. Errors that are not the storage's are
    the caller's.

    Args:
        folder: What has to be there.
        say: Tells the user that it is waited for, and that it is back.
        interrupted: Whether the user wants an end; then ``KeyboardInterrupt`` ends the wait.
        wait_s: How long it is waited for.
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        say: Callable[[str], None] = _to_stderr,
        interrupted: Callable[[], bool] = lambda: False,
        wait_s: float = STORAGE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._say = say
        self._interrupted = interrupted
        self._wait_s = wait_s
        self._clock = clock
        self._sleep = sleep
        self._mark: Path | None = None
        self._given_up = False
        self._waited = 0.0

    def mark(self, file: Path) -> None:
        """Take the storage to be gone whenever ``file``, which stays in it, is not there: what is
        left where nothing is mounted any more is often an empty folder that can be written to."""
        self._mark = file

    def working(self) -> float:
        """Monotonic seconds that do not go on while the storage is waited for."""
        return self._clock() - self._waited

    def do(self, operation: Callable[[], T]) -> T:
        """The result of ``operation``, which may be begun several times.

        Raises:
            StorageError: The storage was gone for too long, now or in an earlier call.
            KeyboardInterrupt: The user did not want to wait.
            OSError: ``operation`` fails although the storage is there.
        """
        begun: float | None = None
        while True:
            try:
                self.check()
                result = operation()
            except OSError as error:
                if not self._is_mine(error):
                    raise
                begun = self._wait(error, begun)
                continue
            if begun is not None:
                took = self._clock() - begun
                self._waited += took
                self._say(f"{self._folder} is back after {took:.0f} s")
            return result

    def check(self) -> None:
        """Raise ``OSError`` when the storage is not there; it may be there to be read only."""
        if self._mark is not None:
            self._mark.stat()

    def was_gone(self) -> bool:
        """Whether nothing can be written here; returns when something can, as :meth:`do` does."""
        try:
            self._probe()
        except OSError as error:
            if not (is_gone(error) or is_full(error)):
                return False
            self.do(self._probe)
            return True
        return False

    def write(self, file: Path, content: str | bytes, *, mode: int = 0o644) -> None:
        """See :func:`cluster.write_atomic`."""
        self.do(lambda: write_atomic(file, content, mode=mode))

    def write_json(self, file: Path, document: Any) -> None:
        """See :func:`cluster.write_json`."""
        self.do(lambda: write_json(file, document))

    def _probe(self) -> None:
        self.check()
        probe(self._folder)

    def _is_mine(self, error: OSError) -> bool:
        """A full disk is taken at its word: what is small may fit where this did not."""
        if is_full(error):
            return True
        if is_gone(error):
            try:
                self._probe()
            except OSError:
                return True
        return False

    def _wait(self, error: OSError, begun: float | None) -> float:
        """Let some time pass; since when the storage is gone."""
        now = self._clock()
        said = f"{self._folder} cannot be written to: {error.strerror}"
        if self._interrupted():
            raise KeyboardInterrupt
        if begun is None and not self._given_up:
            self._say(f"{said}; waiting {self._wait_s:.0f} s for it")
        begun = now if begun is None else begun
        if self._given_up or now - begun >= self._wait_s:
            self._given_up = True
            raise StorageError(
                f"{said}, for {self._wait_s:.0f} s; resume goes on once it can be"
            ) from error
        self._sleep(_AGAIN_S)
        return begun
