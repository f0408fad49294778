"""A ranking as a picture: where in the model the sensitive layers are, and how steep it falls."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import write_atomic
from trainables.analysis._groups import block_number, fused_groups, short_name

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"
"""Colours of Okabe and Ito, which stay apart for all kinds of colour vision; the shapes say the
same again."""
_UNITS = {
    "mse": "mean squared output error",
    "fisher": "estimated KL divergence (nats per token)",
}
_NAMED = 8
"""Steps that are numbered in the map and named beside the curve."""


def write_picture(result: Mapping[str, Any], path: Path) -> None:
    """Draw an analysis result as PNG.

    Above, a heat map of the scores, decoder blocks by kinds of layers; below, the scores in the
    order of the ranking.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    points = _points(result["ranking"])
    kinds = sorted({kind for _, kind, _, _ in points}, reverse=True)
    blocks = [block for block, _, _, _ in points if block is not None]
    width = min(22.0, 5.5 + 0.24 * (max(blocks, default=0) + 1))
    figure = Figure(figsize=(width, 3.4 + 0.42 * len(kinds) + 3.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[0.9 + 0.42 * len(kinds), 3.6])
    figure.suptitle(_title(result), fontsize=12)
    _draw_map(figure, upper, points, kinds)
    _draw_curve(lower, points, kinds, str(result["metric"]))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomic(path, buffer.getvalue())


_Point = tuple[int | None, str, int, float]
"""Block number, kind of layers, step of the ranking from 1, score."""


def _points(ranking: Sequence[Mapping[str, Any]]) -> list[_Point]:
    return [
        (block_number(group), short_name(group), step, float(entry["score"]))
        for step, entry in enumerate(ranking, start=1)
        for group in fused_groups(entry["layers"])
    ]


def _title(result: Mapping[str, Any]) -> str:
    return f"Layer sensitivity: {result['metric']}, {result['scheme']}"


def _logarithmic(values: Sequence[float]) -> bool:
    """Whether scores spread so far that a linear scale would show the largest only."""
    return min(values) > 0 and max(values) / min(values) > 20


def _draw_map(figure: Any, axes: Any, points: Sequence[_Point], kinds: Sequence[str]) -> None:
    from matplotlib.colors import LogNorm, Normalize

    values = [score for _, _, _, score in points]
    norm = (LogNorm if _logarithmic(values) else Normalize)(min(values), max(values))
    blocks = max((block for block, _, _, _ in points if block is not None), default=0) + 1
    grid = [[math.nan] * blocks for _ in kinds]
    for block, kind, _, score in points:
        grid[kinds.index(kind)][block or 0] = score
    image = axes.imshow(grid, aspect="auto", cmap="cividis", norm=norm, interpolation="nearest")
    axes.set_yticks(range(len(kinds)), kinds)
    step = max(1, math.ceil(blocks / 32))
    axes.set_xticks(range(0, blocks, step))
    axes.set_xlabel("decoder block")
    for block, kind, rank, score in points:
        if rank <= _NAMED:
            colour = "black" if norm(score) > 0.55 else "white"
            place = (block or 0, kinds.index(kind))
            axes.annotate(str(rank), place, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, pad=0.01).set_label("score")


def _draw_curve(axes: Any, points: Sequence[_Point], kinds: Sequence[str], metric: str) -> None:
    for index, kind in enumerate(kinds):
        own = [(step, score) for _, other, step, score in points if other == kind]
        axes.plot(
            [step for step, _ in own],
            [score for _, score in own],
            linestyle="none",
            marker=_MARKERS[index % len(_MARKERS)],
            color=_COLOURS[index % len(_COLOURS)],
            markersize=5,
            label=kind,
        )
    if _logarithmic([score for _, _, _, score in points]):
        axes.set_yscale("log")
    worst = [
        f"{step}  {kind}" if block is None else f"{step}  block {block}, {kind}"
        for block, kind, step, _ in points[:_NAMED]
    ]
    frame = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    place = {"transform": axes.transAxes, "va": "top", "bbox": frame}
    axes.text(0.3, 0.96, "\n".join(["worst steps:", *worst]), fontsize=9, **place)
    axes.set_xlabel("step of the ranking (fallback takes from the left)")
    axes.set_ylabel(_UNITS.get(metric, metric))
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(loc="upper right", fontsize=9)
