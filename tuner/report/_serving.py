"""What is special about serving: the load that the winner bears, and its splits of devices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tuner.report._answer import limits_of
from tuner.report._data import Json, RunData, parameters_text, shortened, shown
from tuner.report._parts import (
    COLOURS,
    Block,
    Cell,
    Chart,
    Table,
    axis,
    colour,
    hints,
    near,
    rule,
    spec,
)

_LATENCY = ("ttft", "tpot")
_MOST_SPLITS = 30
_MOST_SAID = 80
_INSTANCES = re.compile(r"(?P<count>\d+) x (?P<shape>\S+) (?P<role>prefill|decode|mixed)")
_ROLES = {"prefill": "P", "decode": "D", "mixed": " mixed"}


def load_charts(run: RunData) -> list[Chart]:
    """Latency of the winner's engine over the load, as its search for the load has measured it."""
    own = [one for one in run.candidates if dict(one.parameters) == dict(run.best or {})]
    trials = [one for one in [*own, run.winner()] if one is not None]
    runs = [
        one
        for trial in trials
        for one in trial.data.get("runs") or ()
        if isinstance(one, dict) and isinstance(one.get("metrics"), dict)
    ]
    key = "request_rate" if any(one.get("request_rate") for one in runs) else "concurrency"
    title = "requests/s offered" if key == "request_rate" else "concurrent requests"
    runs = [one for one in runs if one.get(key)]
    if len({one[key] for one in runs}) < 3:
        return []
    return [chart for kind in _LATENCY for chart in _load_chart(run, runs, kind, key, title)]


def _load_chart(
    run: RunData, runs: Sequence[Mapping[str, Json]], kind: str, key: str, title: str
) -> list[Chart]:
    limits = limits_of(run)
    named = [name for name in limits if name.startswith(kind)]
    metric = next(iter(named), f"{kind}_mean_s")
    rows = [
        {
            "x": one[key],
            "y": one["metrics"][metric],
            "name": one.get("stage", ""),
            "outcome": "given up" if one.get("ended") else "measured",
            "ended": str(one.get("ended") or "no"),
        }
        for one in runs
        if metric in one["metrics"]
    ]
    if not rows:
        return []
    values = [row["y"] for row in rows]
    held = metric in limits and near(limits[metric][0], values)
    lines = rule(limits[metric][0], "limit") if held else []
    least_step = 1 if key == "concurrency" else 0
    x, y = axis("x", title, axis={"tickMinStep": least_step}), axis("y", metric)
    about = hints(("name", "run"), ("x", title), ("y", "seconds"), ("ended", "ended early"))
    marks: list[Mapping[str, Json]] = [
        {
            "transform": [{"filter": {"field": "outcome", "equal": "measured"}}],
            "mark": {"type": "line", "color": COLOURS["measuring"], "opacity": 0.5},
            "encoding": {"x": x, "y": y | {"aggregate": "mean"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.9},
            "encoding": {
                "x": x,
                "y": y,
                "color": colour([row["outcome"] for row in rows]),
                "tooltip": about,
            },
        },
    ]
    note = "The winner at each load that was tried."
    if any(row["outcome"] == "given up" for row in rows):
        note += " Runs that were given up broke a limit before their end."
    return [Chart(f"load-{kind}", f"{metric} over the load", spec(rows, *marks, *lines), note)]


def split_blocks(run: RunData) -> list[Block]:
    """Rates of single instances, and splits by what they did and by what their rates promise."""
    account = run.account
    instances = account.get("instances") or account.get("rates") or []
    splits = account.get("splits") or []
    found: list[Block] = []
    if splits:
        found += _split_charts(splits[:_MOST_SPLITS])
        found.append(_split_table(splits[:_MOST_SPLITS]))
    if instances:
        found.append(_instance_table(instances))
    return found


def _split_charts(splits: Sequence[Mapping[str, Json]]) -> list[Chart]:
    rows = []
    for split in splits:
        for key, label in (("matched", "matched"), ("expected", "expected")):
            if (value := split.get(key)) is not None:
                rows.append({"split": _brief(split), "of": label, "rate": value})
        if (value := _measured(split)) is not None:
            rows.append({"split": _brief(split), "of": "measured", "rate": value})
    if not rows:
        return []
    order = list(dict.fromkeys(row["split"] for row in rows))
    names = [
        name for name in ("matched", "expected", "measured") if any(r["of"] == name for r in rows)
    ]
    colours = {"matched": "#b9c3ce", "expected": "#8fa8d6", "measured": COLOURS["satisfied"]}
    bar = {
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": {
                "field": "split",
                "type": "nominal",
                "sort": order,
                "title": None,
                "axis": {"labelLimit": 240},
            },
            "yOffset": {"field": "of", "sort": names},
            "x": {"field": "rate", "type": "quantitative", "title": "requests/s"},
            "color": {
                "field": "of",
                "type": "nominal",
                "title": None,
                "sort": names,
                "scale": {"domain": names, "range": [colours[name] for name in names]},
                "legend": {"orient": "top", "columns": 3},
            },
            "tooltip": hints(("split", "split"), ("of", "rate"), ("rate", "requests/s")),
        },
    }
    height = max(80, 14 * len(names) * len(order))
    note = "Matched: the slower of prefill and decode, from single instances measured alone."
    return [Chart("splits", "Splits of the devices", spec(rows, bar, height=height), note)]


def _brief(split: Mapping[str, Json]) -> str:
    """``4P tp2 + 2D tp4`` of ``4 x tp2 prefill + 2 x tp4 decode``, as wide as a phone permits."""
    return _INSTANCES.sub(
        lambda one: f"{one['count']}{_ROLES[one['role']]} {one['shape']}", str(split["split"])
    )


def _split_table(splits: Sequence[Mapping[str, Json]]) -> Table:
    rows = []
    for split in splits:
        rates = [split.get("matched"), split.get("expected"), _measured(split)]
        rows.append(
            [
                Cell(str(split["split"])),
                Cell(shown(split.get("devices"))),
                *(Cell(shown(rate), sort=rate) for rate in rates),
                _came_of(split),
            ]
        )
    return Table(["split", "devices", "matched /s", "expected /s", "measured /s", ""], rows)


def _came_of(split: Mapping[str, Json]) -> Cell:
    if split.get("failure"):
        return Cell(shortened(f"failed: {split['failure']}", _MOST_SAID), "bad")
    if _measured(split) is None and (most := split.get("at_most")) is not None:
        return Cell(f"given up: at most {shown(most)}", "dim")
    if split.get("satisfied") is None:
        return Cell("not measured" if _measured(split) is None else "", "dim")
    if split["satisfied"]:
        return Cell("keeps the limits", "good")
    return Cell("breaks the limits", "bad")


def _instance_table(instances: Sequence[Mapping[str, Json]]) -> Table:
    rows = [
        [
            Cell(f"{one.get('role', '')} {one.get('shape', '')}".strip()),
            Cell(shown(one.get("devices"))),
            Cell(shown(one.get("requests_per_s")), sort=one.get("requests_per_s")),
            Cell(parameters_text(one.get("parameters") or {})),
            Cell(shortened(str(one.get("failure") or ""), _MOST_SAID), "bad"),
        ]
        for one in instances
    ]
    heads = ["instance", "devices", "requests/s", "parameters", ""]
    return Table(heads, rows, "One instance alone, by role and shape.")


def _measured(split: Mapping[str, Json]) -> float | None:
    value = split.get("requests_per_s", split.get("measured"))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
