"""How a run looks in a terminal, and in a log file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner._aim import aim
from tuner._campaign import Event, Ticket
from tuner._tried import called, tried
from tuner._view import Row, Running, RunView
from tuner.experiment import format_duration

_HEARTBEAT_SECONDS = 60.0
_STAGE_SECONDS = 5.0
"""Stages that are over sooner are no news."""
_STYLES = {"measured": "green", "reused": "cyan", "failed": "red", "cancelled": "yellow"}
_ENDED = {"retry": "failed and is tried again"}


class Terminal:
    """Says what happens on stderr: a live panel for a person, plain lines for a file.

    Use as a context manager. ``view`` is drawn; messages that scroll by are printed above it.
    """

    def __init__(self, view: RunView, console: Console | None = None) -> None:
        self._view = view
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last_line = view.clock()
        self._lock = threading.Lock()
        self._stages: dict[str, str] = {}
        self._notes = 0

    def __enter__(self) -> Terminal:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=lambda: draw(self._view),
                console=self._console,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()
        self.say(f"wanted: {self._view.wanted()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, message: str, style: str = "") -> None:
        """Print one line with the time since the start."""
        with self._lock:
            clock = time.strftime("%H:%M:%S", time.gmtime(self._view.elapsed))
            self._console.print(Text(f"[{clock}] ").append(message, style=style))
            self._last_line = self._view.clock()

    def event(self, event: Event, row: Row | None) -> None:
        """Print what an event means to the user."""
        ticket = event.ticket
        if ticket is None:
            self.say(event.message, "yellow")
            return
        proposal = ticket.proposal
        name = called(proposal.number, proposal.kind)
        if event.kind == "proposed":
            again = f", attempt {ticket.attempt}" if ticket.attempt > 1 else ""
            self.say(f"{name} starts{again}: {tried(proposal)}")
        elif row is not None:
            self._stages.pop(ticket.identity, None)
            said = f"{name} {ended(vars(row))}{_folder(ticket, row)}"
            self.say(said, _STYLES.get(row.status, ""))
        if proposal.kind == "baseline" and event.outcome is not None:
            self._say_demand(event.outcome.metrics)
        if new := self._view.notes[self._notes :]:
            self.say(f"for all trials: {'; '.join(new)}")
            self._notes = len(self._view.notes)

    def _say_demand(self, baseline: Mapping[str, float]) -> None:
        """What is wanted, if that depends on the baseline."""
        objective = self._view.objective
        said = aim(objective, baseline)
        if said != aim(objective, None):
            self.say(f"wanted: {said}")

    def tick(self) -> None:
        """Call often: gives a log file a sign of life every minute, and of long stages."""
        if self._live is not None:
            return
        now = self._view.clock()
        for running in list(self._view.running.values()):
            self._say_stage(running, now)
        if now - self._last_line > _HEARTBEAT_SECONDS:
            self.say(" | ".join(_progress(self._view)))
            if running_now := _running_lines(self._view):
                self.say(f"running: {', '.join(running_now)}")

    def _say_stage(self, running: Running, now: float) -> None:
        ticket, stage = running.ticket, running.stage
        said = self._stages.get(ticket.identity)
        if stage != said and now - running.stage_since >= _STAGE_SECONDS:
            self._stages[ticket.identity] = stage
            name = called(ticket.proposal.number, ticket.proposal.kind)
            self.say(f"{name} stage {stage} {running.note}".rstrip())


def ended(row: Mapping[str, Any]) -> str:
    """What became of a trial, from its row: ``took 8 s: satisfied: ...``."""
    took = "" if row["seconds"] is None else format_duration(row["seconds"])
    if row["status"] == "measured" and took:
        return f"took {took}: {row['result']}"
    status = _ENDED.get(row["status"], row["status"])
    return f"{status}{f' after {took}' if took else ''}: {row['result']}"


def _folder(ticket: Ticket, row: Row) -> str:
    """Of a trial whose logs somebody will look for."""
    return f"  [{ticket.identity[:16]}]" if row.status in ("failed", "retry") else ""


def draw(view: RunView) -> Any:
    """The live panel: running trials, counts, best so far, times."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(view.running))
    for heading in ("trial", "stage", "for", "what"):
        table.add_column(heading, header_style="dim", no_wrap=heading != "what")
    now = view.clock()
    for running in list(view.running.values()):
        proposal = running.ticket.proposal
        table.add_row(
            called(proposal.number, proposal.kind),
            f"{running.stage} {running.note}".strip(),
            format_duration(now - running.stage_since),
            tried(proposal),
        )
    return Group(Text(_summary(view), style="bold"), table)


def _summary(view: RunView) -> str:
    return " | ".join([view.name, f"elapsed {format_duration(view.elapsed)}", *_progress(view)])


def _progress(view: RunView) -> list[str]:
    counts = view.counts
    parts = [f"{counts.measured} measured, {counts.reused} reused, {counts.failed} failed"]
    remaining = view.remaining_seconds()
    if remaining is not None:
        parts.append(f"about {format_duration(remaining)} to go")
    best = view.best()
    if best is not None:
        parts.append(f"best so far: {describe_parameters(best.parameters)}")
    return parts


def describe_parameters(parameters: Any) -> str:
    """Parameters in a few words: long lists as their length."""
    parts = []
    for name, value in parameters.items():
        if isinstance(value, list):
            shown = f"{len(value)} layers" if name == "fallback" else f"{len(value)} items"
        else:
            shown = str(value)
        parts.append(f"{name} {shown}")
    return ", ".join(parts) or "defaults"


def _running_lines(view: RunView) -> list[str]:
    now = view.clock()
    return [
        f"#{running.ticket.proposal.number} {running.stage} {running.note}".rstrip()
        + f" for {format_duration(now - running.stage_since)}"
        for running in list(view.running.values())
    ]


Say = Callable[[str], None]
"""Somewhere to tell the user one line."""
