"""All profiles below a folder, whatever wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.latency._records import IterationRecord
from trainables.latency.imports._database import read_database
from trainables.latency.imports._feature_table import read_feature_table
from trainables.latency.imports._joined import COLUMNS, read_joined
from trainables.latency.imports._members import Framework, Requests, read_requests
from trainables.latency.imports._notes import Notes
from trainables.latency.imports._public import read_public
from trainables.latency.imports._recorded import read_recorded, settings_beside
from trainables.latency.imports._tables import header_of


@dataclass(frozen=True)
class Source:
    """One profile.

    Attributes:
        path: The file it is from.
        format: What that is.
        records: Its iterations.
        settings: Of the engine, where they are known.
        clocked: Whether it tells when iterations began, and not only how long they took.
    """

    path: Path
    format: str
    records: tuple[IterationRecord, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    clocked: bool = True


@dataclass(frozen=True)
class Imported:
    """Attributes:
    sources: Profiles with iterations.
    replies: Tokens of the answer of each request, where profiles tell them, in their order.
    dropped: Reason to the number of rows that were left out for it.
    faults: Sentences about what is malformed, each with file and line.
    """

    sources: tuple[Source, ...]
    replies: tuple[int, ...]
    dropped: Mapping[str, int]
    faults: tuple[str, ...]

    @property
    def iterations(self) -> int:
        return sum(len(source.records) for source in self.sources)


def read_recordings(folder: Path, framework: Framework) -> Imported:
    """Read all profiles in a folder and those below it.

    Of profiles of the same run, the one that says most is read: the database, the CSV files
    beside it, the table that was made from them.

    Raises:
        NotADirectoryError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    notes = Notes()
    sources: list[Source] = []
    replies: list[int] = []
    derived: list[Path] = []
    for here in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        if any(here.is_relative_to(done / "output_csv") for done in derived):
            continue
        found, answered = _profile(here, framework, notes)
        sources += found
        replies += answered
        if found:
            derived.append(here)
        sources += _recorded(here, notes)
    kept = tuple(source for source in sources if source.records)
    return Imported(kept, tuple(replies), dict(notes.dropped), tuple(notes.faults))


def _profile(
    here: Path, framework: Framework, notes: Notes
) -> tuple[list[Source], tuple[int, ...]]:
    """What msServiceProfiler left in a folder, and the answers' tokens."""
    database, table = here / "profiler.db", here / "batch.csv"
    requests = _requests(here, notes)
    readers: list[tuple[Path, str, Callable[[], list[IterationRecord]]]] = []
    if database.is_file():
        readers.append(
            (
                database,
                "profiler.db",
                lambda: read_database(database, requests, framework, notes),
            )
        )
    if table.is_file() and not header_of(table) >= COLUMNS:
        readers.append((table, "CSV", lambda: read_public(here, requests, framework, notes)))
    for path, name, read in readers:
        if records := read():
            return [Source(path, name, tuple(records))], requests.replies
    return _tables(here, framework, notes)


def _requests(here: Path, notes: Notes) -> Requests:
    path = here / "request.csv"
    used = (here / "profiler.db").is_file() or (here / "batch.csv").is_file()
    return read_requests(path, notes) if used and path.is_file() else Requests({}, ())


def _tables(here: Path, framework: Framework, notes: Notes) -> tuple[list[Source], tuple[int, ...]]:
    """Tables that stand alone: the profiler's first ones, and what it made for its own model."""
    sources: list[Source] = []
    replies: list[int] = []
    for path in _files(here, ".csv"):
        if path.name == "feature.csv":
            records = read_feature_table(path, framework, notes)
            sources.append(Source(path, "feature.csv", tuple(records), clocked=False))
        elif header_of(path) >= COLUMNS:
            records, answered = read_joined(path, notes)
            sources.append(Source(path, "CSV, a line for each request", tuple(records)))
            replies += answered
    return [source for source in sources if source.records], tuple(replies)


def _recorded(here: Path, notes: Notes) -> Iterator[Source]:
    for path in _files(here, ".jsonl"):
        if records := read_recorded(path, notes):
            settings = settings_beside(path, notes)
            yield Source(path, "recorded iterations", tuple(records), settings)


def _files(here: Path, suffix: str) -> list[Path]:
    return sorted(path for path in here.iterdir() if path.suffix == suffix and path.is_file())
