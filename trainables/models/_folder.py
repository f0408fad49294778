"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster import sync_folder


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the name ``target`` when the block ends without an error.

    It lies beside ``target`` until then. What is in it is on disk before the name is; a folder
    that had the name before is replaced. An error in the block leaves ``target`` as it was. A
    killed process leaves the folder behind: see :func:`remove_unfinished`. Files get the access
    rights the umask gives, whatever the libraries that wrote them chose.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    try:
        yield building
        _settle(building)
        if target.exists():
            replaced = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
            target.rename(replaced)
            building.rename(target)
            shutil.rmtree(replaced)
        else:
            building.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def remove_unfinished(target: Path) -> None:
    """Delete what killed processes left of their :func:`new_folder` for ``target``.

    Only for a caller who knows that nobody is filling such a folder now.
    """
    for left in target.parent.glob(f"{_prefix(target)}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.unfinished-"


def _settle(folder: Path) -> None:
    """Put the content of ``folder`` on disk, readable for those the umask lets read."""
    umask = os.umask(0)
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
