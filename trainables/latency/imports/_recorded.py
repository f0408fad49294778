"""Our own files of records, line by line: one bad line costs no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.latency._records import IterationRecord
from trainables.latency.imports._notes import MalformedError, Notes
from trainables.latency.imports._tables import as_count, as_number
from trainables.simulation import Chunk


def read_recorded(path: Path, notes: Notes) -> list[IterationRecord]:
    """Iterations of a file; a torn last line is left out without a word.

    A file whose first line is JSON of another sort is none of ours, and is passed over.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        notes.fault(path, None, f"cannot be read: {error.strerror or error}")
        return []
    if not _ours(lines[0]):
        return []
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        if not line.strip():
            continue
        try:
            records.append(_record(line))
        except MalformedError as error:
            notes.malformed(path, number, f"is no iteration: {error}")
    return records


def settings_beside(path: Path, notes: Notes) -> dict[str, Any]:
    """The engine's settings, from the JSON file of the same name; empty where there is none."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        document = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notes.fault(beside, None, f"cannot be read as JSON: {error}")
        return {}
    return document if isinstance(document, dict) else {}


def _ours(line: str) -> bool:
    try:
        document = json.loads(line)
    except ValueError:
        return '"seconds"' in line
    return isinstance(document, dict) and {"prefills", "decodes"} <= set(document)


def _record(line: str) -> IterationRecord:
    try:
        document = json.loads(line)
        chunks = tuple(
            Chunk(as_count(tokens, "tokens"), as_count(context, "context"))
            for tokens, context in document["prefills"]
        )
        decodes = tuple(as_count(length, "a context") for length in document["decodes"])
        seconds = as_number(document["seconds"], "seconds")
        at = as_number(document.get("at", 0.0), "at")
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedError(error) from None
    except KeyError as error:
        raise MalformedError(f"there is no {error}") from None
    if seconds <= 0:
        raise MalformedError(f"seconds are not positive: {seconds}")
    if (not chunks and not decodes) or any(chunk.tokens < 1 for chunk in chunks):
        raise MalformedError("there is no token in it")
    return IterationRecord(chunks, decodes, seconds, at)
