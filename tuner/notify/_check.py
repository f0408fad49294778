"""A test message over every channel."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from tuner._store import now
from tuner.experiment import Experiment
from tuner.notify._channel import Channel
from tuner.notify._channels import make_channels
from tuner.notify._errors import SendError
from tuner.notify._lane import GRACE_SECONDS
from tuner.notify._notice import Notice, Progress
from tuner.notify._texts import greeting
from tuner.notify._unlogged import unlogged


@dataclass(frozen=True)
class Delivery:
    """What became of a test message.

    Attributes:
        channel: Name of the channel; no address.
        error: Why it was not delivered, without any secret; None if it was.
    """

    channel: str
    error: str | None


def send_test(experiment: Experiment) -> list[Delivery]:
    """Send a test message over every channel, fallbacks included, once each and all at once.

    Takes no longer than the slowest channel's timeout, and never raises.
    """
    trials = [_Trial(channel, experiment.name) for channel in make_channels(experiment.notify)]
    for trial in trials:
        trial.start()
    return [trial.result() for trial in trials]


class _Trial(threading.Thread):
    def __init__(self, channel: Channel[Any], experiment: str) -> None:
        super().__init__(name=channel.name, daemon=True)
        self._channel = channel
        self._experiment = experiment
        self._error: str | None = None

    def run(self) -> None:
        notice = Notice("start", self._experiment, now(), Progress(), message="this is a test")
        try:
            text = greeting(self._experiment, self._channel.options.language)
            with unlogged():
                self._channel.send(text, notice)
        except SendError as error:
            self._error = str(error)
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"

    def result(self) -> Delivery:
        limit = self._channel.options.timeout
        self.join(limit + GRACE_SECONDS)
        error = f"no answer within {limit:g} s" if self.is_alive() else self._error
        masked = None if error is None else self._channel.discretion(error)
        return Delivery(self._channel.name, masked)
