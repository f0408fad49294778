"""What the conformance suites of all adapters share."""

from __future__ import annotations

import json
from typing import Protocol

from cluster import find_processes
from trainables._trial import Json


class ContractViolation(AssertionError):
    """An adapter broke its contract."""


class Identified(Protocol):
    """Whatever says what decides its results."""

    def identity(self) -> Json: ...


def require(condition: bool, message: str) -> None:
    """Raise :class:`ContractViolation` unless ``condition`` holds."""
    if not condition:
        raise ContractViolation(message)


def json_identity(made: Identified) -> Json:
    """Its identity, which has to be JSON."""
    identity = made.identity()
    copy = json.loads(json.dumps(identity, allow_nan=False))
    require(copy == identity, f"identity() is not JSON: {identity}")
    return copy


def require_nothing_left(run_id: str) -> None:
    """No process of the run lives."""
    left = find_processes(run_id)
    require(not left, f"processes are left: {left}")
