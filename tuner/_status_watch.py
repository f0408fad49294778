"""The status of a run, renewed in the terminal until the run has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tuner._status import describe_status, read_status

_SPARE_LINES = 8
"""Of the terminal, for all but the finished trials."""


def watch_status(
    folder: Path,
    console: Console,
    *,
    interval: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Show the status of the run in ``folder`` until it is no longer running; its last status.

    In a terminal the picture is renewed every ``interval`` seconds; elsewhere only the last one
    is printed. Trials that do not fit are left out, the oldest first.
    """
    status = read_status(folder)
    if console.is_terminal:
        with Live(drawn(status, console), console=console, transient=True) as live:
            while status["state"] == "running":
                sleep(interval)
                status = read_status(folder)
                live.update(drawn(status, console), refresh=True)
    else:
        while status["state"] == "running":
            sleep(interval)
            status = read_status(folder)
    console.print(Text(describe_status(status)), soft_wrap=True)
    return status


def drawn(status: dict[str, Any], console: Console) -> Text:
    """The status, with as many of the last trials as the terminal has room for."""
    excluded = (status.get("nodes") or {}).get("excluded", ())
    taken = _SPARE_LINES + len(status.get("running", ())) + len(excluded)
    room = max(3, console.height - taken)
    shown = {**status, "trials": status.get("trials", [])[-room:]}
    return Text(describe_status(shown), no_wrap=True, overflow="ellipsis")
