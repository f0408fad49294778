"""What is going on in a run: the facts behind the terminal, ``status.json`` and the dashboard."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from searchers import Outcome, Proposal
from trainables import figure
from tuner._aim import aim
from tuner._campaign import Campaign, Event, Ticket
from tuner._judge import BaselineMissing, judge
from tuner._phases import PHASES, Phase, phase_of
from tuner._tried import tried
from tuner.experiment import Objective

DEVICES = ("NPU", "GPU", "CPU")
"""What counts as the device of a run: the first of these that a trial asks for."""


@dataclass
class Running:
    """A trial under way.

    Attributes:
        node: Host of its supervisor; empty until the trial has reported.
        address: Of that host in the cluster.
        resource: Which of :data:`DEVICES` it holds.
        devices: How many of them, on all its nodes together; 0 until it has reported.
        spread: Whether it is known on which nodes all its bundles are.
        counted: Until when its time has been added to :attr:`RunView.device_seconds`.
    """

    ticket: Ticket
    since: float
    stage: str = "waiting for resources"
    stage_since: float = 0.0
    note: str = ""
    node: str = ""
    address: str = ""
    resource: str = "CPU"
    devices: float = 0.0
    spread: bool = False
    counted: float = 0.0


@dataclass
class Counts:
    """Trials of this session by what became of them."""

    measured: int = 0
    reused: int = 0
    failed: int = 0
    cancelled: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Row:
    """One finished trial, for tables."""

    number: int
    kind: str
    what: str
    status: str
    result: str
    seconds: float | None
    identity: str
    node: str = ""
    devices: float = 0.0


@dataclass(frozen=True)
class Judged:
    """A measured candidate in two numbers.

    Attributes:
        attainment: Share of the demands and limits that it meets; None: nothing is demanded.
        value: What ranks, as measured; None where nothing ranks or it was not measured.
    """

    attainment: float | None
    value: float | None


@dataclass
class RunView:
    """State of a run, fed by campaign events and trial reports.

    ``clock`` gives monotonic seconds; ``spent_before`` are the seconds of earlier sessions.

    Attributes:
        failures: Attempts of this session that failed, by class of failure.
        device_seconds: Time that trials of this session held devices, by what they did.
        resource: Which of :data:`DEVICES` the trials hold.
        notes: How engines are simulated, as far as trials have told.
        judged: What is said of each measured candidate, by its identity.
        last: What is said of the candidate measured last.
    """

    name: str
    objective: Objective
    spent_before: float = 0.0
    clock: Callable[[], float] = time.monotonic
    campaign: Campaign | None = None
    counts: Counts = field(default_factory=Counts)
    running: dict[str, Running] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    dashboard: str | None = None
    width: int = 1
    failures: Counter[str] = field(default_factory=Counter)
    device_seconds: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    resource: str = "CPU"
    notes: list[str] = field(default_factory=list)
    judged: dict[str, Judged] = field(default_factory=dict)
    last: Judged | None = None

    def __post_init__(self) -> None:
        self._begun = self.clock()
        self._durations: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds, earlier sessions of the same run included."""
        return self.spent_before + self.clock() - self._begun

    def on_event(self, event: Event) -> Row | None:
        """Take an event in; the finished trial's row, if the event ended one."""
        ticket = event.ticket
        if ticket is None:
            return None
        if event.kind == "proposed":
            now = self.clock()
            self.running[ticket.identity] = Running(ticket, now, stage_since=now)
            return None
        running = self.running.pop(ticket.identity, None)
        seconds = None if running is None else self.clock() - running.since
        if running is not None:
            self._count_devices(running)
        self._count(event)
        if event.kind == "measured" and seconds is not None:
            self._durations.append(seconds)
        if event.outcome is not None:
            self._hear(event.outcome)
        result = self.describe(ticket.proposal, event.outcome)
        proposal = ticket.proposal
        row = Row(
            proposal.number,
            proposal.kind,
            tried(proposal),
            event.kind,
            result,
            seconds,
            ticket.identity,
            "" if running is None else running.node,
            0.0 if running is None else running.devices,
        )
        self.rows.append(row)
        return row

    def on_report(self, report: Mapping[str, Any]) -> bool:
        """Take a running trial's report in; True if its stage changed."""
        running = self.running.get(report.get("identity", ""))
        if running is None:
            return False
        first = not running.devices
        if first:
            self._place(running, report)
        if report.get("status") != "running":
            return False
        running.note = report.get("note", "")
        if running.stage == report["stage"]:
            return False
        if not first:
            self._count_devices(running)
        running.stage, running.stage_since = report["stage"], self.clock()
        return True

    def spread(self, report: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What a trial of several bundles holds where, when that becomes known: ``{address,
        resources}`` of each."""
        running = self.running.get(report["identity"])
        if running is None or running.spread or not report.get("addresses"):
            return []
        running.spread = True
        addresses = [report["node_ip"], *report["addresses"]]
        bundles = report["config"]["placement"]["bundles"]
        return [
            {"address": address, "resources": bundle["resources"]}
            for address, bundle in zip(addresses, bundles, strict=True)
        ]

    def describe(self, proposal: Proposal, outcome: Outcome | None) -> str:
        """The result of a trial in a few words."""
        if outcome is None:
            return ""
        if outcome.status == "failed":
            failure = outcome.data.get("failure", {})
            return f"{failure.get('class', 'failed')}: {outcome.error}"
        if outcome.status == "cancelled":
            return "its answer is known without it"
        if proposal.kind == "analysis":
            return f"{len(outcome.data.get('ranking', ()))} groups of layers ranked"
        if proposal.kind == "baseline":
            return ", ".join(self._metric(key, outcome.metrics) for key in self._wanted())
        if proposal.kind not in ("candidate", "verification"):
            return self._part(outcome)
        baseline = self.campaign.baseline if self.campaign else None
        try:
            judgement = judge(self.objective, outcome.metrics, baseline)
        except BaselineMissing:
            return "held until the baseline is measured"
        noted = "note" in outcome.data
        stopped = "stopped" in outcome.data
        held = [check for check in judgement.checks if check.value is not None or not noted]
        named = [*self.objective.maximize, *self.objective.minimize]
        parts = [self._metric(name, outcome.metrics) for name in named]
        parts += [
            self._metric(check.metric, outcome.metrics) if check.ok else str(check)
            for check in held
            if not (check.ok and stopped)
        ]
        parts = [*dict.fromkeys(parts), *self._note(outcome)]
        verdict = "satisfied" if judgement.satisfied else "not satisfied"
        if judgement.satisfied and stopped:
            verdict = "cannot win"
        return f"{verdict}: {', '.join(parts)}"

    def _part(self, outcome: Outcome) -> str:
        """What a part of an answer did, such as one instance alone: no demand is held to it."""
        known = [key for key in self._wanted() if key in outcome.metrics]
        parts = [self._metric(key, outcome.metrics) for key in known] + self._note(outcome)
        return ", ".join(parts) or "measured"

    def _hear(self, outcome: Outcome) -> None:
        """Take in how an engine is simulated, which is the same for most trials."""
        if "simulation" in outcome.data:
            stages = [f"{run['stage']}: " for run in outcome.data.get("runs", ())]
            own = ("given up (", *stages)
            said = [one for one in _noted(outcome) if not one.startswith(own)]
            self.notes += [one for one in said if one not in self.notes]

    def _note(self, outcome: Outcome) -> list[str]:
        """What is said beside the numbers of this trial alone."""
        said = "; ".join(one for one in _noted(outcome) if one not in self.notes)
        return [said] if said else []

    def remaining_seconds(self) -> float | None:
        """Estimate from the median duration of this session's trials; None when unknown."""
        rest = self.campaign.remaining() if self.campaign else None
        if rest is None or not self._durations:
            return None
        return rest * statistics.median(self._durations) / max(1, self.width)

    def wanted(self) -> str:
        """See :func:`tuner._aim.aim`."""
        return aim(self.objective, self.campaign.baseline if self.campaign else None)

    def best(self) -> Proposal | None:
        """The best so far; what is delivered, once that is known."""
        if self.campaign is None:
            return None
        final = self.campaign.final
        return self.campaign.best() if final is None else final.best

    def to_json(self) -> dict[str, Any]:
        """Content of ``status.json`` while the run is under way."""
        now = self.clock()
        best = self.best()
        account = self.campaign.search.account() if self.campaign else {}
        return {
            **({"account": account} if account else {}),
            "name": self.name,
            "elapsed_s": round(self.elapsed, 1),
            "remaining_s": self.remaining_seconds(),
            "counts": vars(self.counts),
            "wanted": self.wanted(),
            "notes": self.notes,
            "running": [
                {
                    "trial": running.ticket.identity[:16],
                    "number": running.ticket.proposal.number,
                    "kind": running.ticket.proposal.kind,
                    "why": tried(running.ticket.proposal),
                    "attempt": running.ticket.attempt,
                    "stage": running.stage,
                    "stage_s": round(now - running.stage_since, 1),
                    "note": running.note,
                    "node": running.address or running.node,
                }
                for running in self.running.values()
            ],
            "best": None if best is None else dict(best.parameters),
            "baseline": self.campaign.baseline if self.campaign else None,
            "dashboard": self.dashboard,
            "trials": [vars(row) for row in self.rows],
        }

    def count_devices(self) -> None:
        """Bring :attr:`device_seconds` up to this moment."""
        for running in self.running.values():
            self._count_devices(running)

    def judged_best(self) -> Judged | None:
        """What is said of the best so far; None while there is none."""
        best = self.best()
        if best is None or self.campaign is None:
            return None
        return self.judged.get(self.campaign.identify(replace(best, kind="candidate")))

    def _place(self, running: Running, report: Mapping[str, Any]) -> None:
        """Where it runs and since when, as Ray's report of it says."""
        placement = report.get("config", {}).get("placement", {})
        held: Counter[str] = Counter()
        for bundle in placement.get("bundles", ()):
            held.update(bundle["resources"])
        running.node = str(report.get("hostname", ""))
        running.address = str(report.get("node_ip", ""))
        running.resource = next((name for name in DEVICES if held.get(name)), DEVICES[-1])
        running.devices = float(held.get(running.resource, 0.0))
        running.counted = max(running.since, self.clock() - report.get("time_total_s", 0.0))
        self.resource = min(self.resource, running.resource, key=DEVICES.index)

    def _count_devices(self, running: Running) -> None:
        if running.devices:
            now, begun = self.clock(), running.counted
            self.device_seconds[phase_of(running.stage)] += running.devices * (now - begun)
            running.counted = now

    def _count(self, event: Event) -> None:
        name = "retries" if event.kind == "retry" else event.kind
        setattr(self.counts, name, getattr(self.counts, name) + 1)
        outcome, ticket = event.outcome, event.ticket
        if outcome is None or ticket is None:
            return
        if outcome.status == "failed":
            self.failures[str(outcome.data.get("failure", {}).get("class", "tool"))] += 1
        elif outcome.status == "measured" and ticket.proposal.kind == "candidate":
            self._judge(ticket.identity, outcome)

    def _judge(self, identity: str, outcome: Outcome) -> None:
        baseline = self.campaign.baseline if self.campaign else None
        try:
            judgement = judge(self.objective, outcome.metrics, baseline)
        except BaselineMissing:
            return
        ranking, value = self.objective.ranking, judgement.objective
        if ranking is not None and value is not None:
            value *= ranking[1]
        met = [check.ok for check in judgement.checks]
        self.last = Judged(sum(met) / len(met) if met else None, value)
        self.judged[identity] = self.last

    def _wanted(self) -> list[str]:
        keys = [expectation.key for expectation in self.objective.expectations]
        keys += [*self.objective.maximize, *self.objective.minimize]
        return keys + [limit.metric for limit in self.objective.limits]

    def _metric(self, key: str, metrics: Mapping[str, float]) -> str:
        return f"{key} {figure(metrics[key])}" if key in metrics else f"{key} missing"


def _noted(outcome: Outcome) -> list[str]:
    note = outcome.data.get("note")
    return str(note).split("; ") if note else []


def event_record(event: Event, row: Row | None) -> dict[str, Any]:
    """Of an event, what is kept of it in ``events.jsonl``."""
    record: dict[str, Any] = {
        "event": event.kind,
        "trial": None,
        "number": None,
        "kind": None,
        "message": event.message if row is None else row.result,
        "failure": None if event.outcome is None else event.outcome.data.get("failure"),
    }
    if (ticket := event.ticket) is not None:
        proposal = ticket.proposal
        record |= {
            "trial": ticket.identity[:16],
            "number": proposal.number,
            "kind": proposal.kind,
        }
        if event.kind == "proposed":
            record |= {"parameters": dict(proposal.parameters), "why": proposal.why}
    return record
