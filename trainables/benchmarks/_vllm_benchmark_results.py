"""What ``vllm bench serve`` leaves behind, in the terms of :mod:`trainables.benchmarks._metrics`.

Its latencies are milliseconds and defined as ours: TPOT is ``(E2EL - TTFT) / (n - 1)`` over
requests with n > 1 tokens. A statistic of no values is written as 0 and left out here. Without
``--save-detailed`` there are no minima and maxima.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainables.benchmarks._foreign import ResultError, in_seconds, number, read_object, required
from trainables.benchmarks._metrics import LATENCIES, latency_name
from trainables.benchmarks._summary import RequestRecord, latencies

PERCENTILES = (50, 75, 90, 95, 99)
_ONLY_IN_DETAILS = ("min", "max")
_COUNTS = {"total_input_tokens": "input_tokens", "total_output_tokens": "output_tokens"}
_RATES = {
    "output_throughput": "output_tokens_per_s",
    "total_token_throughput": "total_tokens_per_s",
    "request_throughput": "requests_per_s",
    "request_goodput": "goodput_per_s",
}
_LOGGED = re.compile(r"^Failed requests during benchmark run detected.*\n((?:.*\n)*)", re.MULTILINE)
_LOGGED_ERROR = re.compile(r"^Error \d+: ", re.MULTILINE)
_END_OF_ERRORS = re.compile(r"^(?:tip: |=+ ?Serving)", re.MULTILINE)
_UNNAMED = "no reason given"


def read_vllm_bench_json(path: str | Path) -> dict[str, float]:
    """The metrics in a result file of ``vllm bench serve --save-result``.

    Raises :class:`ResultError` when it is no such file, is torn, or no request succeeded.
    """
    file = Path(path)
    return vllm_metrics(read_object(file), file)


def vllm_metrics(document: Mapping[str, Any], file: Path) -> dict[str, float]:
    """The metrics of a result document; ``file`` is for messages. Raises :class:`ResultError`."""
    completed = required(document, "completed", file)
    failed = number(document.get("failed"))
    if failed is None:
        failed = required(document, "num_prompts", file) - completed
    if completed <= 0:
        raise ResultError(f"all {failed:g} requests failed; see {file}")
    metrics = {
        "duration_s": required(document, "duration", file),
        "requests": completed + failed,
        "success_rate": completed / (completed + failed),
    }
    for theirs, ours in (*_COUNTS.items(), *_RATES.items()):
        if (value := number(document.get(theirs))) is not None:
            metrics[ours] = value
    for theirs, ours in (("max_concurrency", "concurrency"), ("request_rate", "request_rate")):
        if (value := number(document.get(theirs))) is not None:
            metrics[ours] = value
    metrics |= _latencies(document, file)
    if "e2el_mean_s" in metrics and metrics["duration_s"] > 0:
        metrics["mean_concurrency"] = metrics["e2el_mean_s"] * completed / metrics["duration_s"]
    return metrics


def failures(document: Mapping[str, Any], output: str) -> dict[str, int]:
    """Reason to number of failed requests: from the details, else from what was printed, which are
    ten reasons at most."""
    columns = _columns(document, "errors", "ttfts")
    if columns:
        wrong = [
            error or _UNNAMED for error, first in zip(*columns, strict=False) if error or not first
        ]
        return dict(Counter(map(_reason, wrong)).most_common())
    failed = int(number(document.get("failed")) or 0)
    counted = Counter(map(_reason, _logged(output)))
    if (rest := failed - counted.total()) > 0:
        counted[_UNNAMED] += rest
    return dict(counted.most_common())


def _latencies(document: Mapping[str, Any], file: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    detailed = latencies(_records(document))
    for latency in _present(document):
        millis = {"mean": required(document, f"mean_{latency}_ms", file)}
        optional = {"p50": f"median_{latency}_ms"}
        optional |= {f"p{percent}": f"p{percent}_{latency}_ms" for percent in PERCENTILES}
        for statistic, key in optional.items():
            value = number(document.get(key))
            if value is not None:
                millis[statistic] = value
        for statistic, value in millis.items():
            found[latency_name(latency, statistic)] = in_seconds(value)
        for one in _ONLY_IN_DETAILS:
            name = latency_name(latency, one)
            if name in detailed:
                found[name] = detailed[name]
    return found


def _present(document: Mapping[str, Any]) -> list[str]:
    """The latencies of which there is at least one value."""
    tokens = number(document.get("total_output_tokens")) or 0
    several = tokens > (number(document.get("completed")) or 0)
    absent = {
        "tpot": not several,
        "itl": not number(document.get("mean_itl_ms")),
    }
    return [one for one in LATENCIES if f"mean_{one}_ms" in document and not absent.get(one, False)]


def _records(document: Mapping[str, Any]) -> Iterable[RequestRecord]:
    """The requests that succeeded, where the file tells of each."""
    columns = _columns(document, "errors", "ttfts", "itls", "output_lens")
    ends = document.get("latencies")
    for index, (error, first, itl, tokens) in enumerate(zip(*columns, strict=False)):
        if first and not error:
            end = ends[index] if isinstance(ends, list) else first + sum(itl)
            yield RequestRecord(index, 0.0, 0.0, end, first, output_tokens=tokens, itl=itl)


def _columns(document: Mapping[str, Any], *names: str) -> list[list[Any]]:
    """The lists of these names, one value for each request; none unless all are there."""
    found = [document.get(name) for name in names]
    return (
        [one for one in found if isinstance(one, list)]
        if all(isinstance(one, list) for one in found)
        else []
    )


def _logged(output: str) -> list[str]:
    """Errors as they were printed, each perhaps with its traceback."""
    found = _LOGGED.search(output)
    if found is None:
        return []
    text = found[1]
    if end := _END_OF_ERRORS.search(text):
        text = text[: end.start()]
    return _LOGGED_ERROR.split(text)[1:]


def _reason(text: str) -> str:
    """The last line that is not empty: of a traceback, the exception."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), _UNNAMED)
