"""What AISBench's perf mode leaves behind, in the terms of :mod:`trainables.benchmarks._metrics`.

Two files of one stem: a table of statistics whose cells carry units (``146.1383 ms``), and totals
(``{"Request Throughput": {"total": "2.4221 req/s"}}``). AISBench rounds latencies to 0.1 ms.

TPOT is ``(E2EL - TTFT) / (n - 1)`` as ours, but a request with n < 2 counts as one of 0: where
there are such requests, the mean is taken over the others, as the details tell their number, and
minimum and percentiles are left out. ITL counts every event of the stream, so for each request
there is a gap of nearly no length before the event that tells the usage (in a chat, another one
after the role): its mean is ``n / (n - 1)`` times too small where tokens come one by one.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.benchmarks._foreign import UNITS, ResultError, in_seconds, number, read_object
from trainables.benchmarks._metrics import LATENCIES, STATISTICS, latency_name

_PLACES = ("*.csv", "performances/*/*.csv", "*/performances/*/*.csv")
"""Where the table lies in the folder of a model, of a run, and of several runs."""
_NAME, _STAGE, _WHOLE = "Performance Parameters", "Stage", "total"
_COLUMNS = {"Average": "mean", "Min": "min", "Max": "max", "Median": "p50"} | {
    one.upper(): one for one in STATISTICS if one.startswith("p")
}
_CELL = re.compile(r"([-+.\deE]+)\s*([a-zA-Z/]*)")
_TOTALS = {
    "Benchmark Duration": "duration_s",
    "Total Requests": "requests",
    "Concurrency": "mean_concurrency",
    "Max Concurrency": "concurrency",
    "Request Throughput": "requests_per_s",
    "Total Input Tokens": "input_tokens",
    "Total Generated Tokens": "output_tokens",
    "Output Token Throughput": "output_tokens_per_s",
    "Total Token Throughput": "total_tokens_per_s",
}
_NEEDED = ("duration_s", "requests", "requests_per_s", "output_tokens_per_s")
_SUCCEEDED = "Success Requests"
_UNNAMED = "no reason given"


@dataclass(frozen=True)
class Performance:
    """The files of one run.

    Attributes:
        table: Statistics of latencies.
    """

    table: Path

    @property
    def totals(self) -> Path:
        """Throughputs and counts."""
        return self.table.with_suffix(".json")

    @property
    def details(self) -> Path:
        """A line for each request; may be absent."""
        return self.table.with_name(f"{self.table.stem}_details.jsonl")

    @property
    def failed(self) -> Path:
        """A line for each request that failed; absent when none did."""
        return self.table.with_name(f"{self.table.stem}_failed.jsonl")


def read_ais_bench_performance(folder: str | Path) -> dict[str, float]:
    """The metrics of the one run in ``folder``: that of a run, the one above, or the model's below.

    Raises :class:`ResultError` when there are none or several, when one is torn or contradicts
    itself, or when no request succeeded.
    """
    return performance_metrics(find_performance(Path(folder)))


def find_performance(folder: Path) -> Performance:
    """The one run in ``folder``. Raises :class:`ResultError` when there are none or several."""
    tables = sorted({file for place in _PLACES for file in folder.glob(place)})
    if not tables:
        raise ResultError(f"AISBench left no table of performance in {folder}")
    if len(tables) > 1:
        names = ", ".join(str(file.relative_to(folder)) for file in tables)
        raise ResultError(
            f"{folder} holds {len(tables)} tables of performance: {names}; one model and one "
            "dataset make one"
        )
    return Performance(tables[0])


def performance_metrics(performance: Performance) -> dict[str, float]:
    """The metrics of one run. Raises :class:`ResultError`."""
    rows = _rows(performance.table)
    totals = _totals(performance.totals)
    requests, succeeded = totals.get("Total Requests", 0.0), totals.get(_SUCCEEDED, 0.0)
    if succeeded <= 0:
        raise ResultError(f"all {requests:g} requests failed; see {performance.totals}")
    metrics = {ours: totals[theirs] for theirs, ours in _TOTALS.items() if theirs in totals}
    for name in _NEEDED:
        if name not in metrics:
            raise ResultError(f"{performance.totals} does not tell {name}")
    metrics["success_rate"] = succeeded / requests
    tokens = rows.get("OUTPUTTOKENS", {})
    # Of one token each, the only gaps are those before the usage.
    absent = ("itl",) if tokens.get("max", 2.0) < 2 else ()
    for latency in (one for one in LATENCIES if one not in absent):
        for statistic, value in rows.get(latency.upper(), {}).items():
            metrics[latency_name(latency, statistic)] = value
    return _with_our_tpot(metrics, tokens, succeeded, performance.details)


def failures(performance: Performance) -> dict[str, int]:
    """Reason to number of failed requests."""
    reasons = (str(one.get("error_info") or _UNNAMED) for one in _lines(performance.failed))
    return dict(Counter(reasons).most_common())


def _with_our_tpot(
    metrics: dict[str, float],
    tokens: Mapping[str, float],
    succeeded: float,
    details: Path,
) -> dict[str, float]:
    """``metrics`` with a TPOT of requests of several tokens only."""
    name = latency_name("tpot", "mean")
    if name not in metrics or tokens.get("min", 2.0) >= 2:
        return metrics
    spoiled = {latency_name("tpot", one) for one in STATISTICS if one != "max"}
    kept = {key: value for key, value in metrics.items() if key not in spoiled}
    several = sum(
        bool(one.get("success")) and (number(one.get("output_tokens")) or 0) >= 2
        for one in _lines(details)
    )
    if several:
        kept[name] = metrics[name] * succeeded / several
    return kept


def _rows(file: Path) -> dict[str, dict[str, float]]:
    """Parameter in upper case to its statistics, of the whole run; latencies in seconds."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            table = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise ResultError(f"the table {file} cannot be read: {error}") from error
    if not table:
        raise ResultError(f"the table {file} has no rows")
    if not {_NAME, _STAGE} <= set(table[0]):
        raise ResultError(f"the table {file} has no columns {_NAME} and {_STAGE}")
    stage = _stage([row[_STAGE] for row in table], file)
    found: dict[str, dict[str, float]] = {}
    for row in table:
        name = str(row[_NAME]).upper()
        if row[_STAGE] != stage:
            continue
        if name in found:
            raise ResultError(f"the table {file} has two rows {row[_NAME]}")
        found[name] = _statistics(row, name, file)
    return found


def _stage(stages: Sequence[str], file: Path) -> str:
    """The part of the run that the numbers are about."""
    different = set(stages)
    if _WHOLE in different:
        return _WHOLE
    if len(different) > 1:
        raise ResultError(f"{file} has several stages, none of them {_WHOLE}: {sorted(different)}")
    return different.pop()


def _statistics(row: Mapping[str, Any], name: str, file: Path) -> dict[str, float]:
    latency = name.lower() in LATENCIES
    found = {}
    for column, statistic in _COLUMNS.items():
        if row.get(column):
            found[statistic] = _value(row[column], f"{name} {column}", file, seconds=latency)
    return found


def _totals(file: Path) -> dict[str, float]:
    """Name to value, of the whole run; the duration in seconds."""
    found = {}
    for name, stages in read_object(file).items():
        if not isinstance(stages, dict) or not stages:
            raise ResultError(f"{name} in {file} has no value")
        value = stages[_stage(list(stages), file)]
        found[name] = _value(value, name, file, seconds=name == "Benchmark Duration")
    return found


def _value(cell: Any, name: str, file: Path, *, seconds: bool) -> float:
    """The number in a cell, with a unit of time in seconds."""
    parts = _CELL.fullmatch(str(cell).strip())
    value = number(parts[1]) if parts else None
    if parts is None or value is None or (seconds and parts[2] not in UNITS):
        raise ResultError(f"{name} in {file} is {cell!r}")
    return in_seconds(value, parts[2]) if seconds else value


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects in a file of lines; none when it is not there. Torn lines are left out."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict):
                yield document
