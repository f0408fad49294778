"""What a person is told about a search for a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from searchers._contract import Done, Json, Proposal
from searchers._pd_split_options import PdSplitOptions
from searchers._pd_split_stage import OUT_OF_MEMORY, Rated, Stage
from searchers._pd_split_wholes import Key, Whole, Wholes, name_of

_MOST_SHOWN = 20
"""Splits that were not measured: the best of those."""


def account(
    options: PdSplitOptions,
    wholes: Wholes,
    stages: Mapping[Key, Stage],
    rated: Mapping[Key, Rated],
) -> dict[str, Json]:
    """Rates, factors and splits as JSON: the measured splits by what they did, then the others by
    what is expected of them."""
    possible = wholes.possible(rated)
    beliefs = wholes.beliefs(rated, possible)
    rows = [
        _row(whole, wholes, None if whole.matched is None else beliefs.rate(whole.split))
        for whole in possible
    ]
    rows.sort(key=lambda row: (-(row["requests_per_s"] or 0), -(row["expected"] or 0)))
    measured = [row for row in rows if row["requests_per_s"] is not None]
    others = [row for row in rows if row["requests_per_s"] is None]
    return {
        "devices": options.devices,
        "output_tokens": options.output_tokens,
        "instances": [_instance(options, stage) for stage in stages.values()],
        "factors": {role: round(factor, 4) for role, factor in beliefs.factors.items()},
        "splits": [*measured, *others[:_MOST_SHOWN]],
    }


def conclusion(
    best: Proposal | None,
    wholes: Wholes,
    stages: Mapping[Key, Stage],
    rated: Mapping[Key, Rated],
    left_out: Iterable[str] = (),
) -> Done:
    """The end of a search with nothing in flight; ``left_out`` are notes on what it never tries."""
    possible = wholes.possible(rated)
    notes = "".join(f"; {note}" for note in (*left_out, *_notes(wholes, possible, stages)))
    if best is not None:
        return Done("satisfied", best, _delivery(best, wholes, possible) + notes)
    if wholes.tried:
        tried = ", ".join(_did(whole, wholes) for whole in possible if whole.name in wholes.tried)
        said = f"no split keeps the limits: {tried or 'one mixed instance does not'}"
        return Done("exhausted", None, said + notes)
    reasons = [stage.failure for stage in stages.values() if stage.failure is not None]
    full = bool(reasons) and all(reason["class"] == OUT_OF_MEMORY for reason in reasons)
    infeasible = full and not wholes.failed and not possible
    said = "no split could be measured"
    return Done("exhausted" if infeasible else "failed", None, said + notes)


def _delivery(best: Proposal, wholes: Wholes, possible: Iterable[Whole]) -> str:
    measured = [whole for whole in possible if whole.name in wholes.tried]
    mine = name_of(best.parameters)
    won = [_did(whole, wholes) for whole in measured if whole.name == mine]
    others = [_did(whole, wholes) for whole in measured if whole.name != mine]
    said = won[0] if won else "one mixed instance alone"
    return f"{said}; measured beside it: {', '.join(others)}" if others else said


def _did(whole: Whole, wholes: Wholes) -> str:
    tried = wholes.tried[whole.name]
    facts = [] if tried.measured is None else [f"{tried.measured:.4g} requests/s"]
    if tried.beaten:
        facts = [f"at most {tried.held:.4g} requests/s"]
    if whole.matched is not None:
        facts.append(f"matched {whole.matched:.4g}")
    if not (tried.satisfied or tried.beaten):
        facts.append("breaks the limits")
    return f"{whole.split} ({', '.join(facts)})" if facts else str(whole.split)


def _notes(wholes: Wholes, possible: Iterable[Whole], stages: Mapping[Key, Stage]) -> Iterable[str]:
    """What was left out, and why."""
    for stage in stages.values():
        if stage.best is None and stage.failure is not None:
            yield f"{stage.shape} is not used for {stage.role}: {stage.failure['error']}"
    for whole in possible:
        if whole.name in wholes.failed:
            yield f"{whole.split} failed: {wholes.failed[whole.name]}"


def _row(whole: Whole, wholes: Wholes, expected: float | None) -> dict[str, Json]:
    tried = wholes.tried.get(whole.name)
    return {
        "split": str(whole.split),
        "parameters": dict(whole.parameters),
        "devices": whole.split.devices,
        "matched": whole.matched,
        "expected": expected,
        "requests_per_s": None if tried is None or tried.beaten else tried.measured,
        "at_most": tried.held if tried is not None and tried.beaten else None,
        "satisfied": None if tried is None else tried.satisfied,
        "objective": None if tried is None else tried.objective,
        "failure": wholes.failed.get(whole.name),
    }


def _instance(options: PdSplitOptions, stage: Stage) -> dict[str, Json]:
    best = stage.best
    return {
        "shape": stage.shape,
        "role": stage.role,
        "devices": options.shapes[stage.shape].devices,
        "requests_per_s": None if best is None else best.rate,
        "parameters": None if best is None else dict(best.parameters),
        "keeps_limits": None if best is None else best.kept,
        "failure": None if stage.failure is None else stage.failure["error"],
    }
