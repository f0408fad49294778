"""Reading recorded measurements: CSV, TSV, JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from tuner.replay._faults import UnknownColumn, fault, find_column

Cell: TypeAlias = str | bool | int | float | None

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_NOT_A_NUMBER = re.compile(r"[-+]?(nan|inf|infinity)|n/?a|null|none|-+|\?", re.IGNORECASE)
_CONDITION = re.compile(r"(.+?)\s*(!=|<=|>=|==|=|<|>)\s*(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Row:
    """One recorded line.

    Attributes:
        cells: Column -> value; None where nothing was written.
        line: Where it stands in the file, from 1.
    """

    cells: Mapping[str, Cell]
    line: int


@dataclass(frozen=True)
class Table:
    """Recorded measurements, a line for each.

    A column whose every written cell is a number has numbers, whole ones where all are whole; one
    with only ``true`` and ``false`` has booleans; any other keeps its text.

    Attributes:
        name: What the table is called in results: the file's name without its ending, and the
            values of the columns it was split by.
        source: The file, for messages.
        columns: Names in the order of the file.
        rows: The lines, at least one.
    """

    name: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> list[Cell]:
        return [row.cells[name] for row in self.rows]

    def where(self, conditions: Iterable[str]) -> Table:
        """The rows that meet every condition such as ``model=llama``, ``tp<=4``, ``gpu!=A100``.

        Numbers are compared as numbers, anything else as text whatever its case. Raises
        ``ExperimentError`` for a condition that cannot be understood or leaves no row.
        """
        table = self
        for condition in conditions:
            match = _CONDITION.fullmatch(condition.strip())
            if match is None:
                raise fault("--where", f"{condition!r} is no condition; write COLUMN=VALUE")
            column = _found("--where", match[1], table.columns)
            kept = tuple(row for row in table.rows if _meets(row.cells[column], match[2], match[3]))
            if not kept:
                values = _some(table.column(column))
                said = f"{condition!r} leaves no row of {self.source}; {column} has {values}"
                raise fault("--where", said)
            table = replace(table, rows=kept)
        return table

    def split(self, names: Sequence[str]) -> list[Table]:
        """One table for each combination of values of the columns, in the order of the file."""
        columns = [_found("--by", name, self.columns) for name in names]
        parts: dict[tuple[Cell, ...], list[Row]] = {}
        for row in self.rows:
            parts.setdefault(tuple(row.cells[column] for column in columns), []).append(row)
        tables = []
        for values, rows in parts.items():
            said = ", ".join(f"{c}={v}" for c, v in zip(columns, values, strict=True))
            tables.append(replace(self, name=f"{self.name}: {said}", rows=tuple(rows)))
        return tables if columns else [self]


def read_table(file: Path) -> Table:
    """Read ``.csv`` (comma, semicolon or tab), ``.tsv``, ``.jsonl`` or ``.json`` (a list).

    Objects inside JSON objects become columns with dotted names. Raises ``ExperimentError`` with
    everything that is wrong with the file.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise fault(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise fault(str(file), "is not UTF-8 text; save the table as UTF-8 CSV") from error
    if file.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        columns, rows = _read_json(text, str(file))
    else:
        columns, rows = _read_csv(text, str(file), tabs=file.suffix.lower() == ".tsv")
    if not rows:
        raise fault(str(file), "has no rows; the first line names the columns, data follows")
    return Table(file.stem, str(file), tuple(columns), tuple(_typed(columns, rows)))


def number(cell: Cell) -> float | None:
    """The number in a cell; None where it says that there is none: empty, ``nan``, ``n/a``, ``-``.

    Raises ``ValueError`` for anything else.
    """
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return None
    if isinstance(cell, str):
        text = cell.strip()
        if not text or _NOT_A_NUMBER.fullmatch(text):
            return None
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{cell!r} is not a number")
        value = float(text)
        return value if math.isfinite(value) else None
    if isinstance(cell, bool):
        raise ValueError(f"{str(cell).lower()} is not a number")
    return float(cell)


def _read_csv(text: str, source: str, *, tabs: bool) -> tuple[list[str], list[Row]]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = "\t" if tabs else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise fault(source, f"line {reader.line_num} is not CSV: {error}") from error
    if not lines:
        raise fault(source, "is empty; the first line names the columns, data follows")
    columns = [name.strip() or f"(column {n})" for n, name in enumerate(lines[0][1], 1)]
    _check_columns(columns, source)
    long = [
        f"line {line} has {len(cells)} cells, but there are {len(columns)} columns"
        for line, cells in lines[1:]
        if any(cell.strip() for cell in cells[len(columns) :])
    ]
    if long:
        raise fault(source, *long[:5])
    rows = []
    for line, cells in lines[1:]:
        written = [cell.strip() for cell in cells] + [""] * len(columns)
        rows.append(Row({c: w or None for c, w in zip(columns, written, strict=False)}, line))
    return columns, rows


def _read_json(text: str, source: str) -> tuple[list[str], list[Row]]:
    try:
        if text.lstrip().startswith("["):
            objects = [(n, item) for n, item in enumerate(json.loads(text), 1)]
        else:
            numbered = enumerate(text.splitlines(), 1)
            objects = [(n, json.loads(line)) for n, line in numbered if line.strip()]
    except json.JSONDecodeError as error:
        raise fault(source, f"is neither JSON lines nor a JSON list: {error}") from error
    wrong = [f"entry {line} is not an object" for line, item in objects if type(item) is not dict]
    if wrong:
        raise fault(source, *wrong[:5])
    flat = [(line, dict(_flattened(item))) for line, item in objects]
    columns = list(dict.fromkeys(name for _, cells in flat for name in cells))
    _check_columns(columns, source)
    return columns, [Row({c: cells.get(c) for c in columns}, line) for line, cells in flat]


def _flattened(item: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Cell]]:
    for key, value in item.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list) else value


def _check_columns(columns: Sequence[str], source: str) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        said = (
            f"columns {', '.join(twice)} stand" if len(twice) > 1 else f"column {twice[0]} stands"
        )
        raise fault(source, f"{said} there more than once; give each its own name")


def _typed(columns: Sequence[str], rows: Sequence[Row]) -> Iterable[Row]:
    """The rows with each column's text turned into what all of it is."""
    convert = {column: _conversion([row.cells[column] for row in rows]) for column in columns}
    for row in rows:
        yield Row({c: convert[c](value) for c, value in row.cells.items()}, row.line)


def _conversion(cells: Sequence[Cell]) -> Callable[[Cell], Cell]:
    words = {cell.lower() for cell in cells if isinstance(cell, str)}
    written = [cell for cell in cells if cell is not None]
    if words and words <= {"true", "false"} and all(isinstance(cell, str) for cell in written):
        return lambda cell: cell.lower() == "true" if isinstance(cell, str) else cell
    try:
        numbers = [number(cell) for cell in written]
    except ValueError:
        return lambda cell: cell
    real = [value for value in numbers if value is not None]
    if not real:
        return lambda cell: cell
    whole = all(value.is_integer() and abs(value) < 2**53 for value in real)

    def convert(cell: Cell) -> Cell:
        value = number(cell)
        return int(value) if whole and value is not None else value

    return convert


def _found(option: str, name: str, columns: Sequence[str]) -> str:
    try:
        return find_column(name.strip(), columns)
    except UnknownColumn as error:
        raise fault(option, str(error)) from error


def _meets(cell: Cell, sign: str, text: str) -> bool:
    text = text.strip().strip("'\"")
    compare = _COMPARE[sign]
    try:
        left, right = number(cell), number(text)
    except ValueError:
        left = right = None
    if left is not None and right is not None:
        return compare(left, right)
    if sign in ("=", "==", "!="):
        said = "" if cell is None else str(cell)
        return compare(said.casefold(), text.casefold())
    return False


def _some(cells: Iterable[Cell]) -> str:
    values = [str(value) for value in dict.fromkeys(cells)]
    return ", ".join(values[:10]) + (", ..." if len(values) > 10 else "")
