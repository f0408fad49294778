"""Symbolic links into the folder of a run: always right, and they cost no space."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path


class Links:
    """Makes links in a user's folder, and never takes away what others put there.

    A link is ours if it leads into one of ``roots``, the folders that runs write to.

    Attributes:
        moved: What had to be moved aside, as (old path, new path); the caller empties it.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = [root.resolve() for root in roots]
        self.moved: list[tuple[Path, Path]] = []

    def point(self, link: Path, target: Path) -> None:
        """Let ``link`` lead to ``target`` by a relative path, in one step.

        Whatever else stands at ``link`` is moved aside. Raises ``OSError`` where links cannot be
        made.
        """
        link.parent.mkdir(parents=True, exist_ok=True)
        wanted = os.path.relpath(target.resolve(), link.parent.resolve())
        if link.is_symlink() and str(link.readlink()) == wanted:
            return
        if os.path.lexists(link) and not self.owns(link):
            self.moved.append((link, set_aside(link)))
        draft = link.with_name(f".{link.name}.{os.getpid()}.link")
        draft.unlink(missing_ok=True)
        draft.symlink_to(wanted)
        draft.replace(link)

    def sync(self, folder: Path, pattern: str, wanted: Mapping[Path, Path]) -> None:
        """Make the links of ``wanted`` (link to target), and remove all others of ours that match
        ``pattern`` in ``folder``.

        The last part of ``pattern`` needs a wildcard: without one, links that lead nowhere would
        not be seen.
        """
        for link in folder.glob(pattern):
            if link not in wanted and self.owns(link):
                link.unlink()
        for link, target in wanted.items():
            self.point(link, target)

    def owns(self, link: Path) -> bool:
        """Whether ``link`` is a symbolic link into one of the roots."""
        return link.is_symlink() and any(map(link.resolve().is_relative_to, self._roots))


def set_aside(path: Path) -> Path:
    """Rename to the first free of ``<name>.before``, ``<name>.before.2``...; the new path."""
    for number in count(1):
        suffix = ".before" if number == 1 else f".before.{number}"
        free = path.with_name(path.name + suffix)
        if not os.path.lexists(free):
            return path.rename(free)
    raise AssertionError("numbers do not end")
