"""How far simulated TTFT and TPOT are from those of recorded runs of real engines.

    python -m benchmarks.simulation_error [FOLDER ...] [--workloads FOLDER] [--config CONFIG.json]
        [--json]

Without folders: all of ``../shared/data/vllm_profiles``. Simulated from the operator tables alone
(``latency: {type: operators}``): sizes and arrivals of the requests are the run's, nothing is
fitted to it. TTFT counts from when the client sent a request, on both sides, and percentiles are
interpolated linearly. ``--workloads`` has the files that the clients read their prompts from
(``workloads/`` of casys-kaist/LLMServingSim); without it, prompts share nothing in the simulation,
though some did in the runs, whose prefix caches were on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.recorded_runs import RecordedRun, folders
from trainables.simulation import simulate

_STATISTICS = ("mean", "p50", "p90", "p99")


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--config", type=Path, help="config.json of the model, if it is not known")
    parser.add_argument("--workloads", type=Path, help="folder with the runs' prompts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    config = json.loads(given.config.read_text()) if given.config else None
    runs = [RecordedRun(one, config, given.workloads) for one in given.folders or folders()]
    found = [compared(run) for run in runs]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    table = Table("run", "metric", *_STATISTICS, title="measured -> simulated (ms)")
    for one in found:
        for metric in ("ttft", "tpot"):
            cells = [_cell(one[metric][name]) for name in _STATISTICS]
            table.add_row(one["run"], metric.upper(), *cells)
    console = Console()
    console.print(table)
    for one in found:
        ends = f"duration {one['duration_s'][0]:.1f} -> {one['duration_s'][1]:.1f} s"
        cached = f"{one['cached_tokens']} prompt tokens in the prefix cache"
        console.print(f"{one['run']}: {ends}, {cached}, simulated in {one['wall_s']:.2f} s")


def compared(run: RecordedRun) -> dict[str, Any]:
    """Measured and simulated statistics of one run, in milliseconds, and their difference in
    percent of the measured."""
    instances, load = run.instances(), run.load()
    began = time.perf_counter()
    result = simulate(instances, load)
    wall = time.perf_counter() - began
    if result.refused:
        raise SystemExit(f"{run.folder}: {len(result.refused)} requests do not fit")
    ttft = np.array([one.ttft for one in result.served])
    tpot = np.array([one.tpot for one in result.served], dtype=np.float64)
    return {
        "run": run.folder.name,
        "ttft": _errors(run.ttft, ttft),
        "tpot": _errors(run.tpot, tpot),
        "duration_s": [
            float(run.on_clock("last_token_ts").max()),
            max(one.end for one in result.served),
        ],
        "cached_tokens": sum(one.cached_tokens for one in result.served),
        "preemptions": sum(one.preemptions for one in result.served),
        "iterations": sum(len(one.end) for one in result.instances.values()),
        "wall_s": wall,
    }


def _errors(
    measured: NDArray[np.float64], simulated: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    pairs = zip(_STATISTICS, _summary(measured), _summary(simulated), strict=True)
    return {
        name: {
            "measured_ms": real * 1e3,
            "simulated_ms": ours * 1e3,
            "error_percent": 100 * (ours / real - 1),
        }
        for name, real, ours in pairs
    }


def _summary(values: NDArray[np.float64]) -> list[float]:
    return [float(values.mean()), *(float(np.percentile(values, at)) for at in (50, 90, 99))]


def _cell(one: dict[str, float]) -> str:
    return f"{one['measured_ms']:.1f} -> {one['simulated_ms']:.1f} ({one['error_percent']:+.1f} %)"


if __name__ == "__main__":
    main()
