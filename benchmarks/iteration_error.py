"""How far the latency model is from a recorded run's iterations that only decode.

    python -m benchmarks.iteration_error [FOLDER ...] [--config CONFIG.json]

A request that is never preempted gets one token in each iteration between its first and its last,
so the iterations between any two moments follow from what all requests of the run say together:
least squares over spans of a quarter of a second, with little weight on smoothness. What decodes,
and with which contexts, is known then as well, and the model is asked for just that batch: an error
here is the latency model's, not the scheduler's. Runs whose KV cache fills up are left out, for
their requests are preempted.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.recorded_runs import RecordedRun, folders
from trainables.simulation import Batch

_SPAN_S = 0.25
_LOOK_S = 0.5
_SMOOTHNESS = 0.3
_FULL_PERCENT = 95.0


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--config", type=Path, help="config.json of the model, if it is not known")
    given = parser.parse_args()
    config = json.loads(given.config.read_text()) if given.config else None
    for folder in given.folders or folders():
        run = RecordedRun(folder, config)
        if _fills_up(folder):
            print(f"{folder.name}: its KV cache fills up; left out")
            continue
        table = Table("decoding", "looks", "measured ms", "model ms", "error", title=folder.name)
        for upper, pairs in sorted(compared(run).items()):
            real, ours = (median(column) for column in zip(*pairs, strict=True))
            error = median(model / measured - 1 for measured, model in pairs)
            cells = [f"{1e3 * real:.2f}", f"{1e3 * ours:.2f}", f"{100 * error:+.1f} %"]
            table.add_row(f"{upper // 2 + 1} to {upper}", str(len(pairs)), *cells)
        Console().print(table)


def compared(run: RecordedRun) -> dict[int, list[tuple[float, float]]]:
    """Seconds of iterations, measured and modelled, by the next power of two of what decodes."""
    first, last = run.on_clock("first_token_ts"), run.on_clock("last_token_ts")
    prompts, answers = run.sizes
    edges, counts = iterations(first, last, answers)
    begun = run.on_clock("scheduled_ts")
    model = run.instances()[0].latency
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for at in np.arange(_LOOK_S, last.max() - _LOOK_S, _LOOK_S):
        if np.any((begun < at + _LOOK_S) & (first > at - _LOOK_S)):
            continue
        decodes = (first <= at) & (last > at)
        if not decodes.any():
            continue
        grown = np.interp(at, edges, counts) - np.interp(first[decodes], edges, counts)
        contexts = np.round(prompts[decodes] + np.maximum(grown, 0)).astype(int)
        batch = Batch(
            (), len(contexts), int(contexts.sum()), int(contexts.max()), int(contexts.min())
        )
        passed = np.interp([at - _LOOK_S, at + _LOOK_S], edges, counts)
        measured = 2 * _LOOK_S / float(passed[1] - passed[0])
        upper = 1 << (len(contexts) - 1).bit_length()
        found[upper].append((measured, model.seconds(batch)))
    return found


def iterations(
    first: NDArray[np.float64], last: NDArray[np.float64], answers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moments, and how many iterations had passed until each.

    Args:
        first, last: Seconds at which each request had its first and its last token.
        answers: Their tokens.
    """
    edges = np.arange(0, last.max() + _SPAN_S, _SPAN_S)
    shares = np.clip(
        (np.minimum(edges[1:], last[:, None]) - np.maximum(edges[:-1], first[:, None])) / _SPAN_S,
        0,
        1,
    )
    bends = _SMOOTHNESS * np.diff(np.eye(len(edges) - 1), 2, axis=0)
    wanted = np.concatenate([answers - 1, np.zeros(len(bends))])
    per_span = np.linalg.lstsq(np.vstack([shares, bends]), wanted, rcond=None)[0]
    return edges, np.concatenate([[0.0], np.cumsum(per_span)])


def _fills_up(folder: Path) -> bool:
    with (folder / "run" / "timeseries.csv").open() as stream:
        return any(float(row["kv_cache_pct"]) > _FULL_PERCENT for row in csv.DictReader(stream))


if __name__ == "__main__":
    main()
