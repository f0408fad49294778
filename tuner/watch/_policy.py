"""When a run that ended is started again. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_NORMAL = (0, 2, 3, 4)
"""A result, wrong usage, exhausted, budget spent: the same again would end the same."""
_BY_USER = (signal.SIGINT, signal.SIGTERM)


def ending(code: int) -> Literal["normal", "stopped", "crash"]:
    """What an exit status of a driver means; a negative one is the signal that killed it."""
    if code in _NORMAL:
        return "normal"
    if -code in _BY_USER or code - 128 in _BY_USER:
        return "stopped"
    return "crash"


@dataclass(frozen=True)
class RestartPolicy:
    """Restarts that become rarer, and an end to them.

    Attributes:
        first_s: Seconds before the first restart; twice as long for each further crash.
        most_s: Seconds at most.
        crashes: So many crashes within ``within_s`` are a loop.
        within_s: Seconds; also how long ago a crash is forgotten.
    """

    first_s: float = 5.0
    most_s: float = 300.0
    crashes: int = 5
    within_s: float = 3600.0

    def delay(self, crashes: Sequence[float]) -> float | None:
        """Seconds until the next start; None when this is a loop.

        Args:
            crashes: When the run has crashed, in seconds of one clock, the last one just now.
        """
        recent = [at for at in crashes if crashes[-1] - at <= self.within_s]
        if len(recent) >= self.crashes:
            return None
        return float(min(self.most_s, self.first_s * 2 ** (len(recent) - 1)))
