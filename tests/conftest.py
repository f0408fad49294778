"""The order of the tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A loaded machine is no fault of what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start a Ray come first: they take longest, and no worker should end with one."""
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in with_ray)
