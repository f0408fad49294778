"""When a channel hears of a trial, and when its next heartbeat is due. Pure."""

from __future__ import annotations

from tuner.experiment import ChannelOptions


class Pulse:
    """Counts trials and time since the last heartbeat, and measured trials.

    Args:
        now: Monotonic seconds, as in all methods.
    """

    def __init__(self, options: ChannelOptions, now: float) -> None:
        self._trials = options.heartbeat.trials
        self._time = options.heartbeat.time
        self._since = now
        self._count = 0
        self._every = options.trial_done_every
        self._measured = 0

    def measured(self) -> bool:
        """A trial was measured; whether the channel hears of it."""
        self._measured += 1
        return self._measured % self._every == 0

    def finished(self, now: float) -> bool:
        """A trial has ended; whether that makes a heartbeat due."""
        self._count += 1
        if self._trials is None or self._count < self._trials:
            return False
        self._restart(now)
        return True

    def due(self, now: float) -> bool:
        """Whether the time has come."""
        if self._time is None or now < self._since + self._time:
            return False
        self._restart(now)
        return True

    @property
    def next(self) -> float | None:
        """When :meth:`due` will be true; None: never."""
        return None if self._time is None else self._since + self._time

    def _restart(self, now: float) -> None:
        self._since, self._count = now, 0
