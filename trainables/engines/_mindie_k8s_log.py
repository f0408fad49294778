"""The log of a pod, copied to ours as it grows; and the lines that are written beside it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

_READY = re.compile(rb"MindIE-MS coordinator is ready")
_PAUSE_S = 1.0
_END_S = 5.0
_stdout = threading.Lock()


def say(text: str) -> None:
    """Write whole lines of our own."""
    with _stdout:
        for line in text.splitlines():
            sys.stdout.write(f"mindie-k8s: {line}\n")
        sys.stdout.flush()


class PodLog:
    """A pod's log, followed until :meth:`close`; a connection that ends is made anew.

    Args:
        command: Makes the command that follows it, given from when on; RFC 3339, None for all.

    Attributes:
        ready: Set once the coordinator has said in it that it is ready.
    """

    def __init__(self, command: Callable[[str | None], list[str]]) -> None:
        self.ready = threading.Event()
        self._command = command
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._process is not None:
            with suppress(OSError):
                self._process.kill()
        self._thread.join(_END_S)

    def _follow(self) -> None:
        since: str | None = None
        while not self._closed.is_set():
            try:
                self._process = subprocess.Popen(
                    self._command(since),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                say(f"the log cannot be followed: {error.strerror}")
                return
            if self._closed.is_set():
                self._process.kill()
            with self._process as process:
                assert process.stdout is not None
                # Lines are put together here, however the connection cuts them.
                for line in process.stdout:
                    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                    self._take(line)
            self._closed.wait(_PAUSE_S)

    def _take(self, line: bytes) -> None:
        with _stdout:
            sys.stdout.buffer.write(line if line.endswith(b"\n") else line + b"\n")
            sys.stdout.buffer.flush()
        if _READY.search(line):
            self.ready.set()
