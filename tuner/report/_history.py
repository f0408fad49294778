"""The story of a run, from its ``events.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tuner.report._data import Attempt, Json, Trial

_ENDS = ("measured", "reused", "failed", "cancelled")


@dataclass(frozen=True)
class History:
    """What happened.

    Attributes:
        told: Each trial that the search was told of, in that order.
        attempts: Each time a trial was carried out, those under way included, in the order they
            began.
    """

    told: tuple[Trial, ...] = ()
    attempts: tuple[Attempt, ...] = ()


def read_history(file: Path, since: str | None, notes: list[str]) -> History:
    """The history of the run that began at ``since`` (ISO 8601; None: all of it).

    Lines that cannot be read are counted in ``notes``; a torn last line is being written.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return History()
    begun = 0.0 if since is None else datetime.fromisoformat(since).timestamp()
    events, bad = list[Mapping[str, Json]](), 0
    for line in lines:
        try:
            event = json.loads(line)
            if event["ts"] >= begun and event.get("trial"):
                events.append(event)
        except (ValueError, KeyError, TypeError):
            bad += 1
    if bad > 1:
        notes.append(f"{file.name}: {bad} lines cannot be read")
    return History(tuple(_told(events)), tuple(_attempts(events)))


def _told(events: Iterable[Mapping[str, Json]]) -> Iterable[Trial]:
    """A resumed run tells again what is known; then the first time counts."""
    trials: dict[str, Trial] = {}
    asked: dict[str, Mapping[str, Json]] = {}
    for event in events:
        identity, kind = event["trial"], event["event"]
        if kind == "proposed":
            asked[identity] = event
        before = trials.get(identity)
        known = before is not None and before.status in ("measured", "reused")
        if kind not in _ENDS or (kind == "reused" and known):
            continue
        trials.pop(identity, None)
        first = asked.get(identity, {})
        trials[identity] = Trial(
            identity,
            event["number"],
            event["kind"],
            kind,
            parameters=event.get("parameters") or first.get("parameters") or {},
            why=event.get("why") or first.get("why") or "",
            said=str(event.get("message", "")),
            failure=event.get("failure"),
            ended=event["ts"],
            node=str(event.get("node") or ""),
        )
    return trials.values()


def _attempts(events: Iterable[Mapping[str, Json]]) -> list[Attempt]:
    running: dict[str, Attempt] = {}
    ended: list[Attempt] = []
    last = 0.0
    for event in events:
        identity, kind, last = event["trial"], event["event"], event["ts"]
        if kind == "proposed":
            if (lost := running.pop(identity, None)) is not None:
                ended.append(replace(lost, status="lost"))
            running[identity] = Attempt(
                event["number"], event["kind"], identity, last, last, "running"
            )
        elif (attempt := running.pop(identity, None)) is not None:
            node = str(event.get("node") or "")
            ended.append(replace(attempt, ended=last, status=kind, node=node))
    under_way = [replace(attempt, ended=last) for attempt in running.values()]
    return sorted([*ended, *under_way], key=lambda attempt: attempt.begun)
