"""The story of a run, from its ``events.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tuner._view import DEVICES
from tuner.report._data import Attempt, Json, Trial

_ENDS = ("measured", "reused", "failed", "cancelled")


@dataclass(frozen=True)
class History:
    """What happened.

    Attributes:
        told: Each trial that the search was told of, in that order.
        attempts: Each time a trial was carried out, those under way included, in the order they
            began.
        nodes: What was said of nodes, and when, in seconds since the epoch.
    """

    told: tuple[Trial, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    nodes: tuple[tuple[float, str], ...] = ()


def read_history(file: Path, sessions: Sequence[str], notes: list[str]) -> History:
    """The history of the run whose ``sessions`` began then (ISO 8601); of none, all there is.

    Lines that cannot be read are counted in ``notes``; a torn last line is being written.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return History()
    begins = [datetime.fromisoformat(one).timestamp() for one in sessions]
    begun = min(begins, default=0.0)
    events, bad = list[Mapping[str, Json]](), 0
    for line in lines:
        try:
            event = json.loads(line)
            if event["ts"] >= begun:
                events.append(event)
        except (ValueError, KeyError, TypeError):
            bad += 1
    if bad > 1:
        notes.append(f"{file.name}: {bad} lines cannot be read")
    of_trials = [event for event in events if event.get("trial")]
    nodes = [(one["ts"], str(one["message"])) for one in events if one["event"] == "nodes"]
    return History(tuple(_told(of_trials)), tuple(_attempts(of_trials, begins)), tuple(nodes))


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


def _attempts(events: Iterable[Mapping[str, Json]], sessions: Sequence[float]) -> list[Attempt]:
    """Each ends where it was told; one that was carried out anew instead, when it was last heard
    of: before the session that did so, or just then."""
    running: dict[str, Attempt] = {}
    ended: list[Attempt] = []
    last = session = heard = 0.0
    for event in events:
        identity, kind, now = event["trial"], event["event"], event["ts"]
        if (latest := max((one for one in sessions if one <= now), default=0.0)) > session:
            session, heard = latest, last
        last = now
        before = running.get(identity)
        if before is not None and (
            kind == "proposed" or (kind == "begun" and before.started is not None)
        ):
            gone = max(before.begun, heard) if before.begun < session else now
            ended.append(replace(before, ended=gone, status="lost"))
            before = running[identity] = replace(before, begun=now, started=None, places={})
        if kind == "proposed":
            running[identity] = Attempt(
                event["number"], event["kind"], identity, now, now, "running"
            )
        elif kind == "begun" and before is not None:
            running[identity] = _located(before, event)
        elif kind == "spread":
            if before is not None:
                running[identity] = replace(before, places=_places(event))
        elif before is not None:
            del running[identity]
            failure = event.get("failure")
            ended.append(replace(before, ended=now, status=kind, failure=failure))
    under_way = [replace(attempt, ended=last) for attempt in running.values()]
    return sorted([*ended, *under_way], key=lambda attempt: attempt.begun)


def _places(event: Mapping[str, Json]) -> dict[str, float]:
    """Devices by address; a node that has none of them leads, and no more."""
    bundles = [(str(one["address"]), one["resources"]) for one in event["bundles"]]
    device = next((name for name in DEVICES if any(held.get(name) for _, held in bundles)), "CPU")
    found: dict[str, float] = {}
    for address, held in bundles:
        if held.get(device):
            found[address] = found.get(address, 0.0) + float(held[device])
    return found


def _located(attempt: Attempt, event: Mapping[str, Json]) -> Attempt:
    held = event.get("resources") or {}
    devices = next((float(held[name]) for name in DEVICES if held.get(name)), 1.0)
    address = str(event.get("address") or event.get("node") or "")
    return replace(attempt, started=event["ts"], address=address, devices=devices)
