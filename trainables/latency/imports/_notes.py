"""What could not be read, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


class MalformedError(Exception):
    """Something is not what it should be; the message does not yet say where."""


class Notes:
    """Attributes:
    faults: Sentences that begin with file and line.
    dropped: Reason to the number of rows that were left out for it.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.dropped: Counter[str] = Counter()

    def fault(self, path: Path, place: int | str | None, what: object) -> None:
        """Something is malformed; ``place`` is a line number, or says what is meant."""
        where = f"{path}:{place}" if isinstance(place, int) else f"{path}, {place}"
        self.faults.append(f"{path if place is None else where}: {what}")

    def malformed(self, path: Path, place: int | str, what: object) -> None:
        """A row is malformed, and left out."""
        self.fault(path, place, what)
        self.drop("malformed, see the messages")

    def drop(self, reason: str, count: int = 1) -> None:
        """So many good rows cannot be used."""
        if count:
            self.dropped[reason] += count
