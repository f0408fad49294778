"""How often something that grows with the run may be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pace:
    """Lets work be done so rarely that it costs a small share of the time.

    Args:
        least: Seconds between two times at least.
        share: Share of the time that the work may take.
        clock: Monotonic seconds.
    """

    def __init__(
        self, least: float, *, share: float = 0.05, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._least = least
        self._share = share
        self._clock = clock
        self._next = clock()

    def due(self) -> bool:
        """Whether it may be done now."""
        return self._clock() >= self._next

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around the work."""
        begun = self._clock()
        yield
        ended = self._clock()
        self._next = ended + max(self._least, (ended - begun) / self._share)
