"""Locks between processes that the kernel frees when their holder dies, whatever way it dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import weakref
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import psutil


class Closable(Protocol):
    """Something with a file descriptor of its own."""

    def close(self) -> None: ...


_not_for_children: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_in_forked_children(resource: Closable) -> None:
    """Keep ``resource`` out of processes forked without exec, which would hold its file open.

    Executed programs never see it: Python opens everything close-on-exec.
    """
    _not_for_children.add(resource)


def _close_all() -> None:
    for resource in list(_not_for_children):
        resource.close()


os.register_at_fork(after_in_child=_close_all)


def runtime_folder() -> Path:
    """A folder of this user on this host, mode 700, the same for all processes of the user.

    ``TUNER_RUNTIME_DIR`` moves it. Raises ``PermissionError`` when somebody else may use the path.
    """
    return private_folder(
        Path(os.environ.get("TUNER_RUNTIME_DIR") or f"/tmp/npu-tuner-{os.getuid()}")
    )


def private_folder(folder: Path) -> Path:
    """``folder``, made if need be; ``PermissionError`` unless only this user may enter it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must be a folder, not a link, that only this user can enter (mode 700). "
            "Remove it, or choose another (TUNER_RUNTIME_DIR for files of running programs)"
        )
    return folder


@dataclass(frozen=True)
class Holder:
    """Who took a lock.

    Attributes:
        pid: Process id on ``host``.
        host: Host name.
        started: When the lock was taken; ISO 8601 with time zone.
        command: The program and its subcommand, without further arguments.
    """

    pid: int
    host: str
    started: str
    command: str

    @classmethod
    def here(cls) -> Holder:
        """This process, now."""
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), started, " ".join(sys.argv[:2]))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started} ({self.command})"

    @property
    def alive(self) -> bool:
        """Whether that process exists; a process on another host is taken to be alive."""
        return self.host != socket.gethostname() or psutil.pid_exists(self.pid)


class FileLock:
    """An exclusive ``flock(2)`` on a file or folder, held from construction until :meth:`close`.

    Only the lock decides; what is written in the file serves messages. The file stays after
    release: removing it would let two processes lock two files of the same name.

    Raises:
        BlockingIOError: Somebody holds it; see :func:`read_holder`.
        OSError: The file system has no locks (``ENOLCK``, ``EOPNOTSUPP``) or refuses the file.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno == errno.EACCES:
                raise BlockingIOError(error.errno, error.strerror, str(path)) from error
            raise
        self._descriptor = descriptor
        close_in_forked_children(self)

    def write_holder(self) -> Holder:
        """Say in the file that this process holds it."""
        holder = Holder.here()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)
        return holder

    def close(self) -> None:
        """Free the lock. May be repeated."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def read_holder(path: Path) -> Holder | None:
    """Who wrote itself into a lock file last; ``None`` when that cannot be read."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
