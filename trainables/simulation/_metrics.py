"""The metrics of a simulated run, by the names and definitions that benchmarks of real engines use.

Percentiles lie between the two nearest ranks, interpolated linearly. A request that was refused
counts as sent and failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.simulation._request import Load, Served, Simulated

_PERCENTILES = {"p50": 50.0, "p75": 75.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


def measure(
    simulated: Simulated,
    load: Load,
    *,
    request_rate: float | None = None,
    goodput: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The metrics of a run.

    Args:
        request_rate: What was asked for, to be told beside the rest.
        goodput: Bounds of a good request on ``ttft_s``, ``tpot_s`` and ``e2el_s``; None: its
            rate is not told. A request of one output token keeps every bound on TPOT.

    Returns: Seconds, tokens and rates per second; without those that no request has a value for.
    """
    served = simulated.served
    count = len(served) + len(simulated.refused)
    if not count:
        return {}
    sent = np.array([one.sent for one in served], dtype=np.float64)
    end = np.array([one.end for one in served], dtype=np.float64)
    refused = np.array([one.sent for one in simulated.refused], dtype=np.float64)
    duration = float(np.concatenate((end, refused)).max() - np.concatenate((sent, refused)).min())
    prompts = float(sum(one.request.input_tokens for one in served))
    answers = float(sum(one.request.output_tokens for one in served))
    metrics = {
        "duration_s": duration,
        "requests": float(count),
        "success_rate": len(served) / count,
        "input_tokens": prompts,
        "output_tokens": answers,
    }
    if load.concurrency is not None:
        metrics["concurrency"] = float(load.concurrency)
    if request_rate is not None:
        metrics["request_rate"] = request_rate
    values = _latencies(served, sent, end)
    if duration > 0:
        metrics |= {
            "requests_per_s": len(served) / duration,
            "output_tokens_per_s": answers / duration,
            "total_tokens_per_s": (prompts + answers) / duration,
            "mean_concurrency": float(values["e2el"].sum()) / duration,
        }
        if goodput is not None:
            metrics["goodput_per_s"] = float(_good(values, goodput).sum()) / duration
    return metrics | _statistics(values)


def _latencies(
    served: Sequence[Served], sent: NDArray[np.float64], end: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """TTFT, TPOT (NaN for a single token) and E2EL of each request, and all gaps."""
    first = np.array([one.first for one in served], dtype=np.float64)
    tokens = np.array([one.request.output_tokens for one in served], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(tokens > 1, (end - first) / (tokens - 1), np.nan)
    gaps = [one.gaps for one in served if one.gaps.size]
    return {
        "ttft": first - sent,
        "tpot": tpot,
        "itl": np.concatenate(gaps) if gaps else np.empty(0),
        "e2el": end - sent,
    }


def _good(
    values: Mapping[str, NDArray[np.float64]], bounds: Mapping[str, float]
) -> NDArray[np.bool_]:
    """Which requests keep every bound."""
    kept = np.ones(values["ttft"].shape, dtype=np.bool_)
    for name, bound in bounds.items():
        # A comparison with NaN is false, and what has no value breaks no bound.
        kept &= ~(values[name.removesuffix("_s")] > bound)
    return kept


def _statistics(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, every in values.items():
        known = every[~np.isnan(every)]
        if not known.size:
            continue
        low, high = float(known.min()), float(known.max())
        found |= {
            f"{name}_mean_s": min(max(float(known.mean()), low), high),
            f"{name}_min_s": low,
            f"{name}_max_s": high,
        }
        ranks = np.percentile(known, list(_PERCENTILES.values()))
        found |= {
            f"{name}_{label}_s": float(value)
            for label, value in zip(_PERCENTILES, ranks, strict=True)
        }
    return found
