"""Strategies that measure points of a space and keep the best."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from searchers._contract import WAIT, Done, Json, Outcome, Proposal, Strategy, Wait
from searchers._flight import Flight
from searchers._merit import objective_values, widened
from searchers._registry import register_strategy
from searchers._space import Space

_REJECTIONS = 100
"""Draws that may hit points already seen before the unseen ones are listed instead."""

_RADII = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Standard deviations, in shares of an axis, of the steps away from a point already seen."""

_STEPS = 8
"""Steps of each length."""


class Draft(NamedTuple):
    """A point that a strategy wants measured.

    Attributes:
        parameters: The point, in the spelling of the space.
        why: The reason, for a person.
        labels: Labels of the proposal; they stay when a cancelled one is proposed again.
    """

    parameters: Mapping[str, Json]
    why: str
    labels: Mapping[str, Json] = {}


class PointStrategy(Strategy):
    """Base of strategies whose candidates are points of the space, judged one by one.

    The best is the candidate with the highest objective among those that satisfy the demand or
    SLO; with no demand, among all measured. A cancelled candidate is proposed again.
    """

    def __init__(self, space: Space | None, needed_by: str) -> None:
        if space is None:
            raise ValueError(f"{needed_by} needs a space: name the parameters to search")
        self.space = space
        self._flight = Flight()
        self._again: list[Proposal] = []
        self._best: tuple[float | None, Proposal] | None = None
        self._front: list[tuple[tuple[float, ...], Proposal]] = []
        self._measured = 0
        self._failed = 0

    @abstractmethod
    def _draw(self) -> Draft | tuple[Mapping[str, Json], str] | None:
        """The next point and why, or None when there are no more."""

    def ask(self) -> Proposal | Wait | Done:
        if self._flight and len(self._flight) >= self.width:
            return WAIT
        if self._again:
            old = self._again.pop(0)
            return self._flight.launch(old.parameters, why=old.why, labels=old.labels)
        drawn = self._draw()
        if drawn is not None:
            draft = Draft(*drawn)
            return self._flight.launch(draft.parameters, why=draft.why, labels=draft.labels)
        return WAIT if self._flight else self._conclude()

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        landed = self._flight.land(proposal)
        if landed is None:
            return
        if outcome.status == "cancelled":
            self._again.append(landed)
        elif outcome.status == "failed":
            self._failed += 1
        else:
            self._measured += 1
            self._judge(landed, outcome)
            self._compare(landed, outcome)

    def best(self) -> Proposal | None:
        return None if self._best is None else self._best[1]

    def front(self) -> list[Proposal]:
        """The measured points that satisfy and of which none is better in every objective.

        The objectives are those of :attr:`goal`; with a single one these are the best point and
        its equals. In the order of asking.
        """
        return sorted((point for _, point in self._front), key=lambda point: point.number)

    def state(self) -> dict[str, Json]:
        best = None if self._best is None else [self._best[0], self._best[1].to_json()]
        return {
            "flight": self._flight.state(),
            "again": [proposal.to_json() for proposal in self._again],
            "best": best,
            "front": [[list(values), point.to_json()] for values, point in self._front],
            "measured": self._measured,
            "failed": self._failed,
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self._flight.restore(state["flight"])
        self._again = [Proposal.from_json(document) for document in state["again"]]
        best = state["best"]
        self._best = None if best is None else (best[0], Proposal.from_json(best[1]))
        self._front = [
            (tuple(values), Proposal.from_json(document)) for values, document in state["front"]
        ]
        self._measured = state["measured"]
        self._failed = state["failed"]

    def _judge(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.satisfied is False:
            return
        objective = outcome.objective
        if objective is not None and not math.isfinite(objective):
            objective = None
        if self._best is None or _rank(objective, proposal) > _rank(*self._best):
            self._best = (objective, proposal)

    def _compare(self, proposal: Proposal, outcome: Outcome) -> None:
        values = objective_values(outcome, self.goal)
        if values is not None and outcome.satisfied is not False:
            self._front = widened(self._front, values, proposal)

    def _random(self, generator: random.Random) -> list[float]:
        """A uniform point of the unit cube."""
        return [generator.random() for _ in self.space.dimensions]

    def _unseen(self, generator: random.Random) -> dict[str, Json] | None:
        """A random point that was not proposed yet; None if there is none, or none is found in a
        space too large to list."""
        for _ in range(_REJECTIONS):
            point = self.space.decode(self._random(generator))
            if not self._flight.asked(point):
                return point
        if self.space.size() is None:
            return None
        unseen = [point for point in self.space.grid() if not self._flight.asked(point)]
        return generator.choice(unseen) if unseen else None

    def _near(self, vector: Sequence[float], generator: random.Random) -> dict[str, Json] | None:
        """A point close to ``vector`` that was not proposed yet, else as :meth:`_unseen`."""
        for radius in _RADII:
            for _ in range(_STEPS):
                moved = (unit + generator.gauss(0, radius) for unit in vector)
                point = self.space.decode([min(max(unit, 0.0), 1.0) for unit in moved])
                if not self._flight.asked(point):
                    return point
        return self._unseen(generator)

    def _conclude(self) -> Done:
        if self._best is not None:
            told = f"the best of {self._measured} measured points"
            return Done("satisfied", self._best[1], told + self._failures())
        if self._measured:
            told = f"none of {self._measured} measured points satisfies the demand"
            return Done("exhausted", None, told + self._failures())
        return Done("failed", None, f"no point could be measured{self._failures()}")

    def _failures(self) -> str:
        return (
            f"; {self._failed} trial{'s' if self._failed > 1 else ''} failed"
            if self._failed
            else ""
        )


def _rank(objective: float | None, proposal: Proposal) -> tuple[float, int]:
    """Sorts by objective, none last; the earlier proposal wins a tie, whichever ended first."""
    return (-math.inf if objective is None else objective, -proposal.number)


class BudgetedStrategy(PointStrategy):
    """Base of strategies that draw a given number of points; all points of a smaller space.

    The generator of each draw is made from the seed and the number of points drawn before, so
    there is no random state to keep.
    """

    def __init__(self, space: Space | None, needed_by: str, *, trials: int, seed: int) -> None:
        super().__init__(space, needed_by)
        self._seed = seed
        self._trials = min(trials, self.space.size() or trials)

    def _generator(self) -> random.Random | None:
        """The generator of the next draw; None when all are made."""
        drawn = self._flight.distinct
        return None if drawn >= self._trials else random.Random(f"{self._seed}/{drawn}")

    def remaining(self) -> int | None:
        return self._trials - self._flight.distinct + len(self._flight) + len(self._again)

    def most(self) -> int | None:
        return self._trials


class RandomOptions(BaseModel):
    """Options of ``random``: how many different points to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    trials: int = Field(ge=1)


@register_strategy("random", RandomOptions)
class RandomSearch(BudgetedStrategy):
    """Independent uniform points of the unit cube, none twice; ends early on a finite space."""

    def __init__(self, options: RandomOptions, *, space: Space | None, seed: int) -> None:
        super().__init__(space, "random", trials=options.trials, seed=seed)

    def _draw(self) -> tuple[Mapping[str, Json], str] | None:
        generator = self._generator()
        point = None if generator is None else self._unseen(generator)
        return None if point is None else (point, "random point")


class GridOptions(BaseModel):
    """Options of ``grid``: the number of values taken of each continuous parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    points: int | None = Field(None, ge=1)


@register_strategy("grid", GridOptions)
class GridSearch(PointStrategy):
    """All points of the space in order, the last parameter fastest."""

    def __init__(self, options: GridOptions, *, space: Space | None, seed: int) -> None:
        super().__init__(space, needed_by="grid")
        self._points = options.points
        next(self.space.grid(self._points))  # raises for a continuous parameter without points
        self._rest = self.space.grid(self._points)

    def _draw(self) -> tuple[Mapping[str, Json], str] | None:
        point = next(self._rest, None)
        return None if point is None else (point, "next point of the grid")

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self._rest = islice(self.space.grid(self._points), self._flight.distinct, None)

    def remaining(self) -> int | None:
        most = self.space.size(self._points)
        open_ = len(self._flight) + len(self._again)
        return None if most is None else most - self._flight.distinct + open_

    def most(self) -> int | None:
        return self.space.size(self._points)
