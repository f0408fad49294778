"""Windows of a running benchmark: written by its client, read by the trial meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from trainables.benchmarks._benchmark import Window

FILE = "windows.jsonl"


@dataclass
class WindowLog:
    """Counts what happens, and writes a line for each window.

    Attributes:
        begin: When the run began, on the clock of all other times here.
        running: Requests under way.
    """

    stream: IO[str]
    begin: float
    running: int = 0
    _from: float = field(default=0.0, init=False)
    _completed: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _tokens: int = field(default=0, init=False)
    _ttft: list[float] = field(default_factory=list, init=False)
    _tpot: list[float] = field(default_factory=list, init=False)

    def sent(self) -> None:
        self.running += 1

    def tokens(self, count: int) -> None:
        """So many tokens arrived; negative when fewer had than was thought."""
        self._tokens += count

    def answered(self, ttft: float) -> None:
        self._ttft.append(ttft)

    def ended(self, *, failed: bool, tpot: float | None) -> None:
        self.running -= 1
        self._failed += failed
        self._completed += not failed
        if tpot is not None and not failed:
            self._tpot.append(tpot)

    def close(self, now: float) -> None:
        """Write the window that ends now, and begin the next one."""
        end = max(now - self.begin, self._from)
        window = Window(
            begin=round(self._from, 6),
            end=round(end, 6),
            completed=self._completed,
            failed=self._failed,
            output_tokens=self._tokens,
            running=self.running,
            ttft_s=[round(value, 6) for value in self._ttft],
            tpot_s=[round(value, 6) for value in self._tpot],
        )
        self.stream.write(json.dumps(asdict(window)) + "\n")
        self.stream.flush()
        self._from = end
        self._completed = self._failed = self._tokens = 0
        self._ttft, self._tpot = [], []


class WindowReader:
    """Reads a file of windows as it grows; each line once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._inode = 0
        self._place = 0
        self._known: list[Window] = []

    def windows(self) -> Sequence[Window]:
        """Those that are complete so far, of the latest run that wrote the file."""
        try:
            with self._file.open("rb") as stream:
                self._begin_anew_if_replaced(stream)
                stream.seek(self._place)
                data = stream.read()
        except FileNotFoundError:
            return ()
        complete = data[: data.rfind(b"\n") + 1]
        self._known += [_window(line) for line in complete.splitlines()]
        self._place += len(complete)
        return tuple(self._known)

    def _begin_anew_if_replaced(self, stream: IO[bytes]) -> None:
        status = os.fstat(stream.fileno())
        if status.st_ino != self._inode or status.st_size < self._place:
            self._inode, self._place, self._known = status.st_ino, 0, []


def _window(line: bytes) -> Window:
    document = json.loads(line)
    for name in ("ttft_s", "tpot_s"):
        document[name] = tuple(document[name])
    return Window(**document)
