"""``bak/<n>/<ClassName>/``: copies of what each trial left, as ``--backup`` asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from cluster import write_atomic

LIMIT_BYTES = 2**30
_MARKER = ".trial"
_OURS = ("artifacts", "measurement.json")


class Backup:
    """Numbered folders, one for each trial, until they hold 1 GiB.

    A trial is copied once; a marker in its folder says whose it is, so a resumed run goes on. A
    copy that was cut short has no marker and is made again.

    Args:
        folder: ``<output>/bak``.
        engine, benchmark: Names of the folders for what either left.
    """

    def __init__(self, folder: Path, engine: str, benchmark: str) -> None:
        self._folder = folder
        self._names = (engine, benchmark)
        self._known = {
            marker.read_text(encoding="utf-8").strip(): marker.parent
            for marker in folder.glob(f"*/{_MARKER}")
        }
        self._full = False

    def copy(self, trial: Path) -> tuple[Path | None, str]:
        """Copy a trial's folder; where to, and what should be said. None where it is full."""
        name = trial.name
        if name in self._known:
            return self._known[name], ""
        if not trial.is_dir() or self._full:
            return None, ""
        if _size(self._folder) > LIMIT_BYTES:
            self._full = True
            return None, f"{self._folder} holds more than 1 GiB; no more is backed up"
        target = self._next()
        for file in _files(trial):
            inner = file.relative_to(trial)
            kept = target / self._names[not _of_engine(inner)] / inner
            kept.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            shutil.copy2(file, kept, follow_symlinks=False)
        write_atomic(target / _MARKER, f"{name}\n", mode=0o640)
        self._known[name] = target
        return target, ""

    def _next(self) -> Path:
        """A new folder: one more than the highest number there is."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        numbers = [int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()]
        target = self._folder / str(max(numbers, default=0) + 1)
        target.mkdir(mode=0o750)
        return target


def _files(trial: Path) -> Iterator[Path]:
    for path in sorted(trial.rglob("*")):
        top = path.relative_to(trial).parts[0]
        if top not in _OURS and path.is_file() and not path.is_symlink():
            yield path


def _of_engine(file: Path) -> bool:
    """Whether the engine left a file: its log, its configuration, all in folders named so."""
    return "engine" in file.parts[0] or (file.suffix == ".json" and len(file.parts) == 1)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
