"""Which layers fall back, and why: the sensitivity of each, and what one step less costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.report._answer import limits_of
from tuner.report._data import Json, RunData, Trial, shown
from tuner.report._parts import Block, Cell, Chart, Table, axis, colour, hints, rule, spec

_BLOCK = re.compile(r"^(?P<head>.*?)\.(?P<number>\d+)(?:\.(?P<tail>.+))?$")
_TOLD = 40


@dataclass(frozen=True)
class Step:
    """One step of the ranking, worst first: layers that fall back together."""

    layers: tuple[str, ...]
    score: float


def steps_of(run: RunData) -> list[Step]:
    """The ranking that the search went by; empty where none was made."""
    analysis = run.of_kind("analysis")
    ranking = [] if analysis is None else analysis.data.get("ranking", [])
    return [Step(tuple(one["layers"]), float(one["score"])) for one in ranking]


def layer_blocks(run: RunData) -> list[Block]:
    """Heat map of the layers, the demand over the number of steps, and the steps that fell back."""
    steps = steps_of(run)
    fallen = frozenset(map(str, (run.best or {}).get("fallback") or ()))
    found: list[Block] = list(level_charts(run, steps))
    if steps:
        found.append(_heat_map(steps, fallen))
        found += _reasons(run, steps, fallen)
    return found


def level_charts(run: RunData, steps: Sequence[Step]) -> list[Chart]:
    """Each demanded metric over how much falls back."""
    trials = [one for one in run.candidates if isinstance(one.parameters.get("fallback"), list)]
    if len(trials) < 2 or run.objective is None:
        return []
    unit = "steps of the ranking" if steps else "layers"
    found = []
    for number, (name, (limit, _)) in enumerate(limits_of(run).items()):
        rows: list[dict[str, Json]] = [
            {
                "x": level_of(one, steps),
                "value": one.metrics[name],
                "outcome": one.outcome,
                "name": f"#{one.number}",
            }
            for one in trials
            if name in one.metrics
        ]
        base = limit if run.baseline is None else run.baseline.get(name, limit)
        lines = rule(limit, "demand", below=limit < base)
        if base != limit:
            lines += rule(base, "baseline", below=base < limit)
        x = axis("x", f"{unit} that fall back", axis={"tickMinStep": 1})
        points = {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {
                "x": x,
                "y": axis("value", name),
                "color": colour([row["outcome"] for row in rows]),
                "tooltip": hints(
                    ("name", "trial"), ("x", unit), ("value", "value"), ("outcome", "outcome")
                ),
            },
        }
        note = "The fewest that still meet every demand are the answer."
        chart = Chart(
            f"fallback-{number}", f"{name} and fallback", spec(rows, points, *lines), note
        )
        found.append(chart)
    return found


def level_of(trial: Trial, steps: Sequence[Step]) -> int:
    """How many steps of the ranking a trial lets fall back; without a ranking, how many layers."""
    fallen = set(map(str, trial.parameters["fallback"]))
    if not steps:
        return len(fallen)
    return sum(fallen.issuperset(step.layers) for step in steps)


def _heat_map(steps: Sequence[Step], fallen: frozenset[str]) -> Chart:
    rows = list[dict[str, Json]]()
    for rank, step in enumerate(steps, start=1):
        for layer in step.layers:
            block, kind = _placed(layer)
            falls = layer in fallen
            rows.append(
                {
                    "block": block,
                    "kind": kind,
                    "layer": layer,
                    "rank": rank,
                    "score": step.score,
                    "falls": "falls back" if falls else "quantized",
                }
            )
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    scores = [row["score"] for row in rows if row["score"] > 0]
    log = len(scores) == len(rows) and max(scores) / min(scores) > 50
    x = {"field": "block", "type": "ordinal", "title": "block"}
    y = {"field": "kind", "type": "nominal", "title": None, "sort": kinds}
    x_axis = {"axis": {"labelOverlap": True, "labelAngle": 0}}
    places: dict[str, Json] = {"x": x | x_axis, "y": y | {"axis": {"labelLimit": 150}}}
    tip = hints(("layer", "layer"), ("score", "sensitivity"), ("rank", "step"), ("falls", "result"))
    heat = {
        "mark": {"type": "rect", "cornerRadius": 1},
        "encoding": {
            **places,
            "color": {
                "field": "score",
                "type": "quantitative",
                "title": "sensitivity",
                "scale": {"type": "log" if log else "linear", "scheme": "yelloworangered"},
                "legend": {
                    "orient": "top",
                    "gradientLength": 220,
                    "tickCount": 3,
                    "format": ".2~g",
                    "labelOverlap": True,
                },
            },
            "tooltip": tip,
        },
    }
    dots = {
        "transform": [{"filter": {"field": "falls", "equal": "falls back"}}],
        "mark": {"type": "point", "filled": True, "color": "#10243e", "size": 36, "opacity": 1},
        "encoding": {**places, "tooltip": tip},
    }
    height = max(70, 30 * len(kinds))
    note = "A dot marks what falls back to floating point."
    title = "Sensitivity of the layers"
    return Chart("layers", title, spec(rows, heat, dots, height=height), note, wide=True)


def _reasons(run: RunData, steps: Sequence[Step], fallen: frozenset[str]) -> list[Block]:
    rows = [
        [
            Cell(str(rank), sort=rank),
            Cell(", ".join(step.layers)),
            Cell(shown(step.score), sort=step.score),
            Cell(_without(run, rank, steps)),
        ]
        for rank, step in enumerate(steps, start=1)
        if fallen.issuperset(step.layers)
    ]
    if not rows:
        return []
    caption = "Layers fall back in the order of their sensitivity until every demand is met."
    heads = ["step", "layers", "sensitivity", "measured without this step and those after it"]
    return [Table(heads, rows[:_TOLD], caption)]


def _without(run: RunData, rank: int, steps: Sequence[Step]) -> str:
    """What was measured with one step less."""
    for trial in run.candidates:
        level = isinstance(trial.parameters.get("fallback"), list) and level_of(trial, steps)
        if level == rank - 1 and level is not False:
            return trial.said
    return ""


def _placed(layer: str) -> tuple[int, str]:
    """Number of the block, and what of it the layer is."""
    match = _BLOCK.match(layer)
    if match is None:
        return 0, layer
    return int(match["number"]), match["tail"] or "block"
