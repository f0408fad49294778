"""Ray's dashboard, started behind the run instead of before it.

``ray.init`` waits for the dashboard's processes, several seconds of start-up nobody needs before
the first trial runs, and starts an empty frame of them even when no dashboard is wanted. Here Ray
starts without, and a background thread starts the dashboard later. Both go through one method of
Ray's internal ``Node``, ``start_api_server``, which exists in the release we pin.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_NICE = 10
"""Scheduling priority below everything that is measured."""
_HEAD_START_S = 6.0
"""By then the first trial has started; until then it gets all CPUs."""


@contextmanager
def without_dashboard_process() -> Iterator[None]:
    """Within, ``ray.init`` starts no process for the dashboard."""
    from ray._private.node import Node

    def start_nothing(self: Any, **_: Any) -> None:
        """Take the place of ``Node.start_api_server``."""

    original = Node.start_api_server
    Node.start_api_server = start_nothing
    try:
        yield
    finally:
        Node.start_api_server = original


class DeferredDashboard:
    """The dashboard of the private cluster this process has just started.

    Attributes:
        url: Where it answers; ``None`` until it does, and for good when it cannot be started, as
            without the packages of ``ray[default]``.
    """

    def __init__(self) -> None:
        self.url: str | None = None
        self._end = threading.Event()
        threading.Thread(target=self._run, name="ray-dashboard", daemon=True).start()

    def close(self) -> None:
        """Let the dashboard die. It is also among the processes that ``ray.shutdown`` ends."""
        self._end.set()

    def _run(self) -> None:
        if self._end.wait(_HEAD_START_S):
            return
        # On Linux priority belongs to a thread and passes to what it starts.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        from ray._private.utils import get_dashboard_dependency_error
        from ray._private.worker import global_worker

        node = global_worker.node
        try:
            if node is None or get_dashboard_dependency_error() is not None:
                return
            node.start_api_server(include_dashboard=True, raise_on_failure=True)
            self.url = f"http://{node.webui_url}"
        except Exception as error:
            logging.getLogger(__name__).info("the dashboard did not start: %s", error)
            return
        # Ray binds its processes to the thread that started them (PR_SET_PDEATHSIG).
        self._end.wait()
