"""What the conformance suite requires of one finished run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainables._contract import require
from trainables._trial import TrialRun
from trainables.benchmarks._benchmark import Benchmark, BenchmarkResult, Load, Window
from trainables.benchmarks._metrics import LATENCIES, REQUIRED, latency_name

_TOLERANCE = 0.02
_ORDERED = ("min", "p50", "p75", "p90", "p95", "p99", "max")


def require_sound(benchmark: Benchmark, found: BenchmarkResult, load: Load) -> None:
    """Metrics are named, there, finite, and agree with each other and with the load."""
    metrics = found.metrics
    unnamed = set(metrics) - benchmark.metric_names()
    require(not unnamed, f"metrics that metric_names() does not name: {unnamed}")
    finite = all(math.isfinite(value) for value in metrics.values())
    require(finite, f"not finite: {dict(metrics)}")
    require(set(metrics) >= REQUIRED, f"missing: {REQUIRED - set(metrics)}")
    for name in ("data", "artifacts", "environment"):
        document = getattr(found, name)
        copy = json.loads(json.dumps(document, allow_nan=False))
        require(copy == document, f"{name} is not JSON: {document}")
    require(bool(found.environment), "the environment does not say which tool measured")
    require(metrics["requests"] == load.requests, f"{metrics['requests']} requests were sent")
    for asked in ("concurrency", "request_rate"):
        if asked in metrics:
            value = getattr(load, asked)
            require(metrics[asked] == value, f"{asked} {metrics[asked]} instead of {value}")
    duration = metrics["duration_s"]
    require(0 < duration <= found.seconds + 0.1, f"{duration} s in a run of {found.seconds} s")
    _require_consistent(metrics, duration)


def _require_consistent(metrics: Mapping[str, float], duration: float) -> None:
    """Rates times duration are counts, statistics are in order."""
    get = metrics.get
    succeeded = metrics["requests"] * metrics["success_rate"]
    pairs = [("requests_per_s", succeeded), ("output_tokens_per_s", get("output_tokens"))]
    if "input_tokens" in metrics and "output_tokens" in metrics:
        pairs.append(("total_tokens_per_s", metrics["input_tokens"] + metrics["output_tokens"]))
    for rate, count in pairs:
        if rate in metrics and count is not None:
            close = math.isclose(metrics[rate] * duration, count, rel_tol=_TOLERANCE)
            require(close, f"{rate} {metrics[rate]} for {duration} s is not {count}")
    for latency in LATENCIES:
        _require_ordered(latency, metrics)
    first, whole = metrics["ttft_mean_s"], get("e2el_mean_s")
    require(whole is None or whole >= first, f"E2EL {whole} is shorter than TTFT {first}")


def _require_ordered(latency: str, metrics: Mapping[str, float]) -> None:
    named = {one: metrics.get(latency_name(latency, one)) for one in (*_ORDERED, "mean")}
    values = [value for one in _ORDERED if (value := named[one]) is not None]
    require(values == sorted(values), f"{latency} is out of order: {named}")
    mean = named["mean"]
    if mean is None:
        return
    require(mean >= 0, f"negative: {named}")
    for bound, sign in (("min", 1), ("max", -1)):
        value = named[bound]
        outside = value is not None and sign * (value - mean) > _TOLERANCE * mean
        require(not outside, f"the mean of {latency} is outside its range: {named}")


def require_files(found: BenchmarkResult, trial: TrialRun, stage: str) -> None:
    """The log has its name and content, artifacts lie in the run's own folder."""
    log = trial.folder / f"{stage}.log"
    require(log.is_file() and log.stat().st_size > 0, f"there is nothing in {log}")
    for name, path in found.artifacts.items():
        inside = Path(path).resolve().is_relative_to((trial.folder / stage).resolve())
        require(inside and Path(path).exists(), f"artifact {name} is not in {stage}/: {path}")


def require_windows(found: BenchmarkResult, windows: Sequence[Window], requests: int) -> None:
    """Windows, where there are any, add up to the whole run."""
    if not windows:
        return
    edges = [edge for window in windows for edge in (window.begin, window.end)]
    require(edges == sorted(edges) and edges[0] >= 0, f"windows are out of order: {edges}")
    ended = sum(window.completed + window.failed for window in windows)
    require(ended == requests, f"{ended} requests in all windows, {requests} were sent")
    if (tokens := found.metrics.get("output_tokens")) is not None:
        counted = sum(window.output_tokens for window in windows)
        close = math.isclose(counted, tokens, rel_tol=_TOLERANCE)
        require(close, f"{counted} tokens in all windows, {tokens} in all")
