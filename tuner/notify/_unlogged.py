"""Keeping addresses out of the logs of the libraries that send to them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("httpx", "urllib3.connectionpool")
"""They log the path of every request, which for many services is the secret."""
_here = threading.local()


class _Unheard(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_here, "sending", False)


_UNHEARD = _Unheard()


@contextmanager
def unlogged() -> Iterator[None]:
    """While inside, what this thread sends is not logged; other threads' requests are."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_UNHEARD)
    _here.sending = True
    try:
        yield
    finally:
        _here.sending = False
