"""One run per storage folder: two drivers writing one ledger would destroy it."""

from __future__ import annotations

import time
from pathlib import Path

from cluster._locks import FileLock, Holder, read_holder

_FILE = "run.lock"
_HOLDER_WRITES_WITHIN_S = 1.0


class RunLockedError(RuntimeError):
    """Another process works in this folder.

    Attributes:
        holder: Who, as far as the folder tells; ``None`` when it does not.
    """

    def __init__(self, folder: Path, holder: Holder | None) -> None:
        who = str(holder) if holder else "another process that has not said its name"
        super().__init__(
            f"{folder} is in use by {who}. Wait for it, stop it, or choose another storage folder"
        )
        self.holder = holder


class RunLock:
    """Exclusive lock of a run's storage folder, as a context manager.

    The kernel frees it when the holder dies in any way; it is not inherited by child programs or
    forked children, and a file left by a dead run never blocks. On NFS it holds between hosts as
    far as the mount supports locks.

    Args:
        folder: The folder.
        file: Name of the file in it that is locked, for locks beside that of the run.
    """

    def __init__(self, folder: Path, *, file: str = _FILE) -> None:
        self._folder = folder
        self._file = file
        self._lock: FileLock | None = None

    def acquire(self) -> None:
        """Take the lock; the folder is made if need be.

        Raises:
            RunLockedError: A living process holds it; also when that is this process.
            OSError: The folder cannot be written or its file system has no locks.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / self._file
        try:
            lock = FileLock(path)
        except BlockingIOError:
            raise RunLockedError(self._folder, _wait_for_holder(path)) from None
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._folder} cannot be locked ({error.strerror}). Choose a storage folder on a "
                "file system with locks; on NFS, one mounted without the option nolock",
            ) from error
        lock.write_holder()
        self._lock = lock

    def release(self) -> None:
        """Free the lock. May be repeated."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _wait_for_holder(path: Path) -> Holder | None:
    """The holder of a lock that is held; it may have locked the file but not written it yet."""
    deadline = time.monotonic() + _HOLDER_WRITES_WITHIN_S
    while True:
        holder = read_holder(path)
        if holder is not None and holder.alive:
            return holder
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)
