"""The space of a table: named columns, an experiment's ``space`` block, or a sensible guess."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from searchers import Space
from tuner.experiment import from_pydantic
from tuner.replay._faults import UnknownColumn, fault, find_column
from tuner.replay._table import Cell, Table
from tuner.replay._yaml import read_yaml

OPTION = "--space"

MakeSpace: TypeAlias = Callable[[Table], Space]
"""The space of one task, made from its rows."""

_TYPES = {
    "enum": "values",
    "ordered": "values",
    "values": "values",
    "categorical": "words",
    "category": "words",
    "cat": "words",
    "int": "int",
    "float": "float",
    "log": "log",
    "bool": "bool",
}
_METRIC = re.compile(
    r"ttft|tpot|itl|e2el?|laten|through|tokens?_?per|tok/s|tokens/s|req/s|goodput|qps|rps|p\d\d|"
    r"mean|median|std|avg|average|_ms$|_se$|success|accuracy|perplexity|util|power|energy|memory_used|"
    r"elapsed|duration|seconds|completed|speed|score|loss|error|status",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(
    r"(.*[\W_])?(id|uuid|index|idx|date|time|timestamp|run|trial|seed|repeat|comment|note|file|url|"
    r"hash|unnamed.*)|\(column \d+\)",
    re.IGNORECASE,
)


class Part(NamedTuple):
    """A column of the space and how its values are taken.

    Attributes:
        column: Name of the column.
        kind: ``auto`` or a value of the table of types.
    """

    column: str
    kind: str = "auto"


def read_space(text: str, tables: Sequence[Table], say: Callable[[str], None]) -> MakeSpace:
    """How to make the space of each task from what a person wrote.

    ``text`` is a list of columns, each with a type or without, such as ``tp,pp,concurrency:log``;
    or inline YAML, or a file, with the ``space`` block of an experiment, its names being columns.
    Raises ``ExperimentError`` with everything that is wrong.
    """
    document = read_yaml(text, OPTION)
    columns = shared_columns(tables)
    if document is None:
        parts = _parse(text, columns, say)
        return lambda table: make_space(table, parts)
    space = _from_block(document)
    missing = [
        f"{name} is no column of the table; there are: {', '.join(columns)}"
        for name, parameter in space.root.items()
        if name not in columns and parameter.searched
    ]
    if missing:
        raise fault(OPTION, *missing)
    return lambda table: space


def guess_space(
    tables: Sequence[Table], excluded: Iterable[str], say: Callable[[str], None]
) -> MakeSpace:
    """A space of the columns that look chosen and not measured; ``say`` is told which."""
    chosen, left = [], []
    excluded = set(excluded)
    for column in shared_columns(tables):
        if column in excluded:
            continue
        cells = [cell for table in tables for cell in table.column(column)]
        why = _no_parameter(column, cells)
        if why is None:
            chosen.append(Part(column))
        else:
            left.append(f"{column} ({why})")
    if not chosen:
        raise fault(OPTION, f"no column looks like a parameter; name them. Left out: {left}")
    say(f"--space is not given; taken for parameters: {', '.join(part.column for part in chosen)}")
    if left:
        say(f"left out: {', '.join(left)}")
    return lambda table: make_space(table, chosen)


def shared_columns(tables: Sequence[Table]) -> tuple[str, ...]:
    """The columns that all tables have."""
    return tuple(c for c in tables[0].columns if all(c in table.columns for table in tables))


def make_space(table: Table, parts: Iterable[Part]) -> Space:
    """The space of the values that stand in the columns.

    Numbers become an ordered list of values, or a range where whole ones are evenly spaced; words
    become categories. Raises ``ExperimentError`` when a column is not what its type says.
    """
    block, problems = {}, []
    for column, kind in parts:
        try:
            block[column] = _parameter(_distinct(table.column(column)), kind)
        except ValueError as error:
            problems.append(f"{column}:{kind} does not suit {table.source}: {error}")
    if problems:
        raise fault(OPTION, *problems)
    return Space.model_validate(block)


def looks_chosen(column: str, cells: Sequence[Cell]) -> bool:
    """Whether a column looks like something a person chose, and not measured."""
    return _no_parameter(column, cells) is None


def point_of(space: Space, cells: Mapping[str, Cell]) -> dict[str, Any] | None:
    """A row's point in the spelling of the space; None when it lies outside.

    What has a single value needs no column.
    """
    point: dict[str, Any] = {}
    for name, parameter in space.root.items():
        if name not in cells:
            if parameter.searched:
                return None
            point[name] = parameter.decode(0.5, point)
            continue
        for spelling in _spellings(cells[name]):
            try:
                point[name] = parameter.canonical(spelling, point)
            except ValueError:
                continue
            break
        else:
            return None
    return point


def _parse(text: str, columns: Sequence[str], say: Callable[[str], None]) -> list[Part]:
    parts: list[Part] = []
    problems = []
    for item in filter(None, map(str.strip, _items(text, columns))):
        name, colon, kind = item.rpartition(":")
        if not colon or (item in columns):
            name, kind = item, "auto"
        name = name.strip().strip("`\"'")
        kind = kind.strip().lower()
        if kind != "auto" and kind not in _TYPES:
            problems.append(f"{item!r}: unknown type {kind!r}; there are: {', '.join(_TYPES)}")
            continue
        try:
            column = find_column(name, columns)
        except UnknownColumn as error:
            problems.append(str(error))
            continue
        if column != name:
            say(f"{name} in the space is taken for column {column!r}")
        if any(column == part.column for part in parts):
            problems.append(f"{column} stands twice")
        parts.append(Part(column, _TYPES.get(kind, "auto")))
    if not problems and not parts:
        problems.append(f"names no column; there are: {', '.join(columns)}")
    if problems:
        raise fault(OPTION, *problems)
    return parts


def _items(text: str, columns: Sequence[str]) -> list[str]:
    """The list's items; a comma inside a quoted name, or one that stands so in the table, is no
    end of an item."""
    names = [re.escape(name) for name in sorted(columns, key=len, reverse=True) if "," in name]
    quoted = [r"`[^`]*`", r'"[^"]*"', r"'[^']*'"]
    return re.findall(rf"(?:{'|'.join([*quoted, *names, '[^,]'])})+", text)


def _from_block(document: Any) -> Space:
    block = document
    if isinstance(document, dict):
        search = document.get("search")
        block = search if isinstance(search, dict) and "space" in search else document
        space = block.get("space")
        if isinstance(space, dict) and not isinstance(space.get("type"), str):
            block = space
    try:
        return Space.model_validate(block)
    except ValidationError as error:
        found = from_pydantic("", block, error.errors())
        hint = "each name needs a block such as {type: enum, values: [1, 2, 4]}"
        raise fault(OPTION, *(f"{path}: {said} ({hint})" for path, said in found)) from error


def _distinct(cells: Iterable[Cell]) -> list[Cell]:
    """Numbers in order, then words in the order of the file, then what is empty."""
    unique = list(dict.fromkeys(cells))
    numbers = [c for c in unique if isinstance(c, int | float) and not isinstance(c, bool)]
    words = [c for c in unique if isinstance(c, str | bool)]
    return [*sorted(numbers), *words, *(c for c in unique if c is None)]


def _parameter(values: Sequence[Cell], kind: str) -> dict[str, Any]:
    if kind in ("int", "float", "log"):
        return _numeric(values, kind)
    if kind == "words":
        return {"type": "enum", "values": [None if v is None else _word(v) for v in values]}
    if set(map(type, values)) == {bool}:
        both = len(values) == 2
        return {"type": "bool"} if both else {"type": "constant", "value": values[0]}
    if kind == "bool":
        raise ValueError(f"{_some(values)} are not true and false")
    step = _even_step(values)
    if kind == "auto" and step is not None and len(values) > 2:
        return {"type": "int", "low": values[0], "high": values[-1], "step": step}
    return {"type": "enum", "values": list(values)}


def _numeric(values: Sequence[Cell], kind: str) -> dict[str, Any]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        raise ValueError(f"{_some([v for v in values if v not in numbers])} is not a number")
    if kind == "log" and numbers[0] <= 0:
        raise ValueError(f"a logarithmic range must start above 0, not at {numbers[0]}")
    whole = [value for value in numbers if isinstance(value, int)]
    if kind == "int" and len(whole) < len(numbers):
        raise ValueError("has numbers that are not whole; use float")
    step = _even_step(values)
    if step is None or (kind == "log" and step != 1):
        return {"type": "enum", "values": list(values)}
    shape = {"log": True} if kind == "log" else {"step": step}
    return {"type": "int", "low": values[0], "high": values[-1], **shape}


def _even_step(values: Sequence[Cell]) -> int | None:
    """The distance of whole numbers that are evenly spaced."""
    whole = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    if len(whole) < max(len(values), 2):
        return None
    steps = {after - before for before, after in pairwise(whole)}
    return steps.pop() if len(steps) == 1 else None


def _no_parameter(column: str, cells: Sequence[Cell]) -> str | None:
    """Why a column does not look like something a person chose; None when it does."""
    distinct = len(set(cells))
    if distinct == 1:
        return "has one value"
    if _METRIC.search(column):
        return "sounds measured"
    if _IDENTIFIER.fullmatch(column):
        return "sounds like an identifier"
    fractions = any(isinstance(cell, float) and not cell.is_integer() for cell in cells)
    if fractions and distinct > max(8, len(cells) // 2):
        return "nearly every row has a value of its own"
    if distinct == len(cells) > 8:
        return "every row has a value of its own"
    return None


def _spellings(cell: Cell) -> list[Any]:
    """What a cell may mean, the likeliest first."""
    forms: list[Any] = [cell]
    if isinstance(cell, bool):
        return [*forms, int(cell), str(cell).lower()]
    if isinstance(cell, str):
        forms += [{"true": True, "false": False}.get(cell.lower(), cell)]
        try:
            value = float(cell)
        except ValueError:
            return forms
        forms += [int(value)] if value.is_integer() else []
        return [*forms, value] if math.isfinite(value) else forms
    if cell is not None:
        forms += [int(cell)] if float(cell).is_integer() else []
        forms += [float(cell), _word(cell)]
        forms += [bool(cell)] if cell in (0, 1) else []
    return forms


def _word(cell: Cell) -> str:
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _some(values: Sequence[Cell]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
