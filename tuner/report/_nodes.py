"""The nodes of a run: which trial ran where, how busy each was, and which were spared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tuner._gantt import Bar, lanes, spread, utilisation
from tuner._words import counted
from tuner.report._data import (
    Attempt,
    Json,
    RunData,
    Trial,
    device_unit,
    shown,
    time_unit,
    took,
)
from tuner.report._parts import COLOURS, Block, Cell, Chart, Table, Text, Tone, hints, spec

_MOST_BARS = 1000
_MOST_ROWS = 1000
_ELSEWHERE = "failed elsewhere"
_GAP = 0.35
"""Between the bands of two nodes, in parts of the thinnest bar."""
_HIGHEST = 900
_LABEL_HEIGHT = 14
_TEXT = (8, 11)
"""Width and height, in pixels, of a digit."""
_PARTS = {"prefill": "#4c78c8", "decode": "#1b9e77", "mixed": "#8c6d5a", "running": "#9aa7b5"}
"""Roles of instances, and what runs without it being known where its instances are; all else has
the colour of what came of the trial."""


def on_nodes(run: RunData) -> bool:
    """Whether the run has more to tell of nodes than that there was one."""
    return len({bar.node for bar in node_bars(run)}) > 1 or bool(_excluded(run) or run.node_events)


def node_blocks(run: RunData) -> list[Block]:
    """A Gantt chart of the nodes, how busy each was, which were excluded, what came and went."""
    if not on_nodes(run):
        return []
    bars = node_bars(run)
    found: list[Block] = [Text(_summary(run, bars))]
    if bars:
        found.append(_gantt(run, bars))
    found.append(_table(run, bars))
    if run.node_events:
        found.append(_came_and_went(run))
    if bars:
        found.append(_whereabouts(run))
    return found


def devices_of(attempt: Attempt, trial: Trial | None) -> float:
    """What an attempt held on all its nodes together."""
    if attempt.devices is not None:
        return attempt.devices
    return 1.0 if trial is None else trial.devices


def node_bars(run: RunData) -> list[Bar]:
    """A bar for each attempt on each node that is known to have held a part of it.

    Where all instances of a failed trial were may not be known; then its bar is on the node where
    it failed, else on that of its first bundle, and holds no devices there.
    """
    trials = {trial.identity: trial for trial in run.trials}
    bars: list[Bar] = []
    for attempt in run.attempts:
        if attempt.started is None or not attempt.address:
            continue
        trial = trials.get(attempt.identity)
        places = _places_of(attempt, trial)
        known = bool(places) or run.trial_type != "disaggregated"
        at, became = _stood(attempt), _became(attempt, trial)
        bar = Bar(
            attempt.number,
            attempt.kind,
            at,
            at,
            devices_of(attempt, trial) if known else 0.0,
            attempt.started,
            attempt.ended,
            became,
        )
        found = spread(bar, places)
        if became == "failed" and at in {one.node for one in found}:
            found = [one if one.node == at else replace(one, status=_ELSEWHERE) for one in found]
        bars += found
    return bars


def _places_of(attempt: Attempt, trial: Trial | None) -> dict[tuple[str, str], float]:
    """Devices by address and role; what was measured tells most."""
    if attempt.status == "measured" and trial is not None and (places := _places(trial)):
        return places
    return {(address, ""): devices for address, devices in attempt.places.items()}


def _stood(attempt: Attempt) -> str:
    """The node of an attempt whose instances are not known one by one."""
    return str((attempt.failure or {}).get("node") or attempt.address)


def _places(trial: Trial) -> dict[tuple[str, str], float]:
    """Devices of a trial's instances, by address and role."""
    found: dict[tuple[str, str], float] = {}
    for name, one in trial.instances.items():
        place = str(one["node"]), name.rpartition("-")[0] or name
        found[place] = found.get(place, 0.0) + float(one.get("devices") or 1.0)
    return found


def _became(attempt: Attempt, trial: Trial | None) -> str:
    if attempt.status == "measured" and trial is not None:
        return trial.outcome
    return "failed" if attempt.status in ("retry", "lost") else attempt.status


def _excluded(run: RunData) -> list[Mapping[str, Json]]:
    nodes = run.status.get("nodes")
    return list(nodes.get("excluded") or ()) if isinstance(nodes, dict) else []


def _summary(run: RunData, bars: Sequence[Bar]) -> str:
    nodes = run.status.get("nodes") or {}
    used = len({bar.node for bar in bars})
    said = f"Trials ran on {counted(used, 'node')}."
    if nodes.get("living"):
        said += (
            f" At last the cluster had {counted(nodes['living'], 'node')}, with room for "
            f"{counted(nodes['width'], 'trial')} at once."
        )
    most = sum(_most(bars, node) for node in {bar.node for bar in bars})
    if most:
        share = 100 * utilisation(bars, most)
        said += f" {share:.0f} % of the {run.resource} time of these nodes was held by trials."
    return said


def _gantt(run: RunData, bars: Sequence[Bar]) -> Chart:
    shown = list(bars[-_MOST_BARS:])
    start, (unit, unit_name) = run.begun or 0.0, time_unit(run.span)
    least = min((bar.devices for bar in shown if bar.devices), default=1.0)
    # What held nothing that is known is drawn as thin as any.
    drawn = [replace(bar, devices=bar.devices or least) for bar in shown]
    lows = lanes(drawn)
    bases, centres, top = _bands(drawn, lows, _GAP * least)
    height = min(_HIGHEST, max(90, round(40 + 18 * top / least)))
    rows = [
        {
            "from": (bar.begun - start) / unit,
            "to": (bar.ended - start) / unit,
            "low": bases[bar.node] + low,
            "high": bases[bar.node] + low + place.devices,
            "middle": bases[bar.node] + low + place.devices / 2,
            "what": bar.part if bar.part in _PARTS else bar.status,
            "name": f"#{bar.number} {bar.kind}",
            "number": f"#{bar.number}",
            "node": bar.address,
            "part": bar.part or "the trial",
            "devices": f"{bar.devices:g} {run.resource}" if bar.devices else "not known",
            "seconds": round(bar.seconds, 1),
            "outcome": bar.status,
        }
        for bar, place, low in zip(shown, drawn, lows, strict=True)
    ]
    note = (
        f"A band for each node; a bar is as high as the {run.resource}s it held there. "
        "What failed is darkest where it did."
    )
    crowded = height / len(bases) < _LABEL_HEIGHT
    names = dict(zip(bases, centres, strict=True))
    layers = _layers(rows, f"{unit_name} since the start", names, crowded=crowded)
    layers.append(_numbers(layers[0]["encoding"]["y"], run.span / unit, top / height))
    return Chart("nodes", "Nodes over time", spec(rows, *layers, height=height), note, wide=True)


def _bands(
    bars: Sequence[Bar], lows: Sequence[float], gap: float
) -> tuple[dict[str, float], list[float], float]:
    """Where each node's band begins, the middle of each, and the height of all."""
    heights: dict[str, float] = {}
    for bar, low in zip(bars, lows, strict=True):
        heights[bar.node] = max(heights.get(bar.node, 0.0), low + bar.devices)
    bases, centres, top = {}, [], 0.0
    for node in sorted(heights, key=_by_number):
        bases[node] = top
        centres.append(top + heights[node] / 2)
        top += heights[node] + gap
    return bases, centres, top


def _by_number(address: str) -> list[str]:
    return [part.zfill(5) for part in address.split(".")]


def _layers(
    rows: Sequence[Mapping[str, Json]], title: str, names: Mapping[str, float], *, crowded: bool
) -> list[dict[str, Json]]:
    x = {"field": "from", "type": "quantitative", "title": title}
    # The axis has numbers; JSON is what an expression may hold of a text that is not ours.
    label = f"{json.dumps(list(names))}[indexof({json.dumps([*names.values()])}, datum.value)]"
    y = {
        "field": "low",
        "type": "quantitative",
        "title": None,
        "scale": {"reverse": True, "nice": False, "zero": True},
        "axis": {
            "values": [*names.values()],
            "labelExpr": label,
            "labelLimit": 120,
            "labelOverlap": "greedy" if crowded else False,
            "grid": False,
            "ticks": False,
        },
    }
    whats = list(dict.fromkeys(row["what"] for row in rows))
    colours = COLOURS | _PARTS
    domain = [name for name in colours if name in whats]
    colour = {
        "field": "what",
        "type": "nominal",
        "title": None,
        "scale": {"domain": domain, "range": [colours[name] for name in domain]},
        "legend": {"orient": "top", "columns": 4, "symbolLimit": 0},
    }
    about = hints(
        ("name", "trial"), ("node", "node"), ("part", "part"), ("devices", "held"),
        ("seconds", "seconds"), ("outcome", "outcome"),
    )  # fmt: skip
    bar = {
        "mark": {"type": "rect", "stroke": "#ffffff", "strokeOpacity": 0.5, "cornerRadius": 2},
        "encoding": {
            "x": x, "x2": {"field": "to"}, "y": y, "y2": {"field": "high"},
            "color": colour, "tooltip": about,
        },
    }  # fmt: skip
    return [bar]


def _numbers(y: Mapping[str, Json], span: float, unit_height: float) -> dict[str, Json]:
    """The layer of the trials' numbers, in bars that have room for them, whatever the width."""
    wide, high = _TEXT
    room = f"(datum.to - datum.from) / {span or 1.0} * width > {wide} * length(datum.number)"
    room += f" && datum.high - datum.low > {high * unit_height}"
    return {
        "transform": [{"calculate": "(datum.from + datum.to) / 2", "as": "centre"}],
        "mark": {"type": "text", "color": "#ffffff", "fontSize": 11, "fontWeight": 600},
        "encoding": {
            "x": {"field": "centre", "type": "quantitative"},
            "y": {**y, "field": "middle"},
            "text": {"field": "number"},
            "opacity": {"condition": {"test": room, "value": 1}, "value": 0},
        },
    }


def _table(run: RunData, bars: Sequence[Bar]) -> Table:
    span = run.span or 1.0
    all_held = sum(bar.devices * bar.seconds for bar in bars)
    factor, unit = device_unit(all_held / 3600, run.resource)
    spared = {str(one.get("address")): one for one in _excluded(run)}
    rows = []
    for node in sorted({bar.node for bar in bars} | set(spared), key=_by_number):
        mine = [bar for bar in bars if bar.node == node]
        held = sum(bar.devices * bar.seconds for bar in mine)
        most = _most(bars, node)
        share = held / (most * span) if most else None
        trials = {bar.number for bar in mine if bar.status not in ("failed", _ELSEWHERE)}
        failed = {(bar.number, bar.begun) for bar in mine if bar.status == "failed"}
        rows.append(
            [
                Cell(node),
                Cell(str(len(trials)), sort=len(trials)),
                Cell(str(len(failed)) if failed else "", "bad", sort=len(failed)),
                Cell(f"{most:g}" if most else "", sort=most),
                Cell(shown(factor * held / 3600, 3), sort=held),
                Cell("" if share is None else f"{100 * share:.0f} %", sort=share),
                Cell(*_state(spared.get(node))),
            ]
        )
    heads = ["node", "trials", "failed", f"most {run.resource}s", unit, "held", ""]
    caption = "Held: of the time of the run, against the most that trials held there at once."
    return Table(heads, rows, caption)


def _state(why: Mapping[str, Json] | None) -> tuple[str, Tone]:
    if why is None:
        return "", ""
    at = str(why.get("at", "")).replace("T", " ").replace("Z", " UTC")
    return f"excluded since {at}: {why.get('reason', '')}", "bad"


def _most(bars: Iterable[Bar], node: str) -> float:
    """The most that was held on a node at once."""
    steps = [(bar.begun, bar.devices) for bar in bars if bar.node == node]
    steps += [(bar.ended, -bar.devices) for bar in bars if bar.node == node]
    most = now = 0.0
    for _, change in sorted(steps):
        now += change
        most = max(most, now)
    return round(most, 6)


def _came_and_went(run: RunData) -> Table:
    start = run.begun or 0.0
    rows = [
        [Cell(took(max(0.0, at - start)), sort=at), Cell(said)]
        for at, said in run.node_events[-_MOST_ROWS:]
    ]
    return Table(["after", "what was said of nodes"], rows, "What came and went", len(rows) > 8)


def _whereabouts(run: RunData) -> Table:
    trials = {trial.identity: trial for trial in run.trials}
    rows = []
    for attempt in run.attempts[-_MOST_ROWS:]:
        if attempt.started is None:
            continue
        trial = trials.get(attempt.identity)
        became = _became(attempt, trial)
        tone: Tone = "bad" if became == "failed" else ""
        rows.append(
            [
                Cell(f"#{attempt.number}", sort=attempt.number),
                Cell(attempt.kind),
                Cell(_where(attempt, trial)),
                Cell(took(attempt.carried), sort=attempt.carried),
                Cell("failed, repeated" if attempt.status == "retry" else became, tone),
            ]
        )
    heads = ["trial", "kind", "where", "took", "outcome"]
    return Table(heads, rows, "Which trial ran where", folded=len(rows) > 8)


def _where(attempt: Attempt, trial: Trial | None) -> str:
    at = _stood(attempt)
    if attempt.status == "measured":
        return where(trial, at)
    others = sorted(attempt.places.keys() - {at}, key=_by_number)
    return f"{at}; also {', '.join(others)}" if others else at


def where(trial: Trial | None, address: str) -> str:
    """``10.0.0.1: prefill-1; 10.0.0.2: decode-1, decode-2``; the address alone of other trials."""
    found: dict[str, list[str]] = {}
    for name, one in ({} if trial is None else trial.instances).items():
        found.setdefault(str(one["node"]), []).append(name)
    parts = [f"{node}: {', '.join(names)}" for node, names in sorted(found.items())]
    return "; ".join(parts) or address
