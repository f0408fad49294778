"""``coordinate_ascent``: one parameter after the other, each kept at the best of its values.

The order and the rule are those of ``auto_tune.py``, with its fault left out: what the search
starts a group from always takes part in the group's comparison, measured in this run or before,
and is only replaced by something better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from searchers._contract import Json, Outcome, Proposal
from searchers._parameters import spelled
from searchers._points import Draft, PointStrategy
from searchers._registry import register_strategy
from searchers._space import Space

Point: TypeAlias = Mapping[str, Json]


class CoordinateAscentOptions(BaseModel):
    """Options of ``coordinate_ascent``.

    Attributes:
        start: The point to start from; a parameter that is left out starts at its first value.
        groups: What is varied together, in this order: names, or lists of names all combinations
            of whose values are tried. By default each parameter on its own, in the space's order;
            parameters that no group names stay at their start.
        sweeps: How often all groups are gone through at most; a sweep that changes nothing is the
            last.
        points: Values taken of a continuous parameter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    start: dict[str, Json] = {}
    groups: list[str | list[str]] = []
    sweeps: int = Field(1, ge=1)
    points: int | None = Field(None, ge=1)


@register_strategy("coordinate_ascent", CoordinateAscentOptions)
class CoordinateAscent(PointStrategy):
    """Measures the point it stands at and those that differ from it in one group, moves to the
    best of them, and goes on to the next group.

    The points of a group are measured side by side as far as there is room. A point that was
    measured in an earlier group is not measured again, and counts. Of equals the one it stands at
    stays, else the first. A point that failed is never moved to.
    """

    def __init__(self, options: CoordinateAscentOptions, *, space: Space | None, seed: int) -> None:
        super().__init__(space, needed_by="coordinate_ascent")
        self._points = options.points
        self._sweeps = options.sweeps
        self._groups = _groups(self.space, options)
        self._at: Point = _start(self.space, options)
        self._sweep = 0
        self._group = 0
        self._moved = False
        self._known: dict[str, float | None] = {}

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        if proposal.number in self._flight.proposals and outcome.status != "cancelled":
            self._known[_key(self.space, proposal.parameters)] = _value(outcome)
        super().tell(proposal, outcome)
        self._advance()

    def state(self) -> dict[str, Json]:
        place = {"at": dict(self._at), "sweep": self._sweep, "group": self._group}
        return {**super().state(), **place, "moved": self._moved, "known": dict(self._known)}

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self._at, self._sweep, self._group = state["at"], state["sweep"], state["group"]
        self._moved, self._known = state["moved"], dict(state["known"])

    def most(self) -> int | None:
        """Points of all sweeps if each moved on and none were known."""
        parameters = self.space.root
        sizes = [
            math.prod(len(parameters[name].grid(self._points, self._at)) for name in names)
            for names in self._groups
        ]
        return 1 + self._sweeps * sum(size - 1 for size in sizes)

    def _draw(self) -> Draft | None:
        if self._over:
            return None
        names = self._groups[self._group] if self._groups else []
        for point in self._candidates():
            if not self._flight.asked(point):
                return Draft(point, self._why(point, names), {"group": ", ".join(names)})
        return None

    @property
    def _over(self) -> bool:
        return self._sweep >= self._sweeps

    def _advance(self) -> None:
        """Go on to the next group as often as all points of one are known."""
        while not self._over:
            points = list(self._candidates())
            keys = [_key(self.space, point) for point in points]
            if any(key not in self._known for key in keys):
                return
            self._move(points, [self._known[key] for key in keys])
            self._group += 1
            if self._group >= len(self._groups):
                self._group = 0
                self._sweep = self._sweep + 1 if self._moved else self._sweeps
                self._moved = False

    def _move(self, points: Sequence[Point], values: Sequence[float | None]) -> None:
        best = 0
        for place, value in enumerate(values):
            here = values[best]
            if value is not None and (here is None or value > here):
                best = place
        if best:
            self._at, self._moved = points[best], True

    def _candidates(self) -> Iterator[Point]:
        """Where it stands, and the points that differ from it in the current group."""
        yield self._at
        names = self._groups[self._group] if self._groups else []
        seen = {_key(self.space, self._at)}
        parameters = self.space.root
        axes = [parameters[name].grid(self._points, self._at) for name in names]
        for values in product(*axes):
            point = self._with(dict(zip(names, values, strict=True)))
            if (key := _key(self.space, point)) not in seen:
                seen.add(key)
                yield point

    def _with(self, values: Mapping[str, Json]) -> Point:
        vector = self.space.encode(self._at)
        for place, name in enumerate(self.space.dimensions):
            if name in values:
                vector[place] = self.space.root[name].encode(values[name], self._at)
        return self.space.decode(vector)

    def _why(self, point: Point, names: Sequence[str]) -> str:
        if point is self._at:
            return "where the search stands"
        changed = [f"{name} {spelled(point[name])}" for name in names]
        return f"instead of the best so far: {', '.join(changed)}"


def _groups(space: Space, options: CoordinateAscentOptions) -> list[list[str]]:
    given = options.groups or list(space.dimensions)
    groups = [[item] if isinstance(item, str) else list(item) for item in given]
    names = [name for group in groups for name in group]
    unknown = sorted({name for name in names if name not in space.names})
    if unknown:
        raise ValueError(f"groups name what the space has not: {', '.join(unknown)}")
    fixed = sorted({name for name in names if name not in space.dimensions})
    if options.groups and fixed:
        raise ValueError(f"groups name what is not searched: {', '.join(fixed)}")
    if not all(groups):
        raise ValueError("every group needs a parameter")
    for name in names:
        parameter = space.root[name]
        if options.points is None and parameter.size() is None:
            raise ValueError(f"{name} is continuous: say how many points of it are tried")
    return groups


def _start(space: Space, options: CoordinateAscentOptions) -> Point:
    unknown = sorted(set(options.start) - set(space.names))
    if unknown:
        raise ValueError(f"start names what the space has not: {', '.join(unknown)}")
    first = space.decode([0.0] * len(space.dimensions))
    return space.canonical({**first, **options.start})


def _key(space: Space, point: Point) -> str:
    return repr([point.get(name) for name in space.names])


def _value(outcome: Outcome) -> float | None:
    """What a point counts in comparisons; None: it does not take part."""
    if outcome.status != "measured" or outcome.satisfied is False:
        return None
    value = outcome.objective
    return -math.inf if value is None or not math.isfinite(value) else value
