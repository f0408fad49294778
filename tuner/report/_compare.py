"""Several runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tuner.experiment import format_duration
from tuner.report._answer import headline, margin_of, metric_names, told, tone_of, with_error
from tuner.report._cost import phase_hours
from tuner.report._data import Json, RunData, Trial, exact, time_unit
from tuner.report._parts import SERIES, Block, Cell, Chart, Page, Section, Table, axis, hints, spec

_MOST_METRICS = 20


def comparison_page(runs: Sequence[RunData]) -> Page:
    """The answers, how each was come to, and where the experiments differ.

    Args:
        runs: Two or more; the first is what the others are compared with.
    """
    names = labels(runs)
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("answers", "Answers", [_answers(runs, names)]),
        ("metrics", "Metrics of the winners", _metrics(runs, names)),
        ("parameters", "Parameters of the winners", _parameters(runs, names)),
        ("progress", "Progress", _progress(runs, names)),
        ("cost", "What it cost", [_cost(runs, names)]),
        ("differences", "Where the experiments differ", _differences(runs, names)),
    ]
    best = _better(runs, names)
    return Page(
        title=" · ".join(names),
        badge=f"{len(runs)} runs",
        tone="",
        headline=best,
        subtitle="comparison of runs",
        sections=[Section(*part) for part in parts if part[2]],
    )


def labels(runs: Sequence[RunData]) -> list[str]:
    """Names of the runs; with their folders where names repeat."""
    names = [run.name for run in runs]
    return [
        run.name if names.count(run.name) == 1 else f"{run.name} ({run.folder})" for run in runs
    ]


def _better(runs: Sequence[RunData], names: Sequence[str]) -> str:
    rankings = {run.ranking for run in runs}
    ranked = [
        (run.ranking[1] * winner.value, name, run)
        for run, name in zip(runs, names, strict=True)
        if run.ranking is not None
        and (winner := run.winner()) is not None
        and winner.value is not None
    ]
    if len(rankings) != 1 or not ranked:
        return "The runs have different objectives; compare what they have in common."
    ranked.sort(key=lambda one: one[0], reverse=True)
    (value, name, run), rest = ranked[0], ranked[1:]
    if not rest:
        return f"Only {name} has an answer: {told(run)}."
    second, other, beside = rest[0]
    margin = margin_of(run, beside)
    if margin is not None and value - second <= margin:
        return f"No significant difference: {name}, {told(run)}; {other}, {told(beside)}."
    return f"Best: {name}, {told(run)}."


def _answers(runs: Sequence[RunData], names: Sequence[str]) -> Table:
    rows = [
        [Cell(name), Cell(run.state, tone_of(run)), Cell(headline(run))]
        for run, name in zip(runs, names, strict=True)
    ]
    return Table(["run", "verdict", "answer"], rows)


def _metrics(runs: Sequence[RunData], names: Sequence[str]) -> list[Block]:
    winners = [run.winner() for run in runs]
    documents = [{} if one is None else one.metrics for one in winners]
    if not any(documents):
        return []
    order = list(dict.fromkeys(name for run in runs for name in metric_names(run, documents)))
    rows = [[Cell(name), *(_value(name, one, winners[0]) for one in winners)] for name in order]
    heads = ["metric", *names]
    found: list[Block] = [Table(heads, rows[:_MOST_METRICS], "± two standard errors")]
    if rest := rows[_MOST_METRICS:]:
        found.append(Table(heads, rest, f"{len(rest)} more metrics", folded=True))
    return found


def _value(name: str, trial: Trial | None, first: Trial | None) -> Cell:
    if trial is None or name not in trial.metrics:
        return Cell("")
    text, base = with_error(trial.metrics, name), None if first is None else first.metrics.get(name)
    if trial is first or not base:
        return Cell(text)
    change = 100 * (trial.metrics[name] - base) / abs(base)
    return Cell(f"{text} ({change:+.1f} %)" if abs(change) >= 0.05 else text)


def _parameters(runs: Sequence[RunData], names: Sequence[str]) -> list[Block]:
    order = dict.fromkeys(name for run in runs for name in run.best or {})
    rows = [
        [Cell(name), *(Cell(exact((run.best or {}).get(name))) for run in runs)] for name in order
    ]
    return [Table(["parameter", *names], rows)] if rows else []


def _progress(runs: Sequence[RunData], names: Sequence[str]) -> list[Block]:
    """The best so far of all runs in one chart, where they rank by the same metric."""
    rankings = {run.ranking for run in runs}
    if len(rankings) != 1 or None in rankings:
        return []
    metric = next(one[0] for one in rankings if one is not None)
    unit, unit_name = time_unit(max(run.span for run in runs))
    rows = [row for run, name in zip(runs, names, strict=True) for row in _course(run, name, unit)]
    if not rows:
        return []
    timed = all(row["since"] is not None for row in rows)
    found: list[Block] = []
    for key, title in (("x", "trials"), ("since", f"{unit_name} since the start")):
        if key == "since" and not timed:
            continue
        step = {
            "mark": {"type": "line", "interpolate": "step-after", "point": True},
            "encoding": {
                "x": axis(key, title),
                "y": axis("best", metric),
                "color": {
                    "field": "run",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": list(names), "range": list(SERIES)},
                    "legend": {"orient": "top", "columns": 2, "labelLimit": 240},
                },
                "tooltip": hints(("run", "run"), ("x", "trial"), ("best", "best so far")),
            },
        }
        over = "trials" if key == "x" else "time"
        found.append(Chart(f"progress-{over}", f"Best so far over {over}", spec(rows, step)))
    return found


def _course(run: RunData, name: str, unit: float) -> list[dict[str, Json]]:
    """Where the best so far changed, and where the run ended."""
    rows, best = list[dict[str, Json]](), None
    assert run.ranking is not None
    sign, begun, candidates = run.ranking[1], run.begun, run.candidates
    for number, trial in enumerate(candidates, start=1):
        value = trial.value if trial.satisfied else None
        better = value is not None and (best is None or sign * value > sign * best)
        best = value if better else best
        if better or (best is not None and number == len(candidates)):
            known = trial.ended is not None and begun is not None
            since = ((trial.ended or 0.0) - (begun or 0.0)) / unit if known else None
            rows.append({"run": name, "x": number, "since": since, "best": best})
    return rows


def _cost(runs: Sequence[RunData], names: Sequence[str]) -> Table:
    rows = []
    for run, name in zip(runs, names, strict=True):
        hours = phase_hours(run)
        elapsed = run.status.get("elapsed_s")
        rows.append(
            [
                Cell(name),
                Cell(str(len(run.measured)), sort=len(run.measured)),
                Cell(str(sum(one.status == "failed" for one in run.trials))),
                Cell("" if elapsed is None else format_duration(elapsed), sort=elapsed),
                Cell(f"{sum(hours.values()) - hours['idle']:.3g} {run.resource}-h"),
                Cell(f"{hours['idle']:.3g} {run.resource}-h"),
            ]
        )
    return Table(["run", "measured", "failed", "time", "devices in use", "idle"], rows)


def _differences(runs: Sequence[RunData], names: Sequence[str]) -> list[Block]:
    flat = [_flat(run.document) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [
        [Cell(key), *(Cell(one.get(key, "")) for one in flat)]
        for key in keys
        if key != "name" and len({one.get(key) for one in flat}) > 1
    ]
    return [Table(["key", *names], rows)] if rows else []


def _flat(document: Json, path: str = "") -> dict[str, str]:
    """Dotted path to text of every leaf."""
    if isinstance(document, dict):
        return {
            key: text
            for name, item in document.items()
            for key, text in _flat(item, f"{path}.{name}" if path else str(name)).items()
        }
    return {path: document if isinstance(document, str) else json.dumps(document)}
