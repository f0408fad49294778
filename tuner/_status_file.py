"""Keeps ``status.json`` up to date."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from tuner._pace import Pace
from tuner._report import RunResult
from tuner._store import RunStore, now

_SECONDS = 0.2


class StatusFile:
    """The file, and how often it is written: it grows with the run.

    Args:
        store: Where it is kept.
        content: What it says while the run is under way.
    """

    def __init__(self, store: RunStore, content: Callable[[], dict[str, Any]]) -> None:
        self._store = store
        self._content = content
        self._pace = Pace(_SECONDS, clock=store.storage.working)
        self._stale = False

    def changed(self) -> None:
        """Something in it is not so any more. It is written now, or soon."""
        self._stale = True
        self.tick()

    def tick(self) -> None:
        """Write what changed, if that is due."""
        if self._stale and self._pace.due():
            with self._pace.measured():
                self.save("running")

    def save(self, state: str, result: RunResult | None = None) -> None:
        """Write it at once."""
        self._stale = False
        document = self._content() | {"state": state, "pid": os.getpid(), "updated": now()}
        if result is not None:
            document["result"] = result.to_json()
        # On one line: thousands of trials are written ten times as fast.
        text = json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
        self._store.storage.write(self._store.status_file, text)
