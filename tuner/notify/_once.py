"""One message outside of a run's own session."""

from __future__ import annotations

from tuner.experiment import Experiment
from tuner.notify._channels import make_channels
from tuner.notify._courier import Courier
from tuner.notify._lane import Say
from tuner.notify._notice import Notice


def send_notice(experiment: Experiment, notice: Notice, say: Say) -> None:
    """Send a message now, over the channels of an experiment that take its kind.

    Waits until it is sent, at most a minute, and never raises because of a channel.

    Args:
        say: Tells the user one line about what was not delivered, from any thread.
    """
    if not experiment.notify:
        return
    courier = Courier(make_channels(experiment.notify), say)
    courier.post(notice)
    courier.close()
