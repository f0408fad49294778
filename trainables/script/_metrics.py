"""Numbers from what an evaluation printed and wrote, and their statistics."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from trainables._trial import Json
from trainables.script._json_path import value_at
from trainables.script._options import SE, MetricOptions

Stamp: TypeAlias = tuple[int, int, int] | None
_READ_BYTES = 64 * 1024 * 1024
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Unreadable(Exception):
    """A metric is not where it should be."""


def printed(file: Path, begin: int) -> str:
    """What was written to a log from ``begin`` on, at most the last 64 MiB, without colours."""
    with file.open("rb") as stream:
        stream.seek(max(begin, file.stat().st_size - _READ_BYTES))
        text = stream.read(_READ_BYTES).decode(errors="replace")
    return _COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def stamp(file: Path) -> Stamp:
    """What changes when a file is written; None where there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def read_metrics(
    wanted: Mapping[str, MetricOptions],
    text: str,
    files: Mapping[str, tuple[Path, Stamp]],
) -> tuple[dict[str, float], list[str]]:
    """The metrics that are there, and in words why required ones are not.

    Args:
        text: What the run printed.
        files: For each metric that is read from a file: which, and its stamp before the run; one
            that has not changed is an earlier run's.
    """
    found: dict[str, float] = {}
    missing = []
    for name, metric in wanted.items():
        try:
            found[name] = _read(metric, text, files.get(name))
        except Unreadable as error:
            if not metric.optional:
                missing.append(f"no {name}: {error}")
    return found, missing


def summary(names: Iterable[str], runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the runs that have it, and from two runs on its standard error."""
    rows = list(runs)
    found: dict[str, float] = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        if values:
            found[name] = statistics.fmean(values)
        if len(values) > 1:
            found[f"{name}{SE}"] = statistics.stdev(values) / math.sqrt(len(values))
    return found


def _read(metric: MetricOptions, text: str, source: tuple[Path, Stamp] | None) -> float:
    if metric.pattern is not None:
        match = re.search(metric.pattern, text, re.MULTILINE)
        if match is None:
            raise Unreadable(f"its output has nothing like {metric.pattern!r}")
        return _number(match[1])
    assert metric.json_path is not None
    where = "its output" if source is None else str(source[0])
    document = _document(text) if source is None else _loaded(*source)
    try:
        return _number(value_at(document, metric.json_path))
    except LookupError as error:
        raise Unreadable(f"{where}: {error}") from None


def _number(value: Json) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise Unreadable(f"{value!r} is no finite number")
    return number


def _document(text: str) -> Json:
    """The JSON document that a text is, or that its last line is which is one."""
    for candidate in (text, *reversed(text.splitlines())):
        if candidate.lstrip()[:1] in ("{", "["):
            try:
                return json.loads(candidate)
            except ValueError:
                continue
    raise Unreadable("its output has no line that is a JSON object or list")


def _loaded(file: Path, before: Stamp) -> Json:
    if not file.is_file():
        raise Unreadable(f"there is no file {file}")
    if stamp(file) == before:
        raise Unreadable(f"the run has not written {file}; what is there is older")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{file}: {error}") from None
