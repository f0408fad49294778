"""A simulated run over time, as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import write_atomic
from trainables.serving._timeline_instances import PANELS, draw_instances, rows_height
from trainables.serving._timeline_numbers import Numbers, Timeline, timeline
from trainables.simulation import Simulated

_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
"""Colours of Okabe and Ito, which stay apart for all kinds of colour vision."""
_SIZE = (11.0, 11.5)
_INCHES = 1.8
"""Of a panel of height 1."""


def write_pictures(
    simulated: Simulated,
    title: str,
    limits: Mapping[str, float],
    files: Sequence[Path],
) -> None:
    """Draw a run: requests, KV cache, tokens per second, and the latencies of its requests.

    Of several instances, each has a row in the panels of what is in an instance.

    Args:
        limits: Bounds of the objective by metric, such as ``ttft_p90_s``; those on TTFT and TPOT
            are drawn.
        files: Where to, each in the format that its ending says.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    course = timeline(simulated)
    several = len(simulated.instances) > 1
    count = len(PANELS) if several else 2
    inside = [rows_height(len(simulated.instances))] * count if several else [1.25, 0.9]
    size = (_SIZE[0], _SIZE[1] + (sum(inside) - 2.15) * _INCHES)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(count + 4, 1, sharex=True, height_ratios=[*inside, 0.9, 0.9, 1.1, 1.1])
    figure.suptitle(title, fontsize=13)
    if several:
        draw_instances(figure, axes[:count], simulated, course.edges[-1])
    else:
        _draw_requests(axes[0], course)
        _draw_cache(axes[1], course)
    _draw_rates(axes[count : count + 2], course)
    _draw_latencies(axes[count + 2 :], simulated, limits)
    axes[-1].set_xlabel("seconds since the first request (virtual time)")
    axes[-1].set_xlim(0, course.edges[-1])
    for each in axes[count if several else 0 :]:
        each.grid(visible=True, alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
        each.yaxis.set_label_coords(-0.065, 0.5)
    for file in files:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=file.suffix.lstrip("."), dpi=130)
        write_atomic(file, buffer.getvalue())


def _draw_requests(axes: Any, course: Timeline) -> None:
    stack = course.running + course.waiting
    axes.stairs(stack, course.edges, fill=True, color=_ORANGE, alpha=0.75, label="waiting")
    axes.stairs(course.running, course.edges, fill=True, color=_BLUE, alpha=0.85, label="running")
    axes.set_ylabel("requests")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _draw_cache(axes: Any, course: Timeline) -> None:
    axes.stairs(100 * course.kv_mean, course.edges, color=_PURPLE, linewidth=1.4, label="mean")
    axes.set_ylabel("KV cache\nin use (%)")
    top = 100 * float(course.kv_high.max(initial=0.0))
    axes.set_ylim(0, 105 if top > 50 else max(1.0, 1.25 * top))
    if top > 50:
        axes.axhline(100, color=_GREY, linewidth=0.8, linestyle=":")


def _draw_rates(axes: Sequence[Any], course: Timeline) -> None:
    _draw_rate(axes[0], course.coarse, course.prompt_rate, "prompt\ntokens/s", _BLUE)
    _draw_rate(axes[1], course.coarse, course.output_rate, "generated\ntokens/s", _GREEN)


def _draw_latencies(axes: Sequence[Any], simulated: Simulated, limits: Mapping[str, float]) -> None:
    sent = [one.sent for one in simulated.served]
    _draw_latency(axes[0], sent, [one.ttft for one in simulated.served], "TTFT", "ttft", limits)
    pairs = [(one.sent, one.tpot) for one in simulated.served if one.tpot is not None]
    times = [at for at, _ in pairs]
    _draw_latency(axes[1], times, [value for _, value in pairs], "TPOT", "tpot", limits)


def _draw_rate(axes: Any, edges: Numbers, values: Numbers, label: str, colour: str) -> None:
    axes.stairs(values, edges, fill=True, color=colour, alpha=0.7)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_thousands)


def _draw_latency(
    axes: Any,
    times: Sequence[float],
    values: Sequence[float],
    label: str,
    latency: str,
    limits: Mapping[str, float],
) -> None:
    """A point for each request, at the time at which it was sent."""
    most = max(values, default=1.0)
    unit, scale = ("ms", 1000.0) if most < 1 else ("s", 1.0)
    style = {"linestyle": "none", "marker": "o", "markersize": 2.5, "markeredgewidth": 0}
    points = [scale * value for value in values]
    axes.plot(times, points, color=_BLUE, alpha=_opacity(len(points)), rasterized=True, **style)
    axes.set_ylabel(f"{label} ({unit})\nby time sent")
    bounds = [(name, bound) for name, bound in limits.items() if name.startswith(f"{latency}_")]
    for name, bound in bounds:
        said = f"limit on its {name.split('_')[1]}: {bound * scale:g} {unit}"
        axes.axhline(bound * scale, color=_ORANGE, linewidth=1.2, linestyle="--", label=said)
    axes.set_ylim(
        0, scale * 1.08 * max([most, *(bound for _, bound in bounds if bound < 3 * most)])
    )
    if bounds:
        _legend(axes)


def _opacity(points: int) -> float:
    return max(0.15, min(0.8, 600 / max(1, points)))


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def _legend(axes: Any) -> None:
    axes.legend(loc="upper right", fontsize=8, framealpha=0.85)
