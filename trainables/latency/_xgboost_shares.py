"""How many devices share an iteration: what a learned model cannot tell from the batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from trainables.latency._model import LatencyError, Served
from trainables.latency.imports import Source

SHARES = ("tensor_parallel", "pipeline_parallel")


def shares_of(sources: Iterable[Source]) -> dict[str, int]:
    """What recordings say about it; empty where they say nothing.

    Raises:
        LatencyError: They differ.
    """
    found: dict[str, int] = {}
    for name in SHARES:
        told: dict[int, list[str]] = defaultdict(list)
        for source in sources:
            value = source.settings.get(name)
            if isinstance(value, int):
                told[value].append(str(source.path))
        if len(told) > 1:
            each = "; ".join(f"{value}: {', '.join(told[value])}" for value in sorted(told))
            raise LatencyError(
                f"the recordings differ in {name}, which no model can tell from a batch; train one "
                f"for each ({each})"
            )
        found.update((name, value) for value in told)
    return found


def check_shares(known: Mapping[str, int], served: Served, place: str) -> None:
    """Raises ``LatencyError`` when a model was trained on other numbers of devices."""
    for name, value in known.items():
        asked = getattr(served, name)
        if asked != value:
            raise LatencyError(
                f"{place}: was recorded with {name} {value} and says nothing about {asked}; train "
                "a model on recordings with that, or use `latency: {type: operators}`"
            )


def shares_from(document: Any) -> dict[str, int]:
    """Read what :func:`shares_of` found.

    Raises ``ValueError`` or ``TypeError`` when it is none.
    """
    if not set(document) <= set(SHARES):
        raise ValueError(f"shares are {document}")
    return {name: int(value) for name, value in document.items()}
