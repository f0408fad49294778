"""Carries messages over all channels, in the background, and never at the cost of the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tuner.notify._channel import Channel
from tuner.notify._lane import GRACE_SECONDS, Lane, Say
from tuner.notify._notice import Notice

_LONGEST_DRAIN = 60.0


@dataclass
class _Fate:
    """Of a message that several channels were given."""

    open: int
    delivered: bool = False


class Courier:
    """Hands every message to the channels that take its kind.

    Channels are independent of each other; each keeps the order. A message that none of those it
    was given to has delivered goes over the fallback channels that take its kind, as does one
    that no other channel takes.

    Args:
        say: Tells the user one line, from any thread.
        pause: Seconds before a failed send is repeated the first time.
        room: Messages that may wait for each channel.
    """

    def __init__(
        self, channels: Sequence[Channel[Any]], say: Say, *, pause: float = 1.0, room: int = 100
    ) -> None:
        self._say = say
        self._changed = threading.Condition()
        self._lanes = [
            Lane(channel, self._changed, self._tell, pause=pause, room=room) for channel in channels
        ]
        self._closed = False

    def post(self, notice: Notice, to: Collection[int] | None = None) -> None:
        """Send a message, over the channels of these indices or over all. Returns at once."""
        if self._closed:
            return
        takers = [
            lane
            for index, lane in enumerate(self._lanes)
            if not lane.options.fallback
            and notice.kind in lane.options.takes
            and (to is None or index in to)
        ]
        fate = _Fate(len(takers))
        for lane in takers:
            lane.put(notice, partial(self._settled, notice, fate))
        if not takers:
            self._fall_back(notice)

    def close(self) -> Mapping[str, Mapping[str, int]]:
        """Wait, within bounds, until all is sent; what became of the messages, by channel.

        The bound is two sends of the slowest channel, and two more where there are fallbacks, at
        most a minute. An interrupt ends the waiting.
        """
        if not self._closed:
            deadline = time.monotonic() + self._drain_seconds()
            for lane in self._lanes:
                lane.hurry()
            with suppress(KeyboardInterrupt), self._changed:
                self._changed.wait_for(self._idle, deadline - time.monotonic())
            self._closed = True
            for lane in self._lanes:
                lane.abandon()
            self._sum_up()
        return self.tally()

    def tally(self) -> Mapping[str, Mapping[str, int]]:
        """Messages sent, failed and dropped by channel."""
        return {lane.channel.name: asdict(lane.tally) for lane in self._lanes}

    def _idle(self) -> bool:
        return all(lane.idle for lane in self._lanes)

    def _drain_seconds(self) -> float:
        total = 0.0
        for fallback in (False, True):
            limits = [
                lane.options.timeout + GRACE_SECONDS
                for lane in self._lanes
                if lane.options.fallback is fallback
            ]
            total += 2 * max(limits, default=0.0)
        return min(total, _LONGEST_DRAIN)

    def _settled(self, notice: Notice, fate: _Fate, delivered: bool) -> None:
        with self._changed:
            fate.open -= 1
            fate.delivered |= delivered
            lost = fate.open == 0 and not fate.delivered
        if lost and not self._closed:
            self._fall_back(notice)

    def _fall_back(self, notice: Notice) -> None:
        for lane in self._lanes:
            if lane.options.fallback and notice.kind in lane.options.takes:
                lane.put(notice, _nobody_asks)

    def _sum_up(self) -> None:
        for name, tally in self.tally().items():
            lost = tally["failed"] + tally["dropped"]
            if lost:
                self._tell(f"{name}: {tally['sent']} messages sent, {lost} not delivered")

    def _tell(self, line: str) -> None:
        with suppress(Exception):
            self._say(line)


def _nobody_asks(delivered: bool) -> None:
    """A fallback has none of its own."""
