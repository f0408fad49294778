"""Files that survive any death of their writer: either the old content or the new, never half."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` so that a reader or a crash never meets a partial file.

    The data is on disk before the new name is; the folder entry is synced after. Parent folders
    are made. Raises ``OSError`` when the disk refuses; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as JSON with :func:`write_atomic`. NaN and infinity are refused."""
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    write_atomic(path, text + "\n")


def sync_folder(folder: Path) -> None:
    """Make renames and new names inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class GrowingFile:
    """A file to which whole entries are appended.

    What a failed attempt has left of an entry is cut off before the next attempt.

    Args:
        file: Its path; its folder has to be there.
        durable: Whether an entry is on disk when :meth:`append` returns.
    """

    def __init__(self, file: Path, *, durable: bool) -> None:
        self._file = file
        self._durable = durable
        self._end: int | None = None

    def append(self, entry: bytes) -> None:
        """Append an entry. Raises ``OSError`` when that fails; it may be tried again."""
        new = self._durable and not self._file.exists()
        descriptor = os.open(
            self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666
        )
        try:
            if self._end is None:
                self._end = os.fstat(descriptor).st_size
            else:
                os.ftruncate(descriptor, self._end)
            rest = memoryview(entry)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if self._durable:
                os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        os.close(descriptor)
        if new:
            sync_folder(self._file.parent)
        self._end = None
