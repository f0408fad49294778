"""How well operator tables are interpolated: points are left out and predicted from the others.

For each axis of the attention table every inner value is left out once, and predicted from its two
neighbours with the axis on several scales: its own values (``linear``), their logarithms (``log``),
and, for the prefill chunk, the work of a chunk (``work``, what ``latency: {type: operators}``
uses). Leaving out doubles the distance between points, so that errors in use are smaller. The
same for dense and per-sequence operators, and these also from the ends of windows of one tile, on a
line and as a step to the window's end (``tile``). Prints JSON: median and 90th percentile of the
absolute relative error, and the mean of the relative one.

    python benchmarks/operator_interpolation.py [FOLDER ...]

A folder holds ``tp<N>/attention.csv``; by default those of ``../shared/data`` (or ``$TUNER_DATA``).
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from trainables.latency._operators_attention import work
from trainables.latency._operators_curve import TILE, measured_curve
from trainables.latency._operators_tables import Tables, degrees, read_tables

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TUNER_DATA", ROOT.parent / "shared" / "data"))
AXES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
Point = tuple[int, int, int, int]
Scale = Callable[[Point, int], float]
SCALES: Mapping[str, Scale] = {
    "linear": lambda point, axis: float(point[axis]),
    "log": lambda point, axis: math.log2(point[axis]) if point[axis] else 0.0,
    "work": lambda point, axis: work(point[0], point[1]),
}


def left_out(points: Mapping[Point, float], axis: int, scale: Scale, mixed: bool) -> list[float]:
    """Relative errors of all inner points along an axis."""
    lines: dict[Point, list[Point]] = defaultdict(list)
    for point in points:
        if point[axis] and bool(point[0] and point[2]) == mixed:
            lines[*point[:axis], -1, *point[axis + 1 :]].append(point)  # type: ignore[index]
    errors = []
    for line in lines.values():
        line.sort()
        for before, point, after in zip(line, line[1:], line[2:], strict=False):
            x0, x, x1 = (scale(one, axis) for one in (before, point, after))
            share = (x - x0) / (x1 - x0)
            guess = points[before] + (points[after] - points[before]) * share
            errors.append(guess / points[point] - 1)
    return errors


def summary(errors: Iterable[float]) -> dict[str, float]:
    values = np.array(list(errors))
    return {
        "points": values.size,
        "median": round(float(np.median(abs(values))), 4),
        "p90": round(float(np.quantile(abs(values), 0.9)), 4),
        "mean": round(float(values.mean()), 4),
    }


def attention(tables: Tables) -> dict[str, object]:
    found: dict[str, object] = {}
    for axis, name in enumerate(AXES):
        for mixed in (False, True):
            for scale_name, scale in SCALES.items():
                if scale_name == "work" and axis:
                    continue
                errors = left_out(tables.attention, axis, scale, mixed)
                if errors:
                    kind = "mixed" if mixed else "alone"
                    found[f"{name} {kind} {scale_name}"] = summary(errors)
    return found


def lines(operators: Mapping[str, Mapping[float, float]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, line in operators.items():
        points = {(int(x), 0, 0, 0): time for x, time in line.items()}
        for scale in ("linear", "log"):
            errors = left_out(points, 0, SCALES[scale], mixed=False)
            if errors:
                found[f"{name} {scale}"] = summary(errors)
        on_line, step = tiles(line)
        if step:
            found[f"{name} tile linear"] = summary(on_line)
            found[f"{name} tile step"] = summary(step)
            found[f"{name} used"] = "step" if measured_curve(line).stepped else "linear"
    return found


def tiles(line: Mapping[float, float]) -> tuple[list[float], list[float]]:
    """Relative errors of points inside of windows of a tile, on a line and as a step."""
    on_line, step = [], []
    for x, time in line.items():
        low = x // TILE * TILE
        high = low + TILE
        if low < x and low in line and high in line:
            guess = line[low] + (line[high] - line[low]) * (x - low) / TILE
            on_line.append(guess / time - 1)
            step.append(line[high] / time - 1)
    return on_line, step


def main() -> None:
    default = sorted(DATA.glob("vllm_profiles/*/ops"))
    folders = [Path(name) for name in sys.argv[1:]] or default
    if not folders:
        print(f"no tables: {DATA / 'vllm_profiles'} is not there; set TUNER_DATA", file=sys.stderr)
        raise SystemExit(2)
    report: dict[str, object] = {}
    for folder in folders:
        for degree in degrees(folder):
            tables = read_tables(folder / f"tp{degree}")
            report[f"{folder.parent.name if folder.name == 'ops' else folder.name} tp{degree}"] = {
                "attention": attention(tables),
                "dense": lines(tables.dense),
                "per_sequence": lines(tables.per_sequence),
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
