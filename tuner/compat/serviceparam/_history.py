"""``data_storage_*.csv`` of the original tool or of ours, read back."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchers import Json, Space
from tuner.views.serviceparam import EXTRA_COLUMNS, METRIC_COLUMNS, STATE_COLUMNS, plain

PATTERN = "data_storage*.csv"
_MOST_BYTES = 2**26
_TTFT, _TPOT = "ttft_mean_s", "tpot_mean_s"


class NotADataStorageError(ValueError):
    """A file is no ``data_storage_*.csv``; the message says why."""


@dataclass(frozen=True)
class DataStorage:
    """What a file holds.

    Attributes:
        points: Parameters, and the metrics by our names; None for a trial that failed.
        notes: Rows left out, one line for each reason.
    """

    points: tuple[tuple[Mapping[str, Json], Mapping[str, float] | None], ...]
    notes: tuple[str, ...] = ()


def data_storage_files(folder: Path) -> list[Path]:
    """The files of a folder, the oldest first."""
    found = [file for file in folder.glob(PATTERN) if file.is_file()]
    return sorted(found, key=lambda file: (file.stat().st_ctime_ns, file.name))


def wanted_rows(views: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Keywords for :func:`read_data_storage`, so that only rows of runs as large and as loaded as
    those of an experiment count. ``views`` are the blocks of the experiment."""
    block = next((view for view in views if view.get("type") == "serviceparam"), {})
    fitness = block.get("fitness", {})
    return {
        "num_prompts": block.get("sample_size", block.get("num_prompts")),
        "constants": block.get("constants", {}),
        "loads": tuple(block.get("load", {})),
        "ttft_metric": fitness.get("ttft_metric", _TTFT),
        "tpot_metric": fitness.get("tpot_metric", _TPOT),
    }


def read_data_storage(
    file: Path,
    space: Space,
    *,
    num_prompts: int | None = None,
    constants: Mapping[str, Json] | None = None,
    loads: Sequence[str] = (),
    ttft_metric: str = _TTFT,
    tpot_metric: str = _TPOT,
) -> DataStorage:
    """The rows of a file that can be learned from.

    Args:
        space: Parameters that a row has to have, with values in it.
        num_prompts: Requests of the runs that count; None: any number.
        constants: Columns with the one value that counts; a row without it counts.
        loads: Columns that are no parameters and may have any value.
        ttft_metric, tpot_metric: Names under which the latencies count.

    Raises:
        NotADataStorageError: It is none, or cannot be read.
    """
    header, rows = _table(file)
    fixed = constants or {}
    known = {*METRIC_COLUMNS, *STATE_COLUMNS, *EXTRA_COLUMNS, *space.names, *fixed, *loads}
    skipped: Counter[str] = Counter()
    points = []
    if foreign := [name for name in header if name not in known]:
        skipped[f"{', '.join(foreign)}: no parameter of this search"] = len(rows)
        rows = []
    for cells in rows:
        row = dict(zip(header, cells, strict=False))
        reason = _unwanted(row, num_prompts, fixed)
        parameters = reason or _parameters(row, space)
        if isinstance(parameters, str):
            skipped[parameters] += 1
            continue
        metrics = _metrics(row, ttft_metric, tpot_metric)
        if metrics is None and not row.get("error", "").strip():
            skipped["nothing was measured"] += 1
        else:
            points.append((parameters, metrics))
    notes = [f"{file}: {count} rows left out: {why}" for why, count in skipped.items()]
    return DataStorage(tuple(points), tuple(notes))


def _table(file: Path) -> tuple[list[str], list[list[str]]]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise NotADataStorageError(f"{file}: is larger than {_MOST_BYTES} bytes")
        text = file.read_text(encoding="utf-8-sig")
        table = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except OSError as error:
        raise NotADataStorageError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotADataStorageError(f"{file}: is no CSV: {error}") from error
    if not table or tuple(table[0][: len(METRIC_COLUMNS)]) != METRIC_COLUMNS:
        raise NotADataStorageError(f"{file}: does not begin with {','.join(METRIC_COLUMNS)}")
    return table[0], table[1:]


def _unwanted(
    row: Mapping[str, str], num_prompts: int | None, constants: Mapping[str, Json]
) -> str:
    """Why a row answers another question; empty when it does not."""
    if row.get("real_evaluation", "True").strip().lower() not in ("true", "1", "1.0"):
        return "not really measured"
    count = _number(row.get("num_prompts", ""))
    if num_prompts is not None and count != num_prompts:
        said = "an unknown number of" if count is None else f"{count:g}"
        return f"measured with {said} requests, not {num_prompts}"
    for name, value in constants.items():
        if row.get(name, "").strip() and not _same(row[name], value):
            return f"measured with another {name} than {value}"
    return ""


def _metrics(row: Mapping[str, str], ttft: str, tpot: str) -> dict[str, float] | None:
    """None where nothing was generated."""
    names = ("output_tokens_per_s", ttft, tpot, "success_rate", "requests_per_s")
    cells = [_number(row.get(column, "")) for column in METRIC_COLUMNS]
    found = {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
    generated = found.get("output_tokens_per_s", 0.0) > 0 and found.get("success_rate", 0.0) > 0
    return found if generated else None


def _parameters(row: Mapping[str, str], space: Space) -> dict[str, Json] | str:
    legal: dict[str, Json] = {}
    for name, parameter in space.root.items():
        if name not in row:
            if parameter.searched:
                return f"{name} is missing"
            legal[name] = parameter.decode(0.5, legal)
            continue
        for value in _readings(row[name]):
            try:
                legal[name] = parameter.canonical(value, legal)
                break
            except ValueError:
                continue
        else:
            text = _spelled(row[name], parameter, legal)
            if text is None:
                return f"{name} lies outside the space"
            legal[name] = text
    return legal


def _readings(text: str) -> Sequence[Json]:
    """What a cell may mean, the narrowest first."""
    found: list[Json] = []
    number = _number(text)
    if number is not None:
        found += [int(number)] if number.is_integer() else []
        found.append(number)
    if text.strip().lower() in ("true", "false", "1", "0"):
        found.append(text.strip().lower() in ("true", "1"))
    return [*found, text, None]


def _spelled(text: str, parameter: object, legal: Mapping[str, Json]) -> Json:
    """The text among an enum's values that is written so in a table; None when there is none."""
    for value in getattr(parameter, "values", ()):
        if isinstance(value, str) and plain(value) == text:
            return value
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _same(text: str, value: Json) -> bool:
    number = _number(text)
    if isinstance(value, int | float) and number is not None:
        return math.isclose(number, value, rel_tol=1e-6)
    return text.strip() == str(value)
