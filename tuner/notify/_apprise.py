"""Channels of apprise: e-mail, chat services, and more than a hundred others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tuner.experiment import AppriseOptions, Kind
from tuner.notify._channel import Channel
from tuner.notify._errors import SendError
from tuner.notify._notice import Notice
from tuner.notify._texts import Text

_SEVERITIES: Mapping[Kind, str] = {
    "best": "success",
    "failed": "warning",
    "timeout": "warning",
    "abnormal": "warning",
    "crashed": "failure",
}


class AppriseChannel(Channel[AppriseOptions]):
    """Hands messages to apprise's plug-in for the address."""

    def send(self, text: Text, notice: Notice) -> None:
        from apprise import Apprise, NotifyFormat, NotifyType

        with _listening() as said:
            plugin: Any = Apprise.instantiate(self.options.secret_of("url") or "")
            if plugin is None:
                raise SendError("address", "apprise does not understand the address", lasting=True)
            plugin.socket_connect_timeout = plugin.socket_read_timeout = self.options.timeout
            delivered = plugin.notify(
                body=text.body or text.title,
                title=text.title,
                notify_type=NotifyType(_SEVERITIES.get(notice.kind, "info")),
                body_format=NotifyFormat.TEXT,
            )
        if not delivered:
            raise SendError("apprise", " ".join(said) or "apprise does not say why")


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The warnings of apprise in this thread. They may quote addresses, so no log gets them."""
    said: list[str] = []
    thread = threading.get_ident()

    def hear(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return False

    logger = logging.getLogger("apprise")
    logger.addFilter(hear)
    try:
        yield said
    finally:
        logger.removeFilter(hear)
