"""Messages to people about a run: e-mail, chat, webhooks.

An experiment's ``notify`` list says over which channels, and what. Everything is sent in the
background; no failure of a channel reaches the run.
"""

from tuner.notify._check import Delivery, send_test
from tuner.notify._notice import Notice, Progress, Score, Subject, Under
from tuner.notify._notifier import Notifier
from tuner.notify._once import send_notice
from tuner.notify._texts import Text, write
from tuner.notify._webhook import sign

__all__ = [
    "Delivery",
    "Notice",
    "Notifier",
    "Progress",
    "Score",
    "Subject",
    "Text",
    "Under",
    "send_notice",
    "send_test",
    "sign",
    "write",
]
