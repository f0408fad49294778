"""The report of one run, section by section. A section with nothing to say is not there."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import yaml

from tuner._words import counted
from tuner.report._answer import comparison, facts, headline, metric_names, tone_of
from tuner.report._cost import cost_blocks
from tuner.report._data import (
    Attempt,
    Json,
    RunData,
    Trial,
    exact,
    parameters_text,
    shortened,
    shown,
    took,
)
from tuner.report._layers import layer_blocks
from tuner.report._nodes import node_blocks, where
from tuner.report._notes import notes
from tuner.report._parts import Block, Cell, Code, Page, Section, Table, Text, Tone
from tuner.report._search import (
    importance_chart,
    importances,
    pareto_charts,
    progress_charts,
    slice_charts,
)
from tuner.report._serving import load_charts, split_blocks

_MOST_ROWS = 1000
_MOST_FAILURES = 20
_MOST_VALUES = 4
_MOST_RESULT = 200
"""Characters; failures have a section of their own."""
_TONES: Mapping[str, Tone] = {
    "satisfied": "good",
    "failed": "bad",
    "given up": "dim",
    "cancelled": "dim",
}


def report_page(run: RunData) -> Page:
    """Everything worth telling of a run."""
    order = importances(run)
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("answer", _answer_title(run), [*comparison(run), *_parameters(run)]),
        ("deploy", "Deploy it", _deploy(run)),
        ("splits", "Prefill and decode", split_blocks(run)),
        ("progress", "Progress of the search", progress_charts(run)),
        ("tradeoffs", "Trade-offs", [*pareto_charts(run), *_front_table(run)]),
        ("load", "The load it bears", load_charts(run)),
        ("layers", "Which layers fall back, and why", layer_blocks(run)),
        (
            "importance",
            "What mattered",
            [*([importance_chart(order)] if order else []), *slice_charts(run, list(order or ()))],
        ),
        ("failures", "Failures", _failures(run)),
        ("rejections", "Given up early", _rejections(run)),
        ("nodes", "Nodes", node_blocks(run)),
        ("cost", "Where the time of the devices went", cost_blocks(run)),
        ("trials", "All trials", _trials(run)),
        ("environment", "Environment", _environment(run)),
        ("reproduce", "Reproduce it", _reproduce(run)),
    ]
    return Page(
        title=run.name,
        badge=run.state,
        tone=tone_of(run),
        headline=headline(run),
        subtitle=_subtitle(run),
        facts=facts(run),
        notes=notes(run),
        sections=[Section(*part) for part in parts if part[2]],
    )


def _answer_title(run: RunData) -> str:
    return "The answer" if run.baseline is None else "The answer beside what was there"


def _subtitle(run: RunData) -> str:
    trial = run.document.get("trial")
    model = trial.get("model") if isinstance(trial, dict) else None
    parts = [run.trial_type, f"search {run.strategy}", "" if model is None else str(model)]
    if run.begun is not None:
        parts.append(_when(run.begun))
    return " · ".join(part for part in parts if part.strip())


def _parameters(run: RunData) -> list[Block]:
    if run.best is None:
        return []
    listed = {name: value for name, value in run.best.items() if isinstance(value, list)}
    plain = {name: value for name, value in run.best.items() if name not in listed}
    found: list[Block] = []
    if plain:
        rows = [[Cell(name), Cell(exact(value))] for name, value in plain.items()]
        found.append(Table(["parameter", "best"], rows))
    for name, values in listed.items():
        text = "\n".join(map(str, values))
        found.append(Code(f"{name} ({len(values)})", text or "none", folded=len(values) > 12))
    return found


def _deploy(run: RunData) -> list[Block]:
    if not run.files or not run.result.get("delivered"):
        return []
    delivered = str(run.result["delivered"])
    verified = ""
    if run.of_kind("verification") is not None:
        verified = " What stands there was measured once more, from what is delivered."
    found: list[Block] = [
        Text(f"Delivered in {delivered}.{verified}"),
    ]
    if "serve.sh" in run.commands:
        found.append(Code("start it", f"bash {shlex.quote(f'{delivered}/serve.sh')}"))
    elif "hosts.env" in run.commands:
        found.append(
            Text("Write into hosts.env which node has which instance; then, on each node:")
        )
        started = [name for name in run.commands if name.endswith(".sh") and name != "router.sh"]
        lines = [f"sh {shlex.quote(f'{delivered}/{name}')}" for name in [*started, "router.sh"]]
        found.append(Code("start it, the router last", "\n".join(lines)))
    for name, text in run.commands.items():
        found.append(Code(name, text.rstrip(), folded=name != "serve.sh"))
    rows = [[Cell(name), Cell(_bytes(size), sort=float(size))] for name, size in run.files.items()]
    found.append(Table(["file", "size"], rows, "Files in best/", folded=True))
    return found


def _front_table(run: RunData) -> list[Block]:
    front = run.result.get("front") or []
    if not front:
        return []
    names = metric_names(run, [point["metrics"] for point in front])[:5]
    rows = [
        [
            Cell(parameters_text(point["parameters"])),
            *(
                Cell(shown(point["metrics"].get(name)), sort=point["metrics"].get(name))
                for name in names
            ),
        ]
        for point in front
    ]
    return [Table(["parameters", *names], rows, "Pareto front of what satisfies")]


def _failures(run: RunData) -> list[Block]:
    failed = [one for one in run.failed if one.failure]
    repeated = [attempt for attempt in run.attempts if attempt.status == "retry"]
    if not failed and not repeated:
        return []
    ended = Counter(_class_of(one.failure) for one in failed)
    again = Counter(_class_of(attempt.failure) for attempt in repeated)
    rows = [
        [
            Cell(name),
            Cell(str(ended[name]), sort=ended[name]),
            Cell(str(again[name]), sort=again[name]),
        ]
        for name, _ in (ended + again).most_common()
    ]
    found: list[Block] = [Table(["class", "trials failed", "attempts repeated"], rows)]
    told: list[Trial | Attempt] = [*failed, *repeated]
    found += [_failure(one, folded=at > 0) for at, one in enumerate(told[:_MOST_FAILURES])]
    if len(told) > _MOST_FAILURES:
        found.append(Text(f"{len(told) - _MOST_FAILURES} more are in events.jsonl.", "dim"))
    return found


def _failure(one: Trial | Attempt, *, folded: bool) -> Code:
    failure = one.failure or {}
    stage = f" in {failure['stage']}" if failure.get("stage") else ""
    node = f" on {failure['node']}" if failure.get("node") else ""
    again = ", repeated" if isinstance(one, Attempt) else ""
    said = [str(failure.get("message", ""))]
    if isinstance(one, Trial):
        said.insert(0, parameters_text(one.parameters) if one.parameters else one.why)
    said += [f"What to do: {failure['suggestion']}"] if failure.get("suggestion") else []
    if excerpt := str(failure.get("excerpt") or "").strip():
        said += ["", excerpt]
    title = f"#{one.number} {one.kind}, {_class_of(failure)}{stage}{node}{again}"
    return Code(title, "\n".join(said), folded=folded)


def _class_of(failure: Mapping[str, Json] | None) -> str:
    return str((failure or {}).get("class", "tool"))


def _rejections(run: RunData) -> list[Block]:
    stopped = [one for one in run.measured if one.stopped is not None]
    if not stopped:
        return []
    by = Counter(str((one.stopped or {}).get("by", "")) for one in stopped)
    spent = [one.seconds for one in stopped if one.seconds is not None]
    whole = [one.seconds for one in run.candidates if one.stopped is None and one.seconds]
    said = ", ".join(f"{count} by {name}" for name, count in by.most_common())
    text = f"{counted(len(stopped), 'trial')} given up before the end: {said}."
    if spent and whole:
        text += (
            f" On average this took {took(sum(spent) / len(spent))}, and a whole trial "
            f"{took(sum(whole) / len(whole))}."
        )
    rows = [
        [
            Cell(f"#{one.number}", sort=one.number),
            Cell(str((one.stopped or {}).get("by", ""))),
            Cell(str((one.stopped or {}).get("reason", ""))),
            Cell(parameters_text(one.parameters)),
            Cell(took(one.seconds), sort=one.seconds),
        ]
        for one in stopped[:_MOST_ROWS]
    ]
    heads = ["trial", "by", "reason", "parameters", "took"]
    return [Text(text), Table(heads, rows, "Each of them", folded=len(rows) > 8)]


def _trials(run: RunData) -> list[Block]:
    if not run.trials:
        return []
    chosen = run.trials[-_MOST_ROWS:]
    ranked = run.ranking is not None and any(one.value is not None for one in chosen)
    value = run.ranking[0] if ranked and run.ranking is not None else None
    nodes = len({where(one, one.node) for one in chosen} - {""}) > 1
    heads = ["trial", "kind", "outcome", *([value] if value else []), "took"]
    heads += [*(["node"] if nodes else []), "result"]
    rows = [_trial_row(one, value, nodes=nodes) for one in chosen]
    left = len(run.trials) - len(chosen)
    caption = (
        f"the last {len(chosen)} of {len(run.trials)}" if left else counted(len(chosen), "trial")
    )
    return [Table(heads, rows, caption, folded=len(rows) > 12)]


def _trial_row(one: Trial, value: str | None, *, nodes: bool) -> list[Cell]:
    said = parameters_text(one.parameters) if one.parameters else one.why
    result = said if one.status != "failed" else f"{said}: {one.said}"
    if value is None:
        result = one.said or one.why
    result = shortened(result, _MOST_RESULT)
    return [
        Cell(f"#{one.number}" if one.number >= 0 else "", sort=one.number),
        Cell(one.kind + (" (known)" if one.status == "reused" else "")),
        Cell(one.outcome, _TONES.get(one.outcome, "")),
        *([Cell(shown(one.value), sort=one.value)] if value else []),
        Cell(took(one.seconds), sort=one.seconds),
        *([Cell(where(one, one.node))] if nodes else []),
        Cell(result),
    ]


def _environment(run: RunData) -> list[Block]:
    """What the trials' environments say; differences between trials are shown, not hidden.

    Ids that Ray gave its nodes say nothing to a person.
    """
    seen: dict[str, Counter[str]] = {}
    for one in run.measured:
        for name, value in one.environment.items():
            if name != "node" and not isinstance(value, dict):
                seen.setdefault(name, Counter())[shown(value)] += 1
    rows = [
        [Cell(name), Cell(", ".join(_counted(values))), Cell(*_same(name, values))]
        for name, values in seen.items()
    ]
    return [Table(["what", "value", ""], rows)] if rows else []


def _counted(values: Counter[str]) -> list[str]:
    if len(values) == 1:
        return list(values)
    told = [f"{value} ({count})" for value, count in values.most_common(_MOST_VALUES)]
    return [*told, *([f"{len(values) - _MOST_VALUES} more"] if len(values) > _MOST_VALUES else [])]


def _same(name: str, values: Counter[str]) -> tuple[str, Tone]:
    if len(values) == 1 or name == "host":
        return "", ""
    return "not the same in all trials", "warn"


def _reproduce(run: RunData) -> list[Block]:
    if not run.document:
        return []
    folder = shlex.quote(run.folder)
    storage = shlex.quote(str(run.document.get("storage", "results")))
    text = "\n".join(
        (
            f"python -m tuner run {folder}/experiment.yaml            # what is known is reused",
            f"python -m tuner run {folder}/experiment.yaml --set storage={storage}-again   # anew",
            f"python -m tuner report {folder}                         # this page",
        )
    )
    document = yaml.safe_dump(dict(run.document), sort_keys=False, allow_unicode=True)
    return [
        Code("commands", text),
        Code("experiment.yaml", document.rstrip(), folded=True),
    ]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
