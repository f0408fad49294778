"""What is going on in a run: the facts behind the terminal, ``status.json`` and the dashboard."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from searchers import Outcome, Proposal
from tuner._campaign import Campaign, Event, Ticket
from tuner._judge import BaselineMissing, judge
from tuner.experiment import Objective


@dataclass
class Running:
    """A trial under way."""

    ticket: Ticket
    since: float
    stage: str = "waiting for resources"
    stage_since: float = 0.0
    note: str = ""


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


@dataclass
class RunView:
    """State of a run, fed by campaign events and trial reports.

    ``clock`` gives monotonic seconds; ``spent_before`` are the seconds of earlier sessions.
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
        self._count(event.kind)
        if event.kind == "measured" and seconds is not None:
            self._durations.append(seconds)
        result = self.describe(ticket.proposal, event.outcome)
        proposal = ticket.proposal
        row = Row(
            proposal.number,
            proposal.kind,
            proposal.why,
            event.kind,
            result,
            seconds,
            ticket.identity,
        )
        self.rows.append(row)
        return row

    def on_report(self, report: Mapping[str, Any]) -> bool:
        """Take a running trial's report in; True if its stage changed."""
        running = self.running.get(report.get("identity", ""))
        if running is None or report.get("status") != "running":
            return False
        running.note = report.get("note", "")
        if running.stage == report["stage"]:
            return False
        running.stage, running.stage_since = report["stage"], self.clock()
        return True

    def describe(self, proposal: Proposal, outcome: Outcome | None) -> str:
        """The result of a trial in a few words."""
        if outcome is None:
            return ""
        if outcome.status == "failed":
            failure = outcome.data.get("failure", {})
            return f"{failure.get('class', 'failed')}: {outcome.error}"
        if outcome.status == "cancelled":
            return "cancelled: its answer is known without it"
        if proposal.kind == "analysis":
            return f"{len(outcome.data.get('ranking', ()))} groups of layers ranked"
        if proposal.kind == "baseline":
            return ", ".join(self._metric(key, outcome.metrics) for key in self._wanted())
        baseline = self.campaign.baseline if self.campaign else None
        try:
            judgement = judge(self.objective, outcome.metrics, baseline)
        except BaselineMissing:
            return "held until the baseline is measured"
        noted = "note" in outcome.data
        parts = [str(check) for check in judgement.checks if check.value is not None or not noted]
        named = [*self.objective.maximize, *self.objective.minimize]
        parts[:0] = [self._metric(name, outcome.metrics) for name in named]
        if note := outcome.data.get("note"):
            parts.append(str(note))
        satisfied = judgement.satisfied and "stopped" not in outcome.data
        return ("satisfied: " if satisfied else "not satisfied: ") + ", ".join(parts)

    def remaining_seconds(self) -> float | None:
        """Estimate from the median duration of this session's trials; None when unknown."""
        rest = self.campaign.remaining() if self.campaign else None
        if rest is None or not self._durations:
            return None
        return rest * statistics.median(self._durations) / max(1, self.width)

    def best(self) -> Proposal | None:
        return self.campaign.best() if self.campaign else None

    def to_json(self) -> dict[str, Any]:
        """Content of ``status.json`` while the run is under way."""
        now = self.clock()
        best = self.best()
        return {
            "name": self.name,
            "elapsed_s": round(self.elapsed, 1),
            "remaining_s": self.remaining_seconds(),
            "counts": vars(self.counts),
            "running": [
                {
                    "trial": running.ticket.identity[:16],
                    "kind": running.ticket.proposal.kind,
                    "why": running.ticket.proposal.why,
                    "attempt": running.ticket.attempt,
                    "stage": running.stage,
                    "stage_s": round(now - running.stage_since, 1),
                    "note": running.note,
                }
                for running in self.running.values()
            ],
            "best": None if best is None else dict(best.parameters),
            "baseline": self.campaign.baseline if self.campaign else None,
            "dashboard": self.dashboard,
            "trials": [vars(row) for row in self.rows],
        }

    def _count(self, kind: str) -> None:
        name = "retries" if kind == "retry" else kind
        setattr(self.counts, name, getattr(self.counts, name) + 1)

    def _wanted(self) -> list[str]:
        keys = [expectation.key for expectation in self.objective.expectations]
        keys += [*self.objective.maximize, *self.objective.minimize]
        return keys + [limit.metric for limit in self.objective.limits]

    def _metric(self, key: str, metrics: Mapping[str, float]) -> str:
        return f"{key} {metrics[key]:.4g}" if key in metrics else f"{key} missing"
