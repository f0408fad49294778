"""Panels of a simulated run with a row for each instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from trainables.serving._timeline_numbers import Numbers, mean
from trainables.simulation import Iterations, Simulated

_BINS = 300
_MOST_NAMED = 24
"""Instances whose names fit beside their rows; of more, some are named."""


class _Panel(NamedTuple):
    title: str
    colours: str


PANELS = (
    _Panel("time at work (%)", "Greys"),
    _Panel("requests, running and waiting", "Blues"),
    _Panel("KV cache in use (%)", "Purples"),
)


def rows_height(instances: int) -> float:
    """Height of a panel with so many rows, where 1 is that of a curve."""
    return min(2.6, max(0.6, 0.13 * instances))


def draw_instances(figure: Any, axes: Sequence[Any], simulated: Simulated, end: float) -> None:
    """Draw the panels, one on each of ``axes``, from 0 to ``end`` seconds."""
    edges = np.linspace(0.0, end, _BINS + 1)
    names = list(simulated.instances)
    series = [
        _rows(one, simulated.capacity[name], edges) for name, one in simulated.instances.items()
    ]
    for number, (each, panel) in enumerate(zip(axes, PANELS, strict=True)):
        values = np.array([rows[number] for rows in series])
        drawn = each.pcolormesh(
            edges,
            np.arange(len(names) + 1),
            values,
            cmap=panel.colours,
            vmin=0.0,
            vmax=max(1.0, float(values.max())),
            rasterized=True,
        )
        figure.colorbar(drawn, ax=each, pad=0.01, aspect=8)
        each.set_title(panel.title, fontsize=9, loc="left")
        each.invert_yaxis()
        step = -(-len(names) // _MOST_NAMED)
        each.set_yticks(np.arange(len(names))[::step] + 0.5, names[::step], fontsize=7)


def _rows(one: Iterations, blocks: int, edges: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """What each panel shows of an instance."""
    busy = mean(one, np.ones_like(one.running), edges)
    return (
        100 * busy,
        mean(one, one.running + one.waiting, edges),
        100 * mean(one, one.kv_blocks, edges) / blocks,
    )
