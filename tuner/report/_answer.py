"""The answer of a run in a sentence, and the numbers that it stands on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner._words import counted
from tuner.experiment import format_duration
from tuner.report._data import Json, RunData, Trial, parameters_text, repeats, shown
from tuner.report._parts import Cell, Fact, Table, Tone

_TONES: Mapping[str, Tone] = {
    "satisfied": "good",
    "budget": "warn",
    "exhausted": "bad",
    "failed": "bad",
    "died": "bad",
    "interrupted": "warn",
}
_KNOWN = (
    "output_tokens_per_s", "requests_per_s", "success_rate", "concurrency", "request_rate",
    "ttft_mean_s", "ttft_p90_s", "ttft_p99_s", "tpot_mean_s", "tpot_p90_s", "tpot_p99_s",
    "e2el_mean_s", "startup_s",
)  # fmt: skip
"""Metrics of a serving trial that a person looks at, the most telling first."""
_MOST_SHOWN = 14
_MOST_DEMANDS = 3
_MOST_MESSAGE = 80
"""Characters of the search's own words that a headline takes."""
_SURE = 2.0
_UNSEEN = 5e-4
"""Share of a value below which its error is not shown: no digit that is would change."""


@dataclass(frozen=True)
class Gain:
    """How much better the winner is than the baseline, in percent of it.

    Attributes:
        margin: Two standard errors of the difference; None where one side was measured only once,
            so that noise is not known.
    """

    percent: float
    margin: float | None

    @property
    def significant(self) -> bool:
        return self.margin is None or abs(self.percent) > self.margin

    def __str__(self) -> str:
        if self.margin is None:
            return f"{self.percent:+.1f} % over the baseline (single runs, so noise is not known)"
        said = f"{self.percent:+.1f} % (±{self.margin:.1f} %)"
        return f"{said} over the baseline" if self.significant else f"{said}, which is noise"


def tone_of(run: RunData) -> Tone:
    return _TONES.get(run.state, "")


def headline(run: RunData) -> str:
    """The verdict in one sentence."""
    message = str(run.result.get("message", "")).rstrip(".")
    if run.state == "running":
        best = "" if run.best is None else f"; best so far: {told(run)}"
        return f"Under way: {len(run.candidates)} candidates measured{best}."
    if run.state in ("died", "interrupted", "not started"):
        said = {
            "died": "The driver of this run was killed",
            "interrupted": "This run was interrupted",
            "not started": "This run has not started",
        }[run.state]
        best = "" if run.best is None else f"; best so far: {told(run)}"
        return f"{said}{best}."
    if run.state in ("exhausted", "failed") or run.best is None:
        fallback = "nothing in the space satisfies" if run.state == "exhausted" else "no answer"
        return f"{sentence(message or fallback)}{_failed_for(run)}"
    gain = gain_of(run)
    if is_default(run):
        return f"No significant gain over the default: the baseline itself is best, {told(run)}."
    if gain is not None and not gain.significant:
        return f"No significant gain over the default: {told(run)}, {gain}."
    if run.ranking is None:
        return sentence(message)
    budget = "The budget is spent; best so far" if run.state == "budget" else "Best"
    short = f" ({message})" if 0 < len(message) <= _MOST_MESSAGE else ""
    return f"{budget}: {told(run)}{'' if gain is None else f', {gain}'}{short}."


def _failed_for(run: RunData) -> str:
    """What most of the failed trials failed of."""
    classes = Counter(str((one.failure or {}).get("class", "tool")) for one in run.failed)
    said = ", ".join(f"{name} ({count})" for name, count in classes.most_common(3))
    return f" Failures: {said}." if said else ""


def told(run: RunData) -> str:
    """The best in a few words, with its value."""
    assert run.best is not None
    winner = run.winner()
    what = _split_of(run) or parameters_text(in_short(run.best))
    if winner is None or winner.value is None or run.ranking is None:
        return what
    name = run.ranking[0]
    return f"{what} has {name} {with_error(winner.metrics, name, winner.value)}"


def _split_of(run: RunData) -> str | None:
    """What the search calls the best, where it searched splits of devices."""
    for split in run.account.get("splits") or ():
        if dict(split.get("parameters") or {}) == dict(run.best or {}):
            return str(split["split"])
    return None


def gain_of(run: RunData) -> Gain | None:
    """The winner beside the baseline; None where one of them was not measured."""
    winner, baseline = run.winner(), run.baseline
    if winner is None or winner.value is None or baseline is None or run.ranking is None:
        return None
    name, sign = run.ranking
    base = baseline.get(name)
    if not base:
        return None
    margin = _margin(name, winner.metrics, baseline)
    share = None if margin is None else 100 * margin / abs(base)
    return Gain(100 * sign * (winner.value - base) / abs(base), share)


def margin_of(run: RunData, other: RunData) -> float | None:
    """Two standard errors of the difference of two runs' winners; None where they are not known."""
    one, two = run.winner(), other.winner()
    if one is None or two is None or run.ranking is None:
        return None
    return _margin(run.ranking[0], one.metrics, two.metrics)


def _margin(name: str, one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    errors = [metrics.get(f"{name}_se") for metrics in (one, other)]
    known = [error for error in errors if error is not None]
    return _SURE * math.hypot(*known) if len(known) == 2 else None


def is_default(run: RunData) -> bool:
    """The baseline itself is the answer."""
    return "nothing measured beats the baseline" in str(run.result.get("message", ""))


def facts(run: RunData) -> list[Fact]:
    """The numbers at the top."""
    found = []
    winner = run.winner()
    if winner is not None and winner.value is not None and run.ranking is not None:
        name = run.ranking[0]
        found.append(
            Fact(name, with_error(winner.metrics, name, winner.value), _source(winner), "good")
        )
    if run.baseline is not None and run.ranking is not None and run.ranking[0] in run.baseline:
        name = run.ranking[0]
        found.append(Fact("baseline", with_error(run.baseline, name), name))
    if run.best is not None and isinstance(run.best.get("fallback"), list):
        found += _fallback_facts(run, run.best["fallback"])
    found += _demand_facts(run)
    found.append(Fact("trials", str(len(run.measured)), f"measured, {len(run.failed)} failed"))
    if (elapsed := run.status.get("elapsed_s")) is not None:
        found.append(Fact("time", format_duration(elapsed), "of searching"))
    return found


def _demand_facts(run: RunData) -> list[Fact]:
    """What the winner has of the accuracy that is demanded, beside the baseline."""
    winner = run.winner()
    if winner is None or run.objective is None:
        return []
    demands = demand_texts(run)
    found = []
    for name in dict.fromkeys(one.key for one in run.objective.expectations):
        if name in winner.metrics:
            base = (run.baseline or {}).get(name)
            beside = [] if base is None else [f"baseline {shown(base)}"]
            note = ", ".join([*beside, demands.get(name, "")]).rstrip(", ")
            tone: Tone = "good" if winner.satisfied else ""
            found.append(Fact(name, shown(winner.metrics[name]), note, tone))
    return found[:_MOST_DEMANDS]


def _fallback_facts(run: RunData, fallen: Sequence[str]) -> list[Fact]:
    analysis = run.of_kind("analysis")
    ranking = [] if analysis is None else analysis.data.get("ranking", [])
    layers = counted(len(fallen), "layer")
    if not ranking:
        return [Fact("falls back", layers)]
    steps = sum(set(fallen).issuperset(step["layers"]) for step in ranking)
    return [Fact("falls back", f"{steps} of {len(ranking)}", f"steps of the ranking: {layers}")]


def comparison(run: RunData) -> list[Table]:
    """Baseline, winner and verification side by side: what matters, then everything."""
    columns = _columns(run)
    if not columns:
        return []
    names = metric_names(run, [metrics for _, _, metrics in columns])
    chosen = names[:_MOST_SHOWN]
    heads = ["metric", *(label for label, _, _ in columns)]
    demands = demand_texts(run)
    main = [_row(name, columns, demands, run) for name in chosen]
    caption = "± two standard errors over the repeats, about 95 %."
    found = [Table([*heads, "demand"], main, caption)]
    if rest := names[_MOST_SHOWN:]:
        rows = [_row(name, columns, demands, run)[:-1] for name in rest]
        found.append(Table(heads, rows, f"{len(rest)} more metrics", folded=True))
    return found


def metric_names(run: RunData, documents: Iterable[Mapping[str, float]]) -> list[str]:
    """Metrics in the order that a person wants: what the objective names, what is known, others."""
    there = dict.fromkeys(name for one in documents for name in one if not name.endswith("_se"))
    objective = run.objective
    wanted: list[str] = []
    if objective is not None:
        wanted += [name for name, _ in objective.goal().objectives]
        wanted += [one.key for one in objective.expectations]
        wanted += [one.metric for one in objective.limits]
    known = _KNOWN if run.trial_type in ("serving", "disaggregated") else ()
    return [name for name in dict.fromkeys([*wanted, *known, *there]) if name in there]


def demand_texts(run: RunData) -> dict[str, str]:
    """What is asked of each metric."""
    found: dict[str, list[str]] = {}
    if run.objective is None:
        return {}
    for limit in run.objective.limits:
        parts = found.setdefault(limit.metric, [])
        parts += [f"≤ {limit.max:g}"] if limit.max is not None else []
        parts += [f"≥ {limit.min:g}"] if limit.min is not None else []
    for name, (worst, low_is_good) in limits_of(run).items():
        found.setdefault(name, [f"{'≤' if low_is_good else '≥'} {worst:.5g}"])
    for name, sign in run.objective.goal().objectives:
        found.setdefault(name, []).append("maximise" if sign > 0 else "minimise")
    return {name: ", ".join(parts) for name, parts in found.items()}


def limits_of(run: RunData) -> dict[str, tuple[float, bool]]:
    """Of each metric that is held against something: the worst value, and whether low is good."""
    from tuner._judge import BaselineMissing, judge

    if run.objective is None:
        return {}
    try:
        checks = judge(run.objective, run.baseline or {}, run.baseline).checks
    except BaselineMissing:
        return {}
    return {check.metric: (check.limit, check.lower_is_better) for check in checks}


def with_error(metrics: Mapping[str, float], name: str, value: float | None = None) -> str:
    """A value, with two standard errors where they are known and not zero."""
    value = metrics.get(name) if value is None else value
    if value is None:
        return ""
    error = metrics.get(f"{name}_se")
    if not error:
        return shown(value)
    digits = max(0, 1 - math.floor(math.log10(_SURE * error)))
    if value and _SURE * error < _UNSEEN * abs(value):
        return shown(value, 5)
    return f"{value:,.{digits}f} ± {_SURE * error:,.{digits}f}"


def _columns(run: RunData) -> list[tuple[str, int | None, Mapping[str, float]]]:
    """Label, number of repeats and metrics of each measurement to compare."""
    winner = run.winner()
    found: list[tuple[str, int | None, Mapping[str, float]]] = []
    if lines := run.result.get("comparison"):
        for line in lines:
            trial = _trial_of(run, str(line["what"]))
            count = None if trial is None else repeats(trial)
            found.append((_label(str(line["what"]), count), count, line["metrics"]))
        return found
    if run.baseline is not None:
        found.append(("baseline", None, run.baseline))
    if winner is not None:
        count = repeats(winner)
        found.append((_label("best so far", count), count, winner.metrics))
    return found


def _trial_of(run: RunData, what: str) -> Trial | None:
    if what == "baseline":
        return run.of_kind("baseline")
    if what == "verified":
        return run.of_kind("verification")
    mine = [one for one in run.candidates if dict(one.parameters) == dict(run.best or {})]
    return mine[-1] if what == "best" and mine else None


def _label(what: str, count: int | None) -> str:
    return what if count is None or count < 2 else f"{what} ({count} repeats)"


def _row(
    name: str,
    columns: Sequence[tuple[str, int | None, Mapping[str, float]]],
    demands: Mapping[str, str],
    run: RunData,
) -> list[Cell]:
    limit = limits_of(run).get(name)
    cells = [Cell(name)]
    for label, _, metrics in columns:
        value = metrics.get(name)
        tone: Tone = ""
        if value is not None and limit is not None and not label.startswith("baseline"):
            tone = "good" if (value <= limit[0]) == limit[1] or value == limit[0] else "bad"
        cells.append(Cell(with_error(metrics, name) + _change(name, label, metrics, run), tone))
    return [*cells, Cell(demands.get(name, ""), "dim")]


def _change(name: str, label: str, metrics: Mapping[str, float], run: RunData) -> str:
    base = (run.baseline or {}).get(name)
    if label.startswith("baseline") or not base or name not in metrics:
        return ""
    change = 100 * (metrics[name] - base) / abs(base)
    return f" ({change:+.1f} %)" if abs(change) >= 0.05 else ""


def in_short(parameters: Mapping[str, Json]) -> dict[str, Json]:
    return {
        name: f"{len(value)} layers" if isinstance(value, list) and name == "fallback" else value
        for name, value in parameters.items()
    }


def _source(trial: Trial) -> str:
    count = repeats(trial)
    said = "simulated" if trial.simulated else "measured"
    if trial.kind == "verification":
        said = "verified" if not trial.simulated else "simulated again"
    return said if count is None or count < 2 else f"{said}, mean of {count}"


def sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "."
