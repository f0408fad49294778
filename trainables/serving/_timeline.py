"""A simulated run over time, as numbers and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster import write_atomic
from trainables.simulation import Iterations, Simulated

_Numbers = NDArray[np.float64]
_BINS, _COARSE = 600, 120
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
"""Colours of Okabe and Ito, which stay apart for all kinds of colour vision."""
_SIZE = (11.0, 11.5)


@dataclass(frozen=True)
class Timeline:
    """What all instances did, in equal bins of time.

    Attributes:
        edges: Seconds after the start, shape (bins + 1,).
        coarse: The same for rates, which would be spikes in fine bins.
        running, waiting: Sequences admitted and queued, mean of each bin, all instances.
        kv_mean, kv_low, kv_high: Share of the blocks in use, over the instances.
        prompt_rate, output_rate: Prompt tokens computed and tokens generated per second.
    """

    edges: _Numbers
    coarse: _Numbers
    running: _Numbers
    waiting: _Numbers
    kv_mean: _Numbers
    kv_low: _Numbers
    kv_high: _Numbers
    prompt_rate: _Numbers
    output_rate: _Numbers


def timeline(simulated: Simulated, bins: int = _BINS) -> Timeline:
    """The course of a run. Time without an iteration counts as nothing running."""
    end = max((one.end for one in simulated.served), default=0.0)
    edges = np.linspace(0.0, max(end, 1e-9), bins + 1)
    coarse = edges[:: max(1, bins // _COARSE)]
    instances = list(simulated.instances.items())
    shares = np.array(
        [_mean(one, one.kv_blocks, edges) / simulated.capacity[name] for name, one in instances]
    )

    def total(name: str) -> _Numbers:
        return _sum([_mean(one, getattr(one, name), edges) for _, one in instances])

    def rate(name: str) -> _Numbers:
        return _sum([_rate(one, getattr(one, name), coarse) for _, one in instances])

    return Timeline(
        edges,
        coarse,
        total("running"),
        total("waiting"),
        shares.mean(axis=0),
        shares.min(axis=0),
        shares.max(axis=0),
        rate("prefill_tokens"),
        rate("decodes"),
    )


def _sum(series: Sequence[_Numbers]) -> _Numbers:
    found: _Numbers = np.sum(series, axis=0)
    return found


def _mean(one: Iterations, values: NDArray[np.int64], edges: _Numbers) -> _Numbers:
    """Mean over time of what holds while an iteration lasts."""
    return _integral(one, values * (one.end - one.start), edges) / np.diff(edges)


def _rate(one: Iterations, values: NDArray[np.int64], edges: _Numbers) -> _Numbers:
    """How much per second, where an iteration's share is spread over its duration."""
    return _integral(one, values.astype(np.float64), edges) / np.diff(edges)


def _integral(one: Iterations, amounts: _Numbers, edges: _Numbers) -> _Numbers:
    """What of the amounts of the iterations falls into each bin."""
    if not len(one.start):
        return np.zeros(len(edges) - 1)
    sums = np.concatenate(([0.0], np.cumsum(amounts)))
    times = np.maximum.accumulate(np.column_stack((one.start, one.end)).ravel())
    until = np.column_stack((sums[:-1], sums[1:])).ravel()
    return np.diff(np.interp(edges, times, until))


def write_pictures(
    simulated: Simulated,
    title: str,
    limits: Mapping[str, float],
    files: Sequence[Path],
) -> None:
    """Draw a run: requests, KV cache, tokens per second, and the latencies of its requests.

    Args:
        limits: Bounds of the objective by metric, such as ``ttft_p90_s``; those on TTFT and TPOT
            are drawn.
        files: Where to, each in the format that its ending says.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained", facecolor="white")
    axes = figure.subplots(6, 1, sharex=True, height_ratios=[1.25, 0.9, 0.9, 0.9, 1.1, 1.1])
    figure.suptitle(title, fontsize=13)
    course = timeline(simulated)
    _draw_requests(axes[0], course)
    _draw_cache(axes[1], course, len(simulated.instances))
    _draw_rate(axes[2], course.coarse, course.prompt_rate, "prompt\ntokens/s", _BLUE)
    _draw_rate(axes[3], course.coarse, course.output_rate, "generated\ntokens/s", _GREEN)
    sent = [one.sent for one in simulated.served]
    _draw_latency(axes[4], sent, [one.ttft for one in simulated.served], "TTFT", "ttft", limits)
    pairs = [(one.sent, one.tpot) for one in simulated.served if one.tpot is not None]
    times = [at for at, _ in pairs]
    _draw_latency(axes[5], times, [value for _, value in pairs], "TPOT", "tpot", limits)
    axes[5].set_xlabel("seconds since the first request (virtual time)")
    axes[5].set_xlim(0, course.edges[-1])
    for each in axes:
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


def _draw_cache(axes: Any, course: Timeline, instances: int) -> None:
    if instances > 1:
        axes.stairs(
            100 * course.kv_high,
            course.edges,
            baseline=100 * course.kv_low,
            fill=True,
            color=_PURPLE,
            alpha=0.35,
            label=f"range over {instances} instances",
        )
    axes.stairs(100 * course.kv_mean, course.edges, color=_PURPLE, linewidth=1.4, label="mean")
    axes.set_ylabel("KV cache\nin use (%)")
    top = 100 * float(course.kv_high.max(initial=0.0))
    axes.set_ylim(0, 105 if top > 50 else max(1.0, 1.25 * top))
    if top > 50:
        axes.axhline(100, color=_GREY, linewidth=0.8, linestyle=":")
    if instances > 1:
        axes.legend(loc="lower center", ncols=2, fontsize=8, framealpha=0.85)


def _draw_rate(axes: Any, edges: _Numbers, values: _Numbers, label: str, colour: str) -> None:
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
