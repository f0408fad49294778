"""``tune_results.jsonl``, of the original tool or of ours, read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tuner.views.autotune import METRICS

_MOST_BYTES = 2**28
_FAILED = ("failed", "crashed", "timeout")


@dataclass(frozen=True)
class EarlierTrial:
    """A trial that was carried out before and does not have to be again.

    Attributes:
        status: ``ok`` with metrics, or how it failed.
        at: When it ended, local time; None where the record does not say.
        record: As it stands in the file.
    """

    status: Literal["ok", "failed", "crashed", "timeout"]
    metrics: Mapping[str, float]
    at: datetime | None
    record: Mapping[str, Any]


@dataclass(frozen=True)
class TuneResults:
    """What a file holds.

    Attributes:
        trials: By trial key. Of several records of a trial the last that counts, and one that
            measured something before one that failed.
        broken: Lines that cannot be understood.
    """

    trials: Mapping[str, EarlierTrial]
    broken: int = 0


def read_tune_results(file: Path) -> TuneResults:
    """The finished trials of a file; none where it does not exist.

    As the original does, a ``partial`` record counts for nothing: that trial is measured again. So
    is one that never began because its port was taken. A torn or foreign line is counted, never
    an error.

    Raises:
        OSError: It is there and cannot be read.
        ValueError: It is too large to be one.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{file} is larger than {_MOST_BYTES} bytes")
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return TuneResults({})
    trials: dict[str, EarlierTrial] = {}
    broken = 0
    for line in filter(None, map(bytes.strip, lines)):
        try:
            record = json.loads(line)
        except ValueError:
            broken += 1
            continue
        key = record.get("trial_key") if isinstance(record, dict) else None
        if not isinstance(key, str):
            broken += 1
            continue
        trial = _trial(record)
        if trial is not None and not (_measured(trials.get(key)) and not _measured(trial)):
            trials[key] = trial
    return TuneResults(trials, broken)


def _measured(trial: EarlierTrial | None) -> bool:
    return trial is not None and trial.status == "ok"


def _trial(record: Mapping[str, Any]) -> EarlierTrial | None:
    """None for a record that does not spare a trial."""
    status = record.get("status")
    if status == "ok":
        metrics = {
            name: float(record[key]) for name, key in METRICS.items() if _is_number(record.get(key))
        }
        if {"accuracy", "total_tps"} <= metrics.keys():
            return EarlierTrial("ok", metrics, _time(record), record)
        return None
    if status in _FAILED and "reason" not in record:
        return EarlierTrial(status, {}, _time(record), record)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time(record: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(record["ts"]).astimezone()
    except (KeyError, TypeError, ValueError):
        return None
