"""What pages are made of: sections of charts, tables, texts and commands. No markup in here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tuner.report._data import shown

Json: TypeAlias = Any
Tone: TypeAlias = Literal["", "good", "bad", "warn", "dim"]

COLOURS = {
    "satisfied": "#1b9e77",
    "measured": "#1b9e77",
    "not satisfied": "#e08214",
    "given up": "#8c96a3",
    "not judged": "#4c78c8",
    "failed": "#d64550",
    "failed elsewhere": "#e9a7ac",
    "cancelled": "#9a77bd",
    "running": "#4c78c8",
    "starting": "#e0a83a",
    "producing": "#9a77bd",
    "measuring": "#1b9e77",
    "waiting": "#c9d0d8",
    "idle": "#c9d0d8",
    "retry": "#d64550",
    "lost": "#d64550",
}
"""By meaning, the same in all charts; told apart by people who see no red and green too."""
SERIES = ("#4c78c8", "#e08214", "#1b9e77", "#d64550", "#9a77bd", "#8c6d5a", "#d874b6", "#7f8c99")
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: Of its exported files; unique on a page.
        note: How to read it.
        spec: Vega-Lite, without colours of page and axes.
        wide: It wants a line for itself.
    """

    name: str
    title: str
    spec: Mapping[str, Json]
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table; ``sort`` is what it is sorted by where that is not its text."""

    text: str
    tone: Tone = ""
    sort: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row. ``folded`` ones are opened by the reader."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Fact:
    """A number at the top of the page."""

    label: str
    value: str
    note: str = ""
    tone: Tone = ""


Block: TypeAlias = Chart | Table | Code | Text


@dataclass(frozen=True)
class Section:
    """A part of a page. Consecutive charts stand side by side where there is room."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        badge: The verdict in a word.
        headline: The verdict in a sentence.
    """

    title: str
    badge: str
    tone: Tone
    headline: str
    subtitle: str
    facts: Sequence[Fact] = ()
    notes: Sequence[Text] = ()
    sections: Sequence[Section] = field(default=())

    @property
    def charts(self) -> list[Chart]:
        return [
            block
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Chart)
        ]


def spec(
    values: Iterable[Mapping[str, Json]], *layers: Mapping[str, Json], height: int = 260
) -> dict[str, Json]:
    """A chart as wide as its place, of layers that share ``values``."""
    return {
        "$schema": _SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        "layer": list(layers),
    }


def axis(field_name: str, title: str, kind: str = "quantitative", **more: Json) -> dict[str, Json]:
    """An encoding channel of a position. A scale need not begin at zero."""
    scale = {"scale": {"zero": False, "nice": True}} if kind == "quantitative" else {}
    return {"field": field_name, "type": kind, "title": title, **scale, **more}


def colour(names: Iterable[str], title: str | None = None, key: str = "outcome") -> dict[str, Json]:
    """An encoding channel by meaning; only the meanings that come up are in the legend."""
    present = set(names)
    domain = [name for name in COLOURS if name in present]
    return {
        "field": key,
        "type": "nominal",
        "title": title,
        "scale": {"domain": domain, "range": [COLOURS[name] for name in domain]},
        "legend": {"orient": "top", "columns": 4, "symbolLimit": 0},
    }


def hints(*pairs: tuple[str, str]) -> list[dict[str, Json]]:
    """What is shown beside the pointer: (field, label) each; labels are ours, never a user's."""
    return [{"field": name, "title": label} for name, label in pairs]


def near(value: float, values: Iterable[float]) -> bool:
    """Whether a line at ``value`` would leave the points of a chart room to differ."""
    sizes = [abs(one) for one in values]
    return not sizes or not max(sizes) or min(sizes) / 3 <= abs(value) <= 3 * max(sizes)


def rule(
    value: float,
    label: str,
    along: Literal["x", "y"] = "y",
    *,
    left: bool = False,
    below: bool = False,
) -> list[dict[str, Json]]:
    """Layers of a dashed line at a value, with its name and the value at its end.

    Its name is at its right end and above it, or ``left`` and ``below``.
    """
    across = "x" if along == "y" else "y"
    mark = {"type": "rule", "strokeDash": [5, 4], "opacity": 0.8, "color": "#7f8c99"}
    place: dict[str, Json] = {along: {"datum": value, "type": "quantitative"}}
    text = {"type": "text", "align": "left" if left else "right", "fontSize": 11}
    text["dy"] = 8 if below else -6
    text["dx"] = 4 if left else -4
    end = "width" if along == "y" else "height"
    ends: dict[str, Json] = {across: {"value": 0 if left else end}}
    one: list[dict[str, Json]] = [{}]
    return [
        {"data": {"values": one}, "mark": mark, "encoding": place},
        {
            "data": {"values": one},
            "mark": {**text, "color": "#7f8c99", "text": f"{label} {shown(value)}"},
            "encoding": {**place, **ends},
        },
    ]
