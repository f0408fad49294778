"""The rows of ``data_storage_*.csv``: exact names and order of the original, then ours. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from searchers import Json
from tuner._fitness import Fitness, fitness
from tuner.views._contract import Finished

METRIC_COLUMNS = (
    "generate_speed",
    "time_to_first_token",
    "time_per_output_token",
    "success_rate",
    "throughput",
)
STATE_COLUMNS = ("error", "backup", "duration", "real_evaluation", "fitness", "num_prompts")
EXTRA_COLUMNS = (
    "case_id",
    "phase",
    "timestamp",
    "satisfied",
    "identity",
    "stopped_reason",
    "concurrency",
    "request_rate",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula; without ``--``, as the original writes it."""
    text = " ".join(text.replace("--", "").split())
    return f"'{text}" if text.startswith(_FORMULA) else text


def table(header: Sequence[str], rows: Iterable[Sequence[Json]]) -> str:
    """CSV as Python and pandas write it: lines end with CR LF, None is empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(header)
    writer.writerows(
        [plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return stream.getvalue()


def header(fields: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table whose parameters are ``fields``."""
    return (*METRIC_COLUMNS, *fields, *STATE_COLUMNS, *EXTRA_COLUMNS)


def row(
    finished: Finished,
    fields: Sequence[str],
    options: Fitness,
    baseline: Mapping[str, float] | None,
    *,
    load: Mapping[str, str],
    constants: Mapping[str, Json],
    num_prompts: int | None,
    backup: str | None,
) -> list[Json]:
    """One trial as a row.

    Args:
        baseline: Metrics of the baseline, for the fitness.
        load: Columns that are the load, with the metric each is.
        constants: Values of columns that are not known otherwise.
        num_prompts: Requests of a run.
        backup: Folder of the trial's copies.
    """
    measurement = finished.measurement
    metrics: Mapping[str, float] = {} if measurement is None else measurement.metrics
    data: Mapping[str, Json] = {} if measurement is None else measurement.data
    stopped = data.get("stopped") or {}
    real = measurement is None or (not stopped and bool(data.get("real_evaluation", True)))
    shown = {} if stopped else metrics
    values = [_field(name, finished, metrics, load, constants) for name in fields]
    return [
        *(shown.get(name) for name in (*options.metrics, "requests_per_s")),
        *values,
        error_of(finished, stopped),
        backup,
        None if measurement is None else measurement.seconds,
        real,
        fitness(shown, options, baseline),
        num_prompts,
        finished.number,
        finished.kind,
        finished.at,
        finished.satisfied,
        None if measurement is None else measurement.identity,
        stopped.get("reason"),
        metrics.get("concurrency"),
        metrics.get("request_rate"),
    ]


def error_of(finished: Finished, stopped: Mapping[str, Json]) -> str | None:
    """Why a trial has no numbers; None where it has."""
    if finished.failure is not None:
        failure = finished.failure
        return f"{failure.get('class', 'failed')}: {failure.get('message', '')}"
    if stopped:
        return f"given up ({stopped.get('by', 'early')}): {stopped.get('reason', '')}"
    return None


def _field(
    name: str,
    finished: Finished,
    metrics: Mapping[str, float],
    load: Mapping[str, str],
    constants: Mapping[str, Json],
) -> Json:
    if name in load:
        value = metrics.get(load[name], finished.parameters.get(name, constants.get(name)))
        whole = load[name] == "concurrency" and isinstance(value, float) and value.is_integer()
        return int(value) if whole else value
    return finished.parameters.get(name, constants.get(name))
