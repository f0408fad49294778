"""The order of the tests, and their bounds."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# A loaded machine is no fault of what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
# Programs inherit that SIGINT is ignored, as it is for tests that a shell starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
_REAL_RUNS_S = 900
"""Of tests that start whole runs, which take some seconds each where nothing else is going on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start a Ray come first: they take longest, and no worker should end with one."""
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in with_ray)
    for item in items:
        if item.path in with_ray and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_REAL_RUNS_S))
