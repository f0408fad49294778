"""The space of a search: ordered named parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import ConfigDict, Field, RootModel

from searchers._contract import Json
from searchers._parameters import Parameter, Values


class Space(RootModel[dict[str, Parameter]]):
    """Ordered named parameters, ``{name: parameter, ...}`` in the experiment file."""

    model_config = ConfigDict(frozen=True)
    root: dict[str, Parameter] = Field(min_length=1)

    @property
    def names(self) -> tuple[str, ...]:
        """All parameters in order, those with a single value included."""
        return tuple(self.root)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The parameters that are coordinates, in order."""
        return tuple(name for name, parameter in self.root.items() if parameter.searched)

    def decode(self, vector: Sequence[float]) -> dict[str, Json]:
        """The values at a point of the unit cube, one coordinate per :attr:`dimensions`.

        Raises ``ValueError`` for a wrong number of coordinates or one outside [0, 1].
        """
        if len(vector) != len(self.dimensions):
            raise ValueError(f"{len(self.dimensions)} coordinates expected, not {len(vector)}")
        wrong = [unit for unit in vector if not 0 <= unit <= 1]
        if wrong:
            raise ValueError(f"coordinates must lie in 0..1, not {wrong[0]}")
        coordinates = iter(vector)
        values: dict[str, Json] = {}
        for name, parameter in self.root.items():
            unit = float(next(coordinates)) if parameter.searched else 0.5
            values[name] = parameter.decode(unit, values)
        return values

    def encode(self, values: Values) -> list[float]:
        """A point of the unit cube that decodes to ``values``. Raises like :meth:`canonical`."""
        legal = self.canonical(values)
        return [
            parameter.encode(legal[name], legal)
            for name, parameter in self.root.items()
            if parameter.searched
        ]

    def canonical(self, values: Values) -> dict[str, Json]:
        """``values`` in the order and spelling of the space.

        Raises ``ValueError`` that names every parameter that is missing, unknown or not legal.
        """
        problems = [f"{name}: no such parameter" for name in values if name not in self.root]
        legal: dict[str, Json] = {}
        for name, parameter in self.root.items():
            if name not in values:
                problems.append(f"{name}: is missing")
                continue
            try:
                legal[name] = parameter.canonical(values[name], legal)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return legal

    def contains(self, values: Values) -> bool:
        """Whether ``values`` are legal and complete."""
        try:
            self.canonical(values)
        except ValueError:
            return False
        return True

    def size(self, points: int | None = None) -> int | None:
        """Number of points, with ``points`` values of each continuous parameter; None: endless."""
        sizes = [parameter.size() or points for parameter in self.root.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def grid(self, points: int | None = None) -> Iterator[dict[str, Json]]:
        """All points in order, the last parameter fastest.

        ``points`` is the number of values taken of each continuous parameter, its ends included.
        The first ``next`` raises ``ValueError`` when there is one and ``points`` is None.
        """
        return self._grid(points, {})

    def _grid(self, points: int | None, given: dict[str, Json]) -> Iterator[dict[str, Json]]:
        if len(given) == len(self.root):
            yield given
            return
        name = self.names[len(given)]
        try:
            values = self.root[name].grid(points, given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        for value in values:
            yield from self._grid(points, {**given, name: value})
