"""The way of messages over one channel: one at a time, in order, each bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.experiment import Kind
from tuner.notify._channel import Channel
from tuner.notify._errors import SendError
from tuner.notify._notice import Notice
from tuner.notify._texts import Text, write
from tuner.notify._unlogged import unlogged

Say = Callable[[str], None]
Settled = Callable[[bool], None]

GRACE_SECONDS = 1.0
"""What a send may overrun its timeout by before nobody waits for it any more."""
MOST_WAITING = 100
_EXPENDABLE: tuple[Kind, ...] = ("heartbeat", "trial_done")
_FIRST_PAUSE, _GROWTH = 1.0, 4.0


@dataclass
class Tally:
    """Messages of one channel by what became of them."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class _Item:
    notice: Notice
    settled: Settled


class Lane:
    """Sends the messages of one channel, in a thread of its own.

    A send runs in a further thread, so that one that never returns, for a name server that does
    not answer for instance, costs its time and no more. While it hangs, nothing is sent here.

    Args:
        changed: Guards the lanes of a courier, and hears of everything that moves in them.
        say: Tells the user one line; hears of each sort of failure once.
        pause: Seconds before the first repetition; each further pause is four times as long.
    """

    def __init__(
        self,
        channel: Channel[Any],
        changed: threading.Condition,
        say: Say,
        *,
        pause: float = _FIRST_PAUSE,
        room: int = MOST_WAITING,
    ) -> None:
        self.channel = channel
        self.options = channel.options
        self.tally = Tally()
        self._changed = changed
        self._say = say
        self._pause = pause
        self._room = room
        self._queue: deque[_Item] = deque()
        self._busy = False
        self._closing = threading.Event()
        self._down = False
        self._hung: threading.Thread | None = None
        self._told: set[str] = set()
        threading.Thread(target=self._work, name=channel.name, daemon=True).start()

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being sent; to be asked under the guard."""
        return not self._queue and not self._busy

    def put(self, notice: Notice, settled: Settled) -> None:
        """Queue a message and return at once; ``settled`` will hear whether it was delivered.

        A heartbeat takes the place of one that waits. Where there is no room, the oldest of what
        can be spared goes.
        """
        with self._changed:
            if notice.kind == "heartbeat":
                self._queue = deque(one for one in self._queue if one.notice.kind != "heartbeat")
            crowded = self._spare() if len(self._queue) >= self._room else None
            self.tally.dropped += crowded is not None
            self._queue.append(_Item(notice, settled))
            self._changed.notify_all()
        if crowded is not None:
            self._complain(crowded.notice, SendError("full", f"{self._room} messages wait"))
            crowded.settled(False)

    def hurry(self) -> None:
        """The run is over: no repetitions from now on, and where nothing came through last time,
        only the newest message is tried."""
        self._closing.set()

    def abandon(self) -> int:
        """Give up what still waits; the number of messages, the one being sent included."""
        with self._changed:
            left = len(self._queue) + self._busy
            self._queue.clear()
        self.tally.dropped += left
        return left

    def _spare(self) -> _Item:
        chosen = next((one for one in self._queue if one.notice.kind in _EXPENDABLE), None)
        chosen = chosen or self._queue[0]
        self._queue.remove(chosen)
        return chosen

    def _work(self) -> None:
        while True:
            item = self._take()
            delivered = self._deliver(item.notice)
            item.settled(delivered)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take(self) -> _Item:
        with self._changed:
            self._changed.wait_for(lambda: self._queue)
            self._busy = True
            return self._queue.popleft()

    def _deliver(self, notice: Notice) -> bool:
        if self._closing.is_set() and self._down and self._queue:
            self.tally.failed += 1
            return False
        error = self._tried(notice)
        self._down = error is not None and not error.lasting
        if error is None:
            self.tally.sent += 1
            return True
        self.tally.failed += 1
        self._complain(notice, error)
        return False

    def _tried(self, notice: Notice) -> SendError | None:
        """Send with repetitions; the last error, or None. A channel that failed last time gets
        one attempt: what waits behind must not wait for it again and again."""
        try:
            text = write(notice, self.options.language)
        except Exception as error:
            return SendError("text", f"{type(error).__name__}: {error}", lasting=True)
        attempts = 1 if self._down else 1 + self.options.retries
        pause = self._pause
        while (failed := self._attempt(text, notice)) is not None:
            attempts -= 1
            if attempts < 1 or failed.lasting or self._closing.wait(pause):
                return failed
            pause *= _GROWTH
        return None

    def _attempt(self, text: Text, notice: Notice) -> SendError | None:
        if self._hung is not None and self._hung.is_alive():
            return SendError("timeout", "the send before has not come back yet")
        failed: list[SendError] = []

        def send() -> None:
            try:
                with unlogged():
                    self.channel.send(text, notice)
            except SendError as error:
                failed.append(error)
            except BaseException as error:
                failed.append(SendError(type(error).__name__, f"{type(error).__name__}: {error}"))

        limit = self.options.timeout
        sender = threading.Thread(target=send, name=f"{self.channel.name} sends", daemon=True)
        try:
            sender.start()
        except RuntimeError as error:
            return SendError("thread", str(error))
        sender.join(limit + GRACE_SECONDS)
        if sender.is_alive():
            self._hung = sender
            return SendError("timeout", f"no answer within {limit:g} s")
        return failed[0] if failed else None

    def _complain(self, notice: Notice, error: SendError) -> None:
        if error.reason in self._told:
            return
        self._told.add(error.reason)
        said = self.channel.discretion(str(error))
        self._say(
            f"{self.channel.name}: {notice.kind} message not delivered: {said}; "
            "more of the same is only counted"
        )
