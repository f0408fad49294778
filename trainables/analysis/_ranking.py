"""From the scores of groups to the order in which they go back to float. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any


@dataclass(frozen=True)
class Scored:
    """A group with its score; the larger, the more its quantization is to be feared.

    Attributes:
        layers: Full module names.
        score: A finite number.
        detail: Further numbers about it, for people.
    """

    layers: tuple[str, ...]
    score: float
    detail: Mapping[str, Any] = field(default_factory=dict)


def ranking(scored: Iterable[Scored]) -> list[dict[str, Any]]:
    """Steps ``{"layers", "score", "detail"}``, worst first.

    Groups of equal score are one step, because nothing says which of them should go first; of its
    details, those all have alike remain. Otherwise the order of the model breaks no tie.

    Raises:
        ValueError: A score is no finite number, or a layer is in two groups.
    """
    groups = list(scored)
    for group in groups:
        if not math.isfinite(group.score):
            raise ValueError(f"the score of {', '.join(group.layers)} is {group.score}")
    layers = [layer for group in groups for layer in group.layers]
    if len(set(layers)) < len(layers):
        raise ValueError("a layer is in two groups")
    ordered = sorted(groups, key=lambda group: -group.score)
    return [_step(list(equals)) for _, equals in groupby(ordered, key=lambda group: group.score)]


def _step(equals: Sequence[Scored]) -> dict[str, Any]:
    first = equals[0]
    shared = {
        key: value
        for key, value in first.detail.items()
        if all(group.detail.get(key) == value for group in equals)
    }
    return {
        "layers": [layer for group in equals for layer in group.layers],
        "score": first.score,
        "detail": shared,
    }
