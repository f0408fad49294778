"""Charts of the search: its progress, its trade-offs, and what mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tuner.report._answer import limits_of
from tuner.report._data import Json, RunData, Trial, parameters_text, shown, time_unit
from tuner.report._parts import COLOURS, Chart, axis, colour, hints, rule, spec

_MOST_POINTS = 2000
"""Of a chart; of more, some are left out, though none that its line goes through."""
_LEAST_FOR_IMPORTANCE = 10
_MOST_SLICES = 8
_RATES = ("output_tokens_per_s", "requests_per_s", "total_tokens_per_s")
_LATENCIES = ("ttft", "tpot", "itl", "e2el")
_ABOUT = hints(
    ("name", "trial"), ("outcome", "outcome"), ("value", "value"), ("about", "parameters")
)
_POINT = {"type": "point", "filled": True, "size": 70, "opacity": 0.9}
_SHAPES = {
    "field": "kind",
    "type": "nominal",
    "title": None,
    "scale": {
        "domain": ["candidate", "verification", "baseline"],
        "range": ["circle", "diamond", "cross"],
    },
    "legend": {"orient": "top", "columns": 3},
}
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
        lines = rule(run.baseline[name], "baseline")
    found = []
    for key, title in (("x", "trials"), ("since", f"{unit_name} since the start")):
        if all(row[key] is None for row in rows):
            continue
        x = axis(key, title, axis={"tickMinStep": 1}) if key == "x" else axis(key, title)
        step = {"type": "line", "interpolate": "step-after", "color": COLOURS["satisfied"]}
        layers = [
            {"mark": step, "encoding": {"x": x, "y": {"field": "best", "type": "quantitative"}}},
            *lines,
            {"mark": _POINT, "encoding": {"x": x, "y": axis("value", name), **_dots(rows)}},
        ]
        over = "trials" if key == "x" else "time"
        note = "The line is the best so far of what satisfies."
        found.append(Chart(f"progress-{over}", f"{name} over {over}", spec(rows, *layers), note))
    return found


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
    if run.ranking is None:
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
    if len(numbers) == len(values):
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= _WIDE
        x = axis("x", name)
        x["scale"] = {"type": "log"} if log else {"zero": False}
        x["axis"] = {"grid": not log}
    else:
        rows = [row | {"x": shown(row["x"])} for row in rows]
        order = sorted({row["x"] for row in rows})
        x = axis("x", name, "nominal", sort=order, axis={"labelAngle": 0, "labelLimit": 120})
    mark = {"mark": _POINT, "encoding": {"x": x, "y": axis("value", metric), **_dots(rows)}}
    return Chart(file, name, spec(rows, mark, height=180))


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
    limits, lines = limits_of(run), []
    for name, along in ((x, "x"), (y, "y")):
        if name in limits:
            lines += rule(limits[name][0], "limit", "x" if along == "x" else "y")
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
            "shape": _SHAPES,
            "size": {
                "condition": {"test": {"field": "kind", "equal": "baseline"}, "value": 120},
                "value": 70,
            },
            "tooltip": [*about, *hints(("about", "parameters"))],
        },
    }
    name = f"pareto-{x}-{y}".replace("/", "-")
    note = "The line joins what nothing beats in both."
    return Chart(name, f"{y} against {x}", spec(rows, line, *lines, points), note)


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
