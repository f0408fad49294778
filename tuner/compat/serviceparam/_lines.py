"""The line of every value of a TOML file, as far as one table or key to a line goes."""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\-\"' ]+?)\s*=")


def lines_of(text: str) -> Mapping[str, int]:
    """Line, from 1, by path as ``vllm.target_field[2].min``. Values inside lines are not found."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = _plain(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
            table = _indexed(table, counts)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            name = _plain(key[1])
            lines.setdefault(f"{table}.{name}" if table else name, number)
    return lines


def nearest(lines: Mapping[str, int], path: str) -> int | None:
    """The line of a path, or of the nearest table around it."""
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))


def _indexed(table: str, counts: Mapping[str, int]) -> str:
    """The table's path with the number of the entry of each list that it lies in."""
    path = whole = ""
    for part in table.split("."):
        whole = f"{whole}.{part}" if whole else part
        path = f"{path}.{part}" if path else part
        if whole in counts:
            path += f"[{counts[whole]}]"
    return path
