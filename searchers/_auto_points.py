"""The points of a space among which the next one is chosen."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product

from searchers._contract import Json
from searchers._space import Space

ALL = 4096
"""A space of at most this many points is looked at as a whole."""

_SCATTERED = 1024
_NEIGHBOURS = 32
_SWEEP = 16
_SAMPLE = 512


def everything(space: Space) -> list[dict[str, Json]] | None:
    """All points of a space that is small enough; None for any other."""
    size = space.size()
    return list(space.grid()) if size is not None and size <= ALL else None


def sample(space: Space, whole: Sequence[Mapping[str, Json]] | None) -> list[Mapping[str, Json]]:
    """Points that show every value of a category and the ends of every number, in a fixed order."""
    if whole is not None:
        return list(whole)
    generator = random.Random("sample")
    points: list[Mapping[str, Json]] = []
    width = len(space.dimensions)
    for unit in (0.0, 1.0):
        points.append(space.decode([unit] * width))
    for axis, unit in product(range(width), [step / 32 for step in range(33)]):
        vector = [generator.random() for _ in range(width)]
        vector[axis] = unit
        points.append(space.decode(vector))
    points += [space.decode([generator.random() for _ in range(width)]) for _ in range(_SAMPLE)]
    return points


def scattered(
    space: Space, generator: random.Random, around: Sequence[Mapping[str, Json]]
) -> list[dict[str, Json]]:
    """Points drawn anywhere, and of those ``around`` the neighbours that differ a little, and all
    that differ in one parameter, as far as it has few values."""
    width = len(space.dimensions)
    points = [space.decode([generator.random() for _ in range(width)]) for _ in range(_SCATTERED)]
    for centre in around:
        vector = space.encode(centre)
        for axis, step in product(range(width), range(_SWEEP)):
            unit = (step + generator.random()) / _SWEEP
            points.append(space.decode([*vector[:axis], unit, *vector[axis + 1 :]]))
        for _ in range(_NEIGHBOURS):
            moved = list(vector)
            for axis in generator.sample(range(width), min(width, generator.choice((1, 1, 2, 3)))):
                reach = generator.choice((0.02, 0.1, 0.3))
                moved[axis] = min(max(moved[axis] + generator.gauss(0, reach), 0.0), 1.0)
            points.append(space.decode(moved))
    return points
