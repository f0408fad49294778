"""A clock that a test puts forward, so that nobody has to wait for the end of a bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from trainables import Progress

_ALL_OF_IT_S = 10_000.0


class Later:
    """The module ``time``, but that time jumps when it is told to."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def skip(self, seconds: float) -> None:
        self._ahead += seconds


def until_late(
    steps: Iterable[Progress],
    clock: Later,
    waiting: str,
    *,
    after: Callable[[], bool] = lambda: True,
) -> None:
    """Run ``steps``; whatever time they have is over once they wait for ``waiting``."""
    for progress in steps:
        if waiting in progress.note and after():
            clock.skip(_ALL_OF_IT_S)


def later(monkeypatch: pytest.MonkeyPatch, module: str) -> Later:
    """The clock of one module of the product from now on."""
    clock = Later()
    monkeypatch.setattr(f"{module}.time", clock)
    return clock
