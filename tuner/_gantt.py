"""Which trial ran where, from a run's event log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_DEVICES = ("NPU", "GPU", "CPU")
_ENDS = frozenset({"measured", "failed", "retry", "cancelled"})
_LABELLED_S = 0.02
"""Share of the run from which a bar is wide enough for a number."""


@dataclass(frozen=True)
class Bar:
    """One attempt at a trial on its node.

    Attributes:
        number: Of its proposal.
        kind: Of the trial.
        node: Ray's id of the node of its first bundle; ``address`` is for people.
        devices: NPUs, else GPUs, else CPUs, of all its bundles.
        begun, ended: Seconds since the epoch.
        status: What ended it.
        part: What of it is on this node, such as ``decode``; empty: all of it.
    """

    number: int
    kind: str
    node: str
    address: str
    devices: float
    begun: float
    ended: float
    status: str
    part: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


def read_bars(file: Path) -> list[Bar]:
    """The attempts in an ``events.jsonl``, as they began; without those that never ended."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return bars(json.loads(line) for line in lines if line.endswith("}"))


def bars(events: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """The attempts among the events of a run."""
    found: list[Bar] = []
    begun: dict[str, Mapping[str, Any]] = {}
    for event in events:
        trial = event.get("trial")
        if trial is None:
            continue
        if event["event"] == "begun":
            begun[trial] = event
        elif event["event"] in _ENDS and trial in begun:
            first = begun.pop(trial)
            resources = first.get("resources", {})
            name = next((name for name in _DEVICES if resources.get(name)), "CPU")
            found.append(
                Bar(
                    event["number"],
                    event["kind"],
                    first["node"],
                    first.get("address") or first["node"][:8],
                    float(resources.get(name, 0.0)),
                    first["ts"],
                    event["ts"],
                    event["event"],
                )
            )
    return sorted(found, key=lambda bar: bar.begun)


def spread(bar: Bar, places: Mapping[tuple[str, str], float]) -> list[Bar]:
    """A bar for each of the ``places`` of its trial: devices by address and part; the same bar
    where there are none."""
    return [
        replace(bar, node=address, address=address, part=part, devices=devices)
        for (address, part), devices in places.items()
    ] or [bar]


def utilisation(found: Sequence[Bar], devices: float) -> float:
    """Share of the time from the first beginning to the last end that ``devices`` were held."""
    if not found or devices <= 0:
        return 0.0
    span = max(bar.ended for bar in found) - min(bar.begun for bar in found)
    return sum(bar.devices * bar.seconds for bar in found) / (devices * span) if span else 0.0


def lanes(found: Sequence[Bar]) -> list[float]:
    """For each bar the lowest place in its node's column of devices that is free all the time.

    Bars that overlap in time on a node never overlap in their places.
    """
    placed: list[float] = []
    for number, bar in enumerate(found):
        taken = sorted(
            (placed[other], placed[other] + found[other].devices)
            for other in range(number)
            if found[other].node == bar.node and found[other].ended > bar.begun
        )
        place = 0.0
        for low, high in taken:
            if place + bar.devices <= low:
                break
            place = max(place, high)
        placed.append(place)
    return placed


def draw(found: Sequence[Bar], file: Path, *, title: str = "") -> None:
    """A picture of the bars, one band for each node; its suffix says the format, svg or png.

    Needs matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = lanes(found)
    heights: dict[str, float] = {}
    for bar, place in zip(found, places, strict=True):
        heights[bar.node] = max(heights.get(bar.node, 0.0), place + bar.devices)
    names = {bar.node: bar.address for bar in found}
    order = sorted(heights, key=lambda node: [part.zfill(3) for part in names[node].split(".")])
    bases, top = {}, 0.0
    for node in order:
        bases[node] = top
        top += heights[node] + 1.0
    start = min((bar.begun for bar in found), default=0.0)
    span = max((bar.ended for bar in found), default=1.0) - start
    sizes = sorted({bar.devices for bar in found})
    shades = pyplot.get_cmap("viridis")
    colours = {size: shades(index / max(1, len(sizes))) for index, size in enumerate(sizes)}
    figure, axes = pyplot.subplots(figsize=(11, max(2.0, 1.2 + 0.18 * top)))
    for bar, place in zip(found, places, strict=True):
        low, failed = bases[bar.node] + place, bar.status in ("failed", "retry")
        axes.broken_barh(
            [(bar.begun - start, bar.seconds)],
            (low, bar.devices),
            facecolors=colours[bar.devices],
            edgecolor="red" if failed else "white",
            hatch="//" if failed else None,
        )
        if bar.seconds > _LABELLED_S * span:
            middle = bar.begun - start + bar.seconds / 2, low + bar.devices / 2
            axes.text(*middle, f"#{bar.number}", ha="center", va="center", size=7, color="white")
    axes.set_yticks([bases[node] + heights[node] / 2 for node in order], [names[n] for n in order])
    axes.set_xlabel("seconds")
    axes.set_title(title)
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, color=colours[size], label=f"{size:g}") for size in sizes
    ]
    axes.legend(handles=handles, title="devices", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
