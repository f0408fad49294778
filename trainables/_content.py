"""Files and folders by what is in them: identities name data so, wherever it lies."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def content_digest(path: str | Path) -> str | None:
    """SHA-256 of a file's content, or of the names and contents in a folder; None: not there.

    Caches that tools leave in a folder do not count: hidden files, locks, compiled Python.
    """
    place = Path(path)
    files = [place]
    if place.is_dir():
        files = sorted(one for one in place.rglob("*") if one.is_file() and not is_cache(one))
    try:
        digests = [_file_digest(str(one), _known_by(one)) for one in files]
    except OSError:
        return None
    names = [str(one.relative_to(place)) for one in files]
    text = "\n".join(f"{digest} {name}" for digest, name in zip(digests, names, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def is_cache(file: Path) -> bool:
    """Whether a file, by its name, is one that tools leave beside data."""
    return file.name.startswith(".") or file.suffix in (".lock", ".pyc")


def _known_by(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4096)
def _file_digest(path: str, known_by: tuple[int, int]) -> str:
    """``known_by``: size and time of the last change."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
