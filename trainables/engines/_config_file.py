"""A configuration file of somebody else's program, edited for as long as the program runs.

Beside the file lies a folder ``.<name>.npu-tuner``: a lock that one living process holds, and while
the file is edited the original and a note of the edit. Whoever is killed leaves both, and the next
one puts the original back before anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from cluster import RunLock, RunLockedError, write_atomic, write_json
from trainables._program import StageError

_ENCODING = "utf-8-sig"


@dataclass(frozen=True)
class _Edit:
    """An edit under way, or left behind.

    Attributes:
        run_id: The run that made it.
        since: When; ISO 8601 with time zone.
        digest: Of what was written.
    """

    run_id: str
    since: str
    digest: str


class ConfigFile:
    """A configuration file that is edited and restored.

    Attributes:
        path: The file itself, no link to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._folder = self.path.with_name(f".{self.path.name}.npu-tuner")
        self._original = self._folder / "original"
        self._marker = self._folder / "edited.json"

    def original(self) -> str:
        """Its text as it was before any edit of ours.

        Raises ``StageError`` when it cannot be read.
        """
        try:
            if self._marker.exists():
                with suppress(FileNotFoundError):
                    return self._original.read_text(_ENCODING)
            return self.path.read_text(_ENCODING)
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise StageError(
                "input", f"{self.path} cannot be read: {said}", "see engine.config_path"
            ) from error

    @contextmanager
    def edited(self, change: Callable[[str], str], run_id: str) -> Iterator[list[str]]:
        """The file with ``change`` applied to its text, until the context is left.

        Yields notes about what was found. Content, mode and owner are what they were afterwards,
        byte by byte.

        Raises ``StageError`` when somebody else has it, when it cannot be written, or when nobody
        can say which of two versions is the original.
        """
        with self._locked():
            notes = self._recover()
            text = change(self.original()).encode()
            before = self.path.read_bytes()
            write_atomic(self._original, before, mode=_mode(self.path))
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            write_json(self._marker, asdict(_Edit(run_id, now, _digest(text))))
            try:
                self._write(text)
                yield notes
            finally:
                self._restore(before)

    def recover(self) -> list[str]:
        """Put back the original that a killed run left behind; what was done, in words.

        Raises ``StageError`` as :meth:`edited`.
        """
        with self._locked():
            return self._recover()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = RunLock(self._folder)
        try:
            lock.acquire()
        except RunLockedError as error:
            raise StageError(
                "startup",
                f"{self.path} is being edited by {error.holder or 'another process'}",
                "let one trial run at a time (budget.concurrent: 1), or say edit: copy",
            ) from error
        except OSError as error:
            raise StageError(
                "input",
                f"{self.path} cannot be edited: {error.strerror or error}",
                "run as the owner of its folder, or say edit: copy",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _recover(self) -> list[str]:
        """Put back the original that a killed run left behind; what was done, in words."""
        try:
            edit = _Edit(**json.loads(self._marker.read_bytes()))
        except FileNotFoundError:
            self._forget()
            return []
        before = self._original.read_bytes()
        found = self.path.read_bytes() if self.path.exists() else None
        if found == before:
            self._forget()
            return []
        if found is not None and _digest(found) != edit.digest:
            raise StageError(
                "input",
                f"{self.path} was edited by run {edit.run_id}, which was killed, and was changed "
                f"by somebody else since; its original is {self._original}",
                f"put one of the two into place, then remove {self._marker}",
            )
        self._restore(before)
        return [f"{self.path}: the original is back, which run {edit.run_id} had left edited"]

    def _restore(self, before: bytes) -> None:
        self._write(before)
        self._forget()

    def _forget(self) -> None:
        self._marker.unlink(missing_ok=True)
        self._original.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        """Replace the content; mode and owner stay as those of the original."""
        like = self.path if self.path.exists() else self._original
        owner = like.stat()
        write_atomic(self.path, content, mode=stat.S_IMODE(owner.st_mode))
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            with suppress(PermissionError):
                os.chown(self.path, owner.st_uid, owner.st_gid)


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
