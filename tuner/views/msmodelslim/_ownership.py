"""Whose history a folder holds: two tools and many runs may share one ``save_path``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from cluster import write_json
from searchers import Json
from tuner.views.msmodelslim._links import set_aside

INDEX = "history.yaml"
ACCURACIES = "accuracy.yaml"
_MARKER = ".npu-tuner.json"


class Ownership:
    """The claim of one run on a history.

    A marker in the folder names the run, the practices it wrote, and what its index said last. A
    folder without that marker, or with another index, was written by somebody else and is moved
    aside as a whole, except for what it remembers of accuracies, which stays in use.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self._run = run

    def take_over(self) -> str | None:
        """Make the folder this run's; the folder that what was there has been moved to."""
        folder = self._folder
        draft = folder.with_name(f".{folder.name}.npu-tuner")
        if not folder.exists() and draft.is_dir():
            draft.rename(folder)
        if not folder.is_dir() or self._is_ours():
            return None
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        if (folder / ACCURACIES).is_file():
            shutil.copy2(folder / ACCURACIES, draft)
        write_json(draft / _MARKER, {"run": self._run, "files": [], "index": []})
        aside = set_aside(folder)
        draft.rename(folder)
        return aside.name

    def files(self) -> set[str]:
        """Names of the practices that this run wrote."""
        return set(self._marker().get("files", []))

    def claim(self, files: Iterable[str], indices: Iterable[str]) -> None:
        """Claim files and every text that the index may have, before they are written."""
        digests = sorted({_digest(text) for text in indices})
        marker = {"run": self._run, "files": sorted(files), "index": digests}
        if self._marker() != marker:
            write_json(self._folder / _MARKER, marker)

    def index(self) -> str:
        """What the index says; empty when there is none."""
        try:
            return (self._folder / INDEX).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _is_ours(self) -> bool:
        marker, index = self._marker(), self.index()
        if marker.get("run") == self._run:
            return not index or _digest(index) in marker.get("index", [])
        return all(file.name == ACCURACIES for file in self._folder.iterdir())

    def _marker(self) -> dict[str, Json]:
        try:
            marker = json.loads((self._folder / _MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return marker if isinstance(marker, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
