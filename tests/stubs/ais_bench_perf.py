"""The perf mode of the stub of AISBench; see ``ais_bench.py``.

It really sends the requests, streamed, and leaves the same table, totals and lines. As with the
real one, requests that fail are counted apart, and a run without any success ends with exit code 1.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

MISHAPS = (
    "no-table",  # leaves no table
    "two-tables",  # leaves one of another dataset as well
    "torn-totals",  # leaves half of the totals
    "empty-table",  # leaves a table without rows
    "two-rows",  # leaves the row of TTFT twice
)
_HEADER = ["Performance Parameters", "Stage"]
_ERROR = "ais_bench.benchmark.utils.logging.exceptions."


@dataclass
class Request:
    """One request, as the real one keeps it. Times in seconds."""

    id: int
    question: str
    max_out_len: int
    due: float | None = None
    points: list[float] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""

    @property
    def success(self) -> bool:
        return not self.error

    @property
    def latency(self) -> float:
        return self.points[-1] - self.points[0]

    @property
    def ttft(self) -> float:
        return self.points[1] - self.points[0]

    @property
    def tpot(self) -> float:
        several = self.output_tokens > 1
        return (self.latency - self.ttft) / (self.output_tokens - 1) if several else 0.0

    @property
    def itl(self) -> list[float]:
        return [after - before for before, after in pairwise(self.points[1:])]


def requests_of(dataset: dict[str, Any], model: dict[str, Any], count: int | None) -> list[Request]:
    """The first requests of a dataset."""
    rows = [json.loads(line) for line in Path(dataset["path"]).read_text().splitlines()][:count]
    timed = model.get("use_timestamp")
    return [
        Request(
            index,
            row["question"],
            row.get("max_tokens") or model["max_out_len"],
            row["timestamp"] / 1000 if timed else None,
        )
        for index, row in enumerate(rows)
    ]


def send(model: dict[str, Any], request: Request) -> None:
    chat = "Chat" in str(model["type"])
    asked: dict[str, Any] = {"prompt": request.question}
    if chat:
        asked = {"messages": [{"role": "user", "content": request.question}]}
    body = {**asked, **model["generation_kwargs"], "max_tokens": request.max_out_len}
    body |= {"model": model["model"], "stream": True, "stream_options": {"include_usage": True}}
    host = model["host_ip"]
    path = "v1/chat/completions" if chat else "v1/completions"
    call = urllib.request.Request(
        f"http://{f'[{host}]' if ':' in host else host}:{model['host_port']}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    request.points = [time.perf_counter()]
    try:
        with urllib.request.urlopen(call) as response:
            for line in response:
                chunk = line.decode().removeprefix("data:").strip()
                if not chunk or chunk == "[DONE]":
                    continue
                request.points.append(time.perf_counter())
                if usage := json.loads(chunk).get("usage"):
                    request.input_tokens = usage["prompt_tokens"]
                    request.output_tokens = usage["completion_tokens"]
    except urllib.error.HTTPError as refusal:
        request.error = str(refusal.reason)
    except OSError as error:
        said = f"After 1 retries, request failed with exception: {type(error).__name__}: {error}"
        request.error = said


def load(model: dict[str, Any], requests: Sequence[Request]) -> None:
    """Send all; requests with times of their own know no limit."""
    timed = model.get("use_timestamp")
    places = threading.BoundedSemaphore(len(requests) if timed else model["batch_size"])
    rate = model["request_rate"]

    def one(request: Request) -> None:
        with places:
            send(model, request)

    threads = [threading.Thread(target=one, args=(each,), daemon=True) for each in requests]
    begin = time.perf_counter()
    for index, (thread, request) in enumerate(zip(threads, requests, strict=True)):
        due = request.due if request.due is not None else index / rate if rate else 0.0
        time.sleep(max(0.0, begin + due - time.perf_counter()))
        thread.start()
    for thread in threads:
        thread.join()


def run(
    folder: Path, model: dict[str, Any], datasets: Sequence[dict[str, Any]], options: Any
) -> None:
    """Measure every dataset, and leave its files in ``folder``."""
    place = folder / "performances" / str(model["abbr"])
    place.mkdir(parents=True)
    columns = ["Average", "Min", "Max", "Median", "P75", "P90", "P99"]
    if options.summarizer:
        columns.insert(-1, "P95")
    for dataset in datasets:
        requests = requests_of(dataset, model, options.num_prompts)
        warm_up(model, requests, options.num_warmups)
        load(model, requests)
        write_lines(place, dataset["abbr"], requests)
        good = [request for request in requests if request.success]
        if not good:
            raise_error("AISBenchDataContentError", "All requests failed, cannot calculate")
        table = [[*_HEADER, *columns, "N"], *rows(good, columns)]
        totals = json.dumps(totals_of(requests, good, model), indent=4)
        write(place, str(dataset["abbr"]), table, totals, options.stub)


def warm_up(model: dict[str, Any], requests: Sequence[Request], count: int) -> None:
    tried = [Request(0, requests[0].question, requests[0].max_out_len) for _ in range(count)]
    for each in tried:
        send(model, each)
    if tried and not any(each.success for each in tried):
        reasons = {each.error: len(tried) for each in tried}
        said = f"Exit task because all warmup requests failed, failed reasons: {reasons}"
        print(f"{_ERROR}AISBenchRuntimeError: [TINFER-RUNTIME-001] {said}", file=sys.stderr)
        raise_error("FileMatchError", "[SUMM-FILE-001] Can't find any details perf data file")


def raise_error(kind: str, said: str) -> None:
    print("Traceback (most recent call last):", file=sys.stderr)
    print(f"{_ERROR}{kind}: {said}", file=sys.stderr)
    sys.exit(1)


def rows(good: Sequence[Request], columns: Sequence[str]) -> list[list[str]]:
    values: dict[str, list[float]] = {
        "E2EL": [each.latency for each in good],
        "TTFT": [each.ttft for each in good],
        "TPOT": [each.tpot for each in good],
        "ITL": [gap for each in good for gap in each.itl],
        "InputTokens": [float(each.input_tokens) for each in good],
        "OutputTokens": [float(each.output_tokens) for each in good],
        "OutputTokenThroughput": [each.output_tokens / each.latency for each in good],
    }
    if not any(values["TPOT"]):
        del values["TPOT"]
    found = []
    for name, numbers in values.items():
        cells = [round(statistic(numbers, column), 4) for column in columns]
        unit = "token/s" if name == "OutputTokenThroughput" else "" if "Tokens" in name else "ms"
        if unit == "ms":
            cells = [round(1000 * cell, 4) for cell in cells]
        shown = [f"{cell} {unit}".strip() for cell in cells]
        found.append([name, "total", *shown, str(len(good))])
    return found


def statistic(values: Sequence[float], column: str) -> float:
    if column == "Average":
        return statistics.fmean(values)
    percent = {"Min": 0.0, "Max": 100.0, "Median": 50.0}.get(column)
    percent = float(column[1:]) if percent is None else percent
    ordered = sorted(values)
    position = percent / 100 * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def totals_of(
    requests: Sequence[Request], good: Sequence[Request], model: dict[str, Any]
) -> dict[str, Any]:
    begin = min(each.points[0] for each in good)
    seconds = max(each.points[-1] for each in good) - begin
    tokens_in = sum(each.input_tokens for each in good)
    tokens_out = sum(each.output_tokens for each in good)
    found: dict[str, Any] = {
        "Benchmark Duration": f"{round(1000 * seconds, 4)} ms",
        "Total Requests": len(requests),
        "Failed Requests": len(requests) - len(good),
        "Success Requests": len(good),
        "Concurrency": round(sum(each.latency for each in good) / seconds, 4),
        "Max Concurrency": model["batch_size"],
        "Request Throughput": f"{round(len(good) / seconds, 4)} req/s",
        "Total Input Tokens": tokens_in,
        "Total Generated Tokens": tokens_out,
        "Input Token Throughput": f"{round(tokens_in / seconds, 4)} token/s",
        "Output Token Throughput": f"{round(tokens_out / seconds, 4)} token/s",
        "Total Token Throughput": f"{round((tokens_in + tokens_out) / seconds, 4)} token/s",
    }
    return {name: {"total": value} for name, value in found.items()}


def write_lines(place: Path, name: str, requests: Sequence[Request]) -> None:
    for request in requests:
        line: dict[str, Any] = {"data_abbr": name, "id": request.id, "success": request.success}
        line |= {"error_info": request.error, "input": request.question}
        line |= {"input_tokens": request.input_tokens, "output_tokens": request.output_tokens}
        with (place / f"{name}_details.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if request.error:
            with (place / f"{name}_failed.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")


def write(place: Path, name: str, table: list[list[str]], totals: str, mishap: str) -> None:
    if mishap == "empty-table":
        table = table[:1]
    if mishap == "two-rows":
        table = [*table, next(row for row in table if row[0] == "TTFT")]
    (place / f"{name}.json").write_text(totals[:40] if mishap == "torn-totals" else totals)
    names = [] if mishap == "no-table" else [name]
    for each in [*names, "another"] if mishap == "two-tables" else names:
        with (place / f"{each}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(table)
