"""How a run looks in a terminal, and in a log file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner._campaign import Event
from tuner._tried import tried
from tuner._view import Row, RunView
from tuner.experiment import format_duration

_HEARTBEAT_SECONDS = 60.0
_STYLES = {"measured": "green", "reused": "cyan", "failed": "red", "cancelled": "yellow"}


class Terminal:
    """Says what happens on stderr: a live panel for a person, plain lines for a file.

    Use as a context manager. ``view`` is drawn; messages that scroll by are printed above it.
    """

    def __init__(self, view: RunView, console: Console | None = None) -> None:
        self._view = view
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Terminal:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=lambda: draw(self._view),
                console=self._console,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, message: str, style: str = "") -> None:
        """Print one line with the time since the start."""
        with self._lock:
            clock = time.strftime("%H:%M:%S", time.gmtime(self._view.elapsed))
            self._console.print(Text(f"[{clock}] ").append(message, style=style))
            self._last_line = time.monotonic()

    def event(self, event: Event, row: Row | None) -> None:
        """Print what an event means to the user."""
        ticket = event.ticket
        if ticket is None:
            self.say(event.message, "yellow")
            return
        name = f"#{ticket.proposal.number} {ticket.proposal.kind}"
        if event.kind == "proposed":
            again = f", attempt {ticket.attempt}" if ticket.attempt > 1 else ""
            self.say(f"{name} starts{again}: {tried(ticket.proposal)}  [{ticket.identity[:16]}]")
        elif row is not None:
            took = "" if row.seconds is None else f" ({format_duration(row.seconds)})"
            self.say(f"{name} {row.status}{took}: {row.result}", _STYLES.get(row.status, ""))

    def tick(self) -> None:
        """Call often: gives a log file a sign of life every minute."""
        if self._live is None and time.monotonic() - self._last_line > _HEARTBEAT_SECONDS:
            self.say(" | ".join([_summary(self._view), *_running_lines(self._view)]))

    def stage_changed(self, identity: str) -> None:
        """Say a new stage where there is no live panel to show it."""
        running = self._view.running.get(identity)
        if self._live is None and running is not None:
            self.say(f"#{running.ticket.proposal.number} stage {running.stage}")


def draw(view: RunView) -> Any:
    """The live panel: running trials, counts, best so far, times."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(view.running))
    for heading in ("trial", "stage", "for", "what"):
        table.add_column(heading, header_style="dim", no_wrap=heading != "what")
    now = view.clock()
    for running in list(view.running.values()):
        proposal = running.ticket.proposal
        table.add_row(
            f"#{proposal.number} {proposal.kind}",
            f"{running.stage} {running.note}".strip(),
            format_duration(now - running.stage_since),
            tried(proposal),
        )
    return Group(Text(_summary(view), style="bold"), table)


def _summary(view: RunView) -> str:
    counts = view.counts
    parts = [
        view.name,
        f"{counts.measured} measured, {counts.reused} reused, {counts.failed} failed",
        f"elapsed {format_duration(view.elapsed)}",
    ]
    remaining = view.remaining_seconds()
    if remaining is not None:
        parts.append(f"about {format_duration(remaining)} to go")
    best = view.best()
    if best is not None:
        parts.append(f"best so far: {describe_parameters(best.parameters)}")
    return " | ".join(parts)


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
        f"#{running.ticket.proposal.number} {running.stage} {running.note}".strip()
        + f" for {format_duration(now - running.stage_since)}"
        for running in list(view.running.values())
    ]


Say = Callable[[str], None]
"""Somewhere to tell the user one line."""
