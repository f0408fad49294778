"""What has to be known beside the verdict."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.report._answer import demand_texts, headline, in_short, limits_of, sentence
from tuner.report._data import RunData, Trial, parameters_text, shortened, shown
from tuner.report._parts import Text

_MOST_NOTE = 400


def notes(run: RunData) -> list[Text]:
    """What has to be known beside the verdict."""
    ranked = None if run.ranking is None else f"{run.ranking[0]}:"
    said = [str(note) for note in run.result.get("notes", ())]
    said = [note for note in said if ranked is None or not note.startswith(ranked)]
    found = [Text(note, "warn" if "simulated" in note else "") for note in said]
    message = str(run.result.get("message", "")).rstrip(".")
    if message and message.lower() not in headline(run).lower():
        found.insert(0, Text(shortened(sentence(message), _MOST_NOTE)))
    if not said and any(trial.simulated for trial in run.candidates):
        found.append(Text("Some numbers are simulated; measure before you rely on them.", "warn"))
    if run.state == "exhausted" and (nearest := nearest_miss(run)):
        found.append(Text(nearest, "warn"))
    if run.state == "died":
        found.append(Text(f"Continue with: python -m tuner resume {run.folder}", "warn"))
    return found + [Text(f"Not readable: {note}", "warn") for note in run.notes]


def nearest_miss(run: RunData) -> str:
    """What comes nearest to the demand, and what it lacks; empty where nothing can be held to it.

    Nearest is the least sum of the shares of the limits by which they are missed; of equals, the
    one that ranks best.
    """
    limits, demands = limits_of(run), demand_texts(run)
    whole = [one for one in run.candidates if one.stopped is None]
    judged = [one for one in whole if limits.keys() <= one.metrics.keys()]
    if not limits or not judged:
        return ""
    sign = 1 if run.ranking is None else run.ranking[1]
    best = min(judged, key=lambda one: (_shortfall(one, limits), -sign * (one.value or 0.0)))
    lacking = [
        f"{name} {shown(best.metrics[name])} ({demands[name]})"
        for name, limit in limits.items()
        if _missed(best.metrics[name], *limit)
    ]
    what = parameters_text(in_short(best.parameters))
    return f"Nearest to the demand: {what}, with {', '.join(lacking)}." if lacking else ""


def _shortfall(trial: Trial, limits: Mapping[str, tuple[float, bool]]) -> float:
    return sum(_missed(trial.metrics[name], *limit) for name, limit in limits.items())


def _missed(value: float, limit: float, low_is_good: bool) -> float:
    over = value - limit if low_is_good else limit - value
    return max(0.0, over) / (abs(limit) or 1.0)
