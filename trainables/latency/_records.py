"""What iterations of a real engine took: the data latency models are trained on and judged by.

A file of records is JSON lines, one iteration each:
``{"prefills": [[tokens, context], ...], "decodes": [context, ...], "seconds": 0.012, "at": 3.4}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import write_atomic
from trainables.simulation import Batch, Chunk


@dataclass(frozen=True)
class IterationRecord:
    """One iteration.

    Attributes:
        prefills: Chunks of prompts.
        decodes: Context of each decoding sequence, in tokens.
        seconds: Duration of the iteration.
        at: When it began, in seconds on the recording's own clock; 0 where that is not known.
    """

    prefills: tuple[Chunk, ...]
    decodes: tuple[int, ...]
    seconds: float
    at: float = 0.0

    @property
    def batch(self) -> Batch:
        lengths = self.decodes
        if not lengths:
            return Batch(self.prefills)
        return Batch(self.prefills, len(lengths), sum(lengths), max(lengths), min(lengths))


def write_records(path: Path, records: Iterable[IterationRecord]) -> None:
    """Write a file of records, atomically."""
    lines = (
        json.dumps(
            {
                "prefills": [list(chunk) for chunk in one.prefills],
                "decodes": list(one.decodes),
                "seconds": one.seconds,
                "at": one.at,
            }
        )
        for one in records
    )
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def read_records(path: Path) -> Sequence[IterationRecord]:
    """Read a file of records; a torn last line is left out.

    Raises:
        OSError: It cannot be opened.
        ValueError: A line is none; the message says which.
    """
    found = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            document = json.loads(line)
            chunks = tuple(Chunk(int(tokens), int(had)) for tokens, had in document["prefills"])
            decodes = tuple(int(length) for length in document["decodes"])
            seconds, at = float(document["seconds"]), float(document.get("at", 0.0))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number} is no iteration record: {error}") from None
        found.append(IterationRecord(chunks, decodes, seconds, at))
    return found
