"""A storage that a test can take away and bring back."""

from __future__ import annotations

from pathlib import Path


def linked(folder: Path) -> Path:
    """A folder that is where its link points to."""
    (folder / "server").mkdir()
    link = folder / "storage"
    link.symlink_to("server")
    return link


def vanish(storage: Path) -> None:
    storage.with_name("server").rename(storage.with_name("server.gone"))


def come_back(storage: Path) -> None:
    storage.with_name("server.gone").rename(storage.with_name("server"))
