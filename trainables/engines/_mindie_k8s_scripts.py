"""The user's own ``deploy.sh`` and ``delete.sh``, run with a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_LOOK_S = 0.1
_LAST_WORDS_S = 5.0


class Script:
    """A script under way, in a process group of its own; its output is ours."""

    def __init__(self, folder: Path, name: str, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            ["bash", name, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def wait(self, deadline: float, pause: Callable[[float], None]) -> int | None:
        """Its exit status, None at the deadline; ``pause`` may raise, and the script is ended."""
        try:
            while self.poll() is None and time.monotonic() < deadline:
                pause(_LOOK_S)
        finally:
            code = self.poll()
            self.end()
        return code

    def end(self) -> None:
        """End it with all that it has started in its group. May be repeated."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.poll() is not None:
                return
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_WORDS_S)
