"""Charts of the search: its progress, its trade-offs, and what mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from tuner.report._answer import demand_texts, limits_of
from tuner.report._data import Json, RunData, Trial, exact, parameters_text, time_unit
from tuner.report._parts import COLOURS, Chart, axis, colour, hints, near, rule, spec

_MOST_POINTS = 2000
"""Of a chart; of more, some are left out, though none that its line goes through."""
_LEAST_FOR_IMPORTANCE = 10
_MOST_SLICES = 8
_LEAST_FOR_SLICES = 3
_MOST_TICKS = 12
_FAR = 2.0
"""Times the span of what went to its end."""
_LEAST_REACH = 0.2
_MOST_LEVELS = 6
"""Different numbers that are shown as names, each with its own place."""
_RATES = ("output_tokens_per_s", "requests_per_s", "total_tokens_per_s")
_LATENCIES = ("ttft", "tpot", "itl", "e2el")
_ABOUT = hints(
    ("name", "trial"), ("outcome", "outcome"), ("value", "value"), ("about", "parameters")
)
_POINT = {"type": "point", "filled": True, "size": 70, "opacity": 0.9}
_SHAPES = {"candidate": "circle", "verification": "diamond", "baseline": "cross"}
_WIDE = 50.0


def progress_charts(run: RunData) -> list[Chart]:
    """The objective's value over trials and over time, with the best so far."""
    if run.ranking is None:
        return []
    name, sign = run.ranking
    rows, best = list[dict[str, Json]](), None
    unit, unit_name = time_unit(run.span)
    begun, turns = run.begun, set[int]()
    for number, trial in enumerate(_judged(run), start=1):
        if trial.value is None:
            continue
        if trial.satisfied and (best is None or sign * trial.value > sign * best):
            best = trial.value
            turns.add(len(rows))
        since = None
        if trial.ended is not None and begun is not None:
            since = (trial.ended - begun) / unit
        rows.append(_point(trial) | {"x": number, "since": since, "best": best})
    if not rows:
        return []
    rows = _thinned(rows, turns | {len(rows) - 1})
    lines = []
    if run.baseline is not None and name in run.baseline:
        lines = rule(run.baseline[name], "baseline", left=True)
    rows, note = _in_sight(rows)
    found = []
    for key, title in (("x", "trials"), ("since", f"{unit_name} since the start")):
        if all(row[key] is None for row in rows):
            continue
        x = axis(key, title)
        if key == "x":
            x["axis"] = {"tickMinStep": 1, "format": "d", **_ticks(rows)}
        step = {"type": "line", "interpolate": "step-after", "color": COLOURS["satisfied"]}
        best_line = {"x": x, "y": {"field": "best", "type": "quantitative"}}
        layers = [
            *([{"mark": step, "encoding": best_line}] if best is not None else []),
            *lines,
            {"mark": _POINT, "encoding": {"x": x, "y": axis("value", name), **_dots(rows)}},
        ]
        over = "trials" if key == "x" else "time"
        found.append(Chart(f"progress-{over}", f"{name} over {over}", spec(rows, *layers), note))
    return found


def _in_sight(rows: list[dict[str, Json]]) -> tuple[list[dict[str, Json]], str]:
    """Without what was given up far from all that went to its end, beside which no difference
    could be seen; and how to read the chart."""
    good = any(row["best"] is not None for row in rows)
    note = "The line is the best so far of what satisfies." if good else "None satisfies."
    whole = [row["value"] for row in rows if row["outcome"] != "given up"]
    if len(whole) < 2:
        return rows, note
    low, high = min(whole), max(whole)
    reach = max(_FAR * (high - low), _LEAST_REACH * abs(high))
    kept = [
        row
        for row in rows
        if row["outcome"] != "given up" or low - reach <= row["value"] <= high + reach
    ]
    if gone := len(rows) - len(kept):
        note += f" {gone} that {'was' if gone == 1 else 'were'} given up early would be far off."
    return kept, note


def _ticks(rows: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Of few trials, one tick each."""
    return {"values": [row["x"] for row in rows]} if len(rows) <= _MOST_TICKS else {}


def pareto_charts(run: RunData) -> list[Chart]:
    """Two metrics against each other, for each pair that pulls apart, with their front."""
    trials = [one for one in _judged(run) if one.stopped is None and one.metrics]
    if (baseline := run.of_kind("baseline")) is not None:
        trials.append(baseline)
    return [
        chart
        for one, other in _pairs(run, trials)
        if (chart := _pareto(run, trials, one, other)) is not None
    ]


def importances(run: RunData) -> dict[str, float] | None:
    """How much of where the good trials lie each parameter explains, by PED-ANOVA (Watanabe et
    al. 2023, Optuna's): shares that add up to 1, the largest first; None: too few trials.

    A trial that does not satisfy, or that was given up, counts as worse than all that do.
    """
    trials = [one for one in run.candidates if one.value is not None]
    names = _varied(trials)
    if run.ranking is None or len(trials) < _LEAST_FOR_IMPORTANCE or len(names) < 2:
        return None
    from optuna import create_study, create_trial, importance, logging

    logging.set_verbosity(logging.WARNING)
    sign = run.ranking[1]
    merits = [sign * one.value for one in trials if one.value is not None]
    worst = min(merits) - (max(merits) - min(merits)) - 1.0
    study = create_study(direction="maximize")
    spaces = {name: _distribution([one.parameters[name] for one in trials]) for name in names}
    for trial, merit in zip(trials, merits, strict=True):
        study.add_trial(
            create_trial(
                params={name: _plain(trial.parameters[name], spaces[name]) for name in names},
                distributions=spaces,
                value=merit if trial.satisfied else worst,
            )
        )
    evaluator = importance.PedAnovaImportanceEvaluator(
        target_quantile=max(0.1, 3 / len(trials)), evaluate_on_local=False
    )
    try:
        found = importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None
    return dict(found) if all(map(math.isfinite, found.values())) else None


def importance_chart(found: Mapping[str, float]) -> Chart:
    """Shares as bars."""
    rows = [{"name": name, "share": round(share, 4)} for name, share in found.items()]
    y = {"field": "name", "type": "nominal", "sort": None, "title": None}
    bar = {
        "mark": {"type": "bar", "color": COLOURS["not judged"], "cornerRadiusEnd": 2},
        "encoding": {
            "x": {"field": "share", "type": "quantitative", "title": "share"},
            "y": {**y, "axis": {"labelLimit": 220}},
            "tooltip": hints(("name", "parameter"), ("share", "share")),
        },
    }
    note = "PED-ANOVA: how much of where the best trials lie each parameter explains."
    height = max(60, 28 * len(rows))
    return Chart("importance", "What mattered", spec(rows, bar, height=height), note)


def slice_charts(run: RunData, order: Sequence[str] | None = None) -> list[Chart]:
    """The objective's value along each parameter, the most important first."""
    trials = [one for one in _judged(run) if one.value is not None and one.kind == "candidate"]
    names = [name for name in order or () if name in _varied(trials)]
    names += [name for name in _varied(trials) if name not in names]
    if run.ranking is None or len(trials) < _LEAST_FOR_SLICES:
        return []
    return [
        _slice(trials, name, f"slice-{number}", run.ranking[0])
        for number, name in enumerate(names[:_MOST_SLICES], start=1)
    ]


def _slice(trials: Sequence[Trial], name: str, file: str, metric: str) -> Chart:
    values = [one.parameters[name] for one in trials]
    numbers = [value for value in values if _is_number(value)]
    rows = [_point(one) | {"x": value} for one, value in zip(trials, values, strict=True)]
    rows = _thinned(rows, set())
    if len(numbers) == len(values) and len(set(values)) > _MOST_LEVELS:
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= _WIDE
        x = axis("x", name)
        x["scale"] = {"type": "log"} if log else {"zero": False}
        x["axis"] = {"grid": not log}
    else:
        order = [exact(value) for value in _in_order(row["x"] for row in rows)]
        rows = [row | {"x": exact(row["x"])} for row in rows]
        x = axis("x", name, "nominal", sort=order, axis={"labelAngle": 0, "labelLimit": 120})
    mark = {"mark": _POINT, "encoding": {"x": x, "y": axis("value", metric), **_dots(rows)}}
    return Chart(file, name, spec(rows, mark, height=180))


def _in_order(values: Iterable[Json]) -> list[Json]:
    """Without repetition: numbers by size, then names."""
    different = {json.dumps(value): value for value in values}.values()
    return sorted(
        different, key=lambda one: (0, one, "") if _is_number(one) else (1, 0, exact(one))
    )


def _pareto(
    run: RunData, trials: Sequence[Trial], one: tuple[str, int], other: tuple[str, int]
) -> Chart | None:
    (x, x_sign), (y, y_sign) = one, other
    rows = [
        _point(trial) | {"x": trial.metrics[x], "y": trial.metrics[y]}
        for trial in trials
        if x in trial.metrics and y in trial.metrics
    ]
    if len(rows) < 2:
        return None
    front = _front(rows, x_sign, y_sign)
    rows = _thinned(rows, set())
    lines, far = _limit_lines(run, x, y, rows)
    line = {
        "data": {"values": front},
        "mark": {"type": "line", "color": "#7f8c99", "interpolate": "linear", "opacity": 0.7},
        "encoding": {"x": axis("x", x), "y": axis("y", y), "order": {"field": "x"}},
    }
    about = hints(("name", "trial"), ("outcome", "outcome"), ("x", x), ("y", y))
    points = {
        "mark": _POINT,
        "encoding": {
            "x": axis("x", x),
            "y": axis("y", y),
            **_dots(rows),
            "shape": _shapes(rows),
            "size": {
                "condition": {"test": {"field": "kind", "equal": "baseline"}, "value": 120},
                "value": 70,
            },
            "tooltip": [*about, *hints(("about", "parameters"))],
        },
    }
    name = f"pareto-{x}-{y}".replace("/", "-")
    note = " ".join(["The line joins what nothing beats in both.", *far])
    return Chart(name, f"{y} against {x}", spec(rows, line, *lines, points), note)


def _limit_lines(
    run: RunData, x: str, y: str, rows: Sequence[Mapping[str, Json]]
) -> tuple[list[dict[str, Json]], list[str]]:
    """Layers of the limits that are near the points, and sentences about the others."""
    limits, demands = limits_of(run), demand_texts(run)
    lines, far = list[dict[str, Json]](), list[str]()
    axes: tuple[tuple[str, Literal["x", "y"]], ...] = ((x, "x"), (y, "y"))
    for name, along in axes:
        if name not in limits:
            continue
        if near(limits[name][0], [row[along] for row in rows]):
            lines += rule(limits[name][0], "limit", along)
        else:
            far.append(f"The limit, {name} {demands[name]}, is far from all of them.")
    return lines, far


def _shapes(rows: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """A shape for each kind of trial; a legend where there are several."""
    kinds = {row["kind"] for row in rows}
    there = [(kind, shape) for kind, shape in _SHAPES.items() if kind in kinds]
    return {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "scale": {"domain": [kind for kind, _ in there], "range": [shape for _, shape in there]},
        "legend": {"orient": "top", "columns": 3} if len(there) > 1 else None,
    }


def _front(rows: Iterable[dict[str, Json]], x_sign: int, y_sign: int) -> list[dict[str, Json]]:
    """Of what satisfies, else of all, what nothing beats in both, by x."""
    rows = list(rows)
    good = [row for row in rows if row["outcome"] == "satisfied"] or rows
    ordered = sorted(good, key=lambda row: (x_sign * row["x"], y_sign * row["y"]), reverse=True)
    front: list[dict[str, Json]] = []
    for row in ordered:
        if not front or y_sign * row["y"] > y_sign * front[-1]["y"]:
            front.append({"x": row["x"], "y": row["y"]})
    return front


def _pairs(run: RunData, trials: Sequence[Trial]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """The objectives against each other; of serving, throughput against TTFT and TPOT."""
    objectives = [] if run.objective is None else list(run.objective.goal().objectives)
    pairs = list(pairwise(objectives))
    there = {name for one in trials for name in one.metrics}
    rates = [name for name, _ in objectives if name in _RATES] + list(_RATES)
    rate = next((name for name in rates if name in there), None)
    latencies = []
    limits = [] if run.objective is None else [one.metric for one in run.objective.limits]
    for kind in _LATENCIES[:2]:
        named = [name for name in limits if name.startswith(kind)] + [f"{kind}_mean_s"]
        latencies += [name for name in named[:1] if name in there]
    if rate is not None:
        pairs += [((rate, 1), (name, -1)) for name in latencies]
        pairs += [((a, -1), (b, -1)) for a, b in pairwise(latencies)]
    unique = {frozenset((a[0], b[0])): (a, b) for a, b in pairs}
    return list(unique.values())[:6]


def _judged(run: RunData) -> list[Trial]:
    kinds = ("candidate", "verification")
    return [one for one in run.measured if one.kind in kinds]


def _thinned(rows: list[dict[str, Json]], kept: set[int]) -> list[dict[str, Json]]:
    """Not many more than can be told apart, evenly chosen, and those of the ``kept`` indices."""
    step = -(-len(rows) // _MOST_POINTS)
    return [row for index, row in enumerate(rows) if index % step == 0 or index in kept]


def _point(trial: Trial) -> dict[str, Json]:
    return {
        "name": f"#{trial.number} {trial.kind}",
        "kind": trial.kind,
        "outcome": trial.outcome,
        "value": trial.value,
        "about": parameters_text(trial.parameters),
    }


def _dots(rows: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    return {"color": colour([row["outcome"] for row in rows]), "tooltip": _ABOUT}


def _varied(trials: Sequence[Trial]) -> list[str]:
    """Parameters that all trials have, with more than one value, lists aside."""
    if not trials:
        return []
    return [
        name
        for name in trials[0].parameters
        if all(name in one.parameters for one in trials)
        and not any(isinstance(one.parameters[name], list | dict) for one in trials)
        and len({json.dumps(one.parameters[name]) for one in trials}) > 1
    ]


def _distribution(values: Sequence[Json]) -> Json:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(_is_number(value) for value in values):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low >= _WIDE)
    return CategoricalDistribution(sorted({json.dumps(value) for value in values}))


def _plain(value: Json, space: Json) -> Json:
    from optuna.distributions import FloatDistribution

    return float(value) if isinstance(space, FloatDistribution) else json.dumps(value)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
