"""Reading per-operator tables as LLMServingSim 2.0's profiler writes them.

A folder holds ``meta.yaml`` and, for each tensor-parallel degree, ``tp<N>/`` with ``dense.csv``,
``per_sequence.csv``, ``attention.csv``, for mixtures of experts ``moe.csv``, and perhaps
``skew_fit.csv``. Times are microseconds of one run of one operator on one rank.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from trainables.latency._model import LatencyError
from trainables.latency._operators_skew import AXES, SkewRow, label_bound

Grid1 = Mapping[str, Mapping[float, float]]
T = TypeVar("T")


@dataclass(frozen=True)
class Tables:
    """Of one tensor-parallel degree. Times are microseconds.

    Attributes:
        folder: Where they are from.
        dense: Operator to tokens of the batch to time.
        per_sequence: Operator to sequences of the batch to time.
        attention: (prefill chunk, its context, decodes, their context) to time.
        moe: (tokens, activated experts) to time.
        skew: Buckets of the skew fit.
    """

    folder: Path
    dense: Grid1
    per_sequence: Grid1
    attention: Mapping[tuple[int, int, int, int], float]
    moe: Mapping[tuple[int, int], float] = field(default_factory=dict)
    skew: tuple[SkewRow, ...] = ()


def degrees(folder: Path) -> list[int]:
    """Tensor-parallel degrees a folder has tables of."""
    found = (re.fullmatch(r"tp(\d+)", path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(int(match[1]) for match in found if match)


def read_meta(folder: Path) -> dict[str, Any]:
    """``meta.yaml``; empty where there is none.

    Raises:
        LatencyError: It is no YAML mapping.
    """
    path = folder / "meta.yaml"
    if not path.is_file():
        return {}
    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LatencyError(f"{path} is no YAML: {error}") from None
    if not isinstance(meta, dict):
        raise LatencyError(f"{path} has to be a mapping")
    return meta


def read_tables(folder: Path) -> Tables:
    """The tables of a ``tp<N>`` folder.

    Raises:
        LatencyError: One is missing or empty, or a row is wrong; the message says which.
    """
    moe, skew = folder / "moe.csv", folder / "skew_fit.csv"
    return Tables(
        folder,
        _by_operator(folder / "dense.csv", "tokens"),
        _by_operator(folder / "per_sequence.csv", "sequences"),
        dict(_rows(folder / "attention.csv", _attention_row)),
        dict(_rows(moe, _moe_row)) if moe.is_file() else {},
        tuple(_rows(skew, _skew_row)) if skew.is_file() else (),
    )


def _by_operator(path: Path, column: str) -> Grid1:
    def parse(row: Mapping[str, str]) -> tuple[str, float, float]:
        return row["layer"].strip(), _count(row[column]), _time(row)

    found: dict[str, dict[float, float]] = {}
    for layer, x, time in _rows(path, parse):
        found.setdefault(layer, {})[x] = time
    return found


def _attention_row(row: Mapping[str, str]) -> tuple[tuple[int, int, int, int], float]:
    key = (
        _count(row["prefill_chunk"]),
        _count(row["kv_prefill"]),
        _count(row["n_decode"]),
        _count(row["kv_decode"]),
    )
    return key, _time(row)


def _moe_row(row: Mapping[str, str]) -> tuple[tuple[int, int], float]:
    return (_count(row["tokens"]), _count(row["activated_experts"])), _time(row)


def _skew_row(row: Mapping[str, str]) -> SkewRow:
    labels = (row["n_label"], row["skew_rate_label"], row["kv_big_label"], row["kp_label"])
    for label, axis in zip(labels, AXES, strict=True):
        if label_bound(label)[0] != axis:
            raise ValueError(f"{label!r} is in the place of a bucket such as {axis}<=1")
    alpha = float(row["alpha"])
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}")
    return SkewRow(_count(row["pc"]), labels, alpha)


def _count(text: str) -> int:
    value = float(text)
    if value < 0 or value != int(value):
        raise ValueError(f"{text!r} is no count")
    return int(value)


def _time(row: Mapping[str, str]) -> float:
    value = float(row["time_us"])
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"time_us is {value}")
    return value


def _rows(path: Path, parse: Callable[[Mapping[str, str]], T]) -> Iterator[T]:
    count = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                count += 1
                try:
                    yield parse(row)
                except KeyError as error:
                    raise LatencyError(f"{path} has no column {error}") from None
                except (ValueError, TypeError, AttributeError, OverflowError) as error:
                    raise LatencyError(f"{path}:{number} is wrong: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LatencyError(f"cannot read {path}: {error}") from None
    if not count:
        raise LatencyError(f"{path} has no rows")
