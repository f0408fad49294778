"""The files of ``auto_tune.py``: lines that are never torn, and logs by number."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster import sync_folder, write_atomic
from searchers import Json
from tuner.views.autotune._record import fingerprint

_LOG = re.compile(r"trial_(\d+)\.log")


def write_document(file: Path, document: Mapping[str, Json]) -> None:
    """JSON as the original writes it: sorted, indented by two, no newline at the end."""
    write_atomic(file, json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True))


class Results:
    """``tune_results.jsonl``: appended to, and never changed, whoever wrote what is in it.

    A line that is there already is not written again, so that telling everything once more after
    a restart adds nothing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: set[str] | None = None
        self._size = -1

    def knows(self, line: Mapping[str, Json]) -> bool:
        """Whether the file has this trial already."""
        size = self._file.stat().st_size if self._file.exists() else 0
        if self._known is None or size != self._size:
            self._known, self._size = self._read(), size
        return fingerprint(line) in self._known

    def add(self, line: Mapping[str, Json]) -> None:
        """Append a line, in one write, and make it durable. Nothing for one that is known."""
        if self.knows(line):
            return
        assert self._known is not None
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        new = not self._file.exists()
        descriptor = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, _gap(descriptor) + text.encode())
            os.fsync(descriptor)
            self._size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self._file.parent)
        self._known.add(fingerprint(line))

    def _read(self) -> set[str]:
        found = set()
        with suppress(FileNotFoundError):
            for text in self._file.read_bytes().splitlines():
                with suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict):
                        found.add(fingerprint(line))
        return found


def _gap(descriptor: int) -> bytes:
    """A newline where somebody else's last line was torn, so that ours does not grow onto it."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


class ServerLogs:
    """``tune_server_logs/trial_00001.log``: one for each trial, a link to the live log until it
    ends, then a copy that outlives the run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, live: Path) -> None:
        """Let the next number show a log that is being written."""
        if self._link_to(live) is None:
            self._next().symlink_to(live)

    def keep(self, live: Path) -> Path | None:
        """Copy a log that is complete; None where there is none."""
        link = self._link_to(live)
        if not live.is_file():
            if link is not None:
                link.unlink()
            return None
        kept = link or self._next()
        copy = kept.with_name(f".{kept.name}.tmp")
        shutil.copyfile(live, copy)
        copy.replace(kept)
        return kept

    def _link_to(self, live: Path) -> Path | None:
        for path in self._numbered().values():
            if path.is_symlink() and path.readlink() == live:
                return path
        return None

    def _next(self) -> Path:
        number = max(self._numbered(), default=0) + 1
        return self._folder / f"trial_{number:05d}.log"

    def _numbered(self) -> dict[int, Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for path in self._folder.iterdir():
            if match := _LOG.fullmatch(path.name):
                found[int(match[1])] = path
        return found
