"""CSV files of the profilers: columns by name, whatever unit and generation their headers say."""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.latency.imports._notes import MalformedError, Notes

_LONGEST_CELL = 16 * 1024 * 1024
_WITH_UNIT = re.compile(r"^(.*?)\s*[\(（]\s*(\w+)\s*[\)）]$")
_UNITS = {
    "s": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "ms": 1e-3,
    "millisecond": 1e-3,
    "milliseconds": 1e-3,
    "us": 1e-6,
    "microsecond": 1e-6,
    "microseconds": 1e-6,
    "ns": 1e-9,
}
MICROSECONDS = _UNITS["us"]
_OLD_NAMES = {
    "batch_start_time": "start_time",
    "batch_end_time": "end_time",
    "request_id": "http_rid",
    "request_rid": "http_rid",
    "request_recv_token_size": "recv_token_size",
    "request_reply_token_size": "reply_token_size",
    "request_execution_time": "execution_time",
}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        line: Its number, from 1.
        cells: Column to text; columns have their newest names, without unit.
        units: Column to the seconds of its unit, for columns whose header names one.
    """

    line: int
    cells: Mapping[str, str]
    units: Mapping[str, float]

    def has(self, name: str) -> bool:
        """Whether there is something in that column."""
        return self.cells.get(name, "").lower() not in ("", "none", "nan", "null")

    def text(self, name: str) -> str:
        if not self.has(name):
            raise MalformedError(f"there is nothing in column {name}")
        return self.cells[name]

    def number(self, name: str) -> float:
        """Raises ``MalformedError`` unless there is a finite number."""
        return as_number(self.text(name), f"column {name}")

    def seconds(self, name: str) -> float:
        """A time in seconds; a header without a unit means microseconds."""
        return self.number(name) * self.units.get(name, MICROSECONDS)

    def literal(self, name: str) -> Any:
        return as_literal(self.text(name), f"column {name}")


def as_number(value: object, what: str) -> float:
    """Raises ``MalformedError`` unless it is a finite number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise MalformedError(f"{what} is no number: {str(value)[:60]!r}") from None
    if not math.isfinite(number):
        raise MalformedError(f"{what} is no finite number: {value}")
    return number


def as_count(value: object, what: str) -> int:
    """Raises ``MalformedError`` unless it is a whole number, 0 at least."""
    number = as_number(value, what)
    if number < 0 or number != int(number):
        raise MalformedError(f"{what} is no count: {value}")
    return int(number)


def as_literal(text: str, what: str) -> Any:
    """A literal of Python or JSON; nothing is ever executed.

    Raises ``MalformedError`` when it is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise MalformedError(f"{what} is no list or tuple: {text[:60]!r}") from None


def header_of(path: Path) -> set[str]:
    """Names of a file's columns; empty when it is no table."""
    lines = _lines(path, Notes(), most=1)
    return {_named(title)[0] for title in lines[0][1]} if lines else set()


def read_table(path: Path, notes: Notes, needs: Collection[str] = ()) -> list[Row]:
    """Rows of a table; a row that is shorter than the header is noted and left out.

    Nothing, with a note, when it cannot be read or one of the columns it ``needs`` is missing.
    """
    lines = _lines(path, notes)
    if not lines:
        return []
    titles = [_named(title) for title in lines[0][1]]
    if missing := sorted(set(needs) - {name for name, _ in titles}):
        notes.fault(path, lines[0][0], f"there is no column {', '.join(missing)}")
        return []
    units = {name: unit for name, unit in titles if unit is not None}
    rows = []
    for number, cells in lines[1:]:
        if len(cells) < len(titles):
            said = f"has {len(cells)} cells, the header has {len(titles)}"
            notes.malformed(path, number, said)
            continue
        named = zip(titles, cells, strict=False)
        rows.append(Row(number, {name: cell.strip() for (name, _), cell in named}, units))
    return rows


def read_plain(path: Path, notes: Notes) -> list[tuple[int, Sequence[str]]]:
    """Lines of a CSV file as (number, cells), the header first; empty lines are left out."""
    return _lines(path, notes)


def _lines(path: Path, notes: Notes, most: int | None = None) -> list[tuple[int, Sequence[str]]]:
    csv.field_size_limit(_LONGEST_CELL)
    found: list[tuple[int, Sequence[str]]] = []
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    found.append((reader.line_num, cells))
                if len(found) == most:
                    break
    except OSError as error:
        notes.fault(path, None, f"cannot be read: {error.strerror or error}")
    except csv.Error as error:
        notes.malformed(path, reader.line_num, f"the rest is no CSV: {error}")
    return found


def _named(title: str) -> tuple[str, float | None]:
    """A column's newest name, and its unit in seconds."""
    text, unit = title.strip().lower(), None
    if (match := _WITH_UNIT.match(text)) and match[2] in _UNITS:
        text, unit = match[1], _UNITS[match[2]]
    text = text.replace(" ", "_")
    return _OLD_NAMES.get(text, text), unit
