"""``auto``: the default for expensive, constrained, mixed spaces of a few dozen trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from searchers._contract import Json, Outcome, Proposal
from searchers._flight import Flight
from searchers._points import PointStrategy
from searchers._registry import register_strategy
from searchers._space import Space

if TYPE_CHECKING:
    from searchers._auto_advisor import Advisor


class AutoOptions(BaseModel):
    """Options of ``auto``.

    Attributes:
        trials: The most points to measure; None: until the space or the budget is spent.
        start: Points to measure before the model decides, in this order.
        hints: Whether names of parameters and metrics may centre the model's prior. Without, all
            it supposes is that larger numbers do more of what is to be made large.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    trials: int | None = Field(None, ge=1)
    start: tuple[dict[str, Json], ...] = Field((), strict=False)
    hints: bool = True


@register_strategy("auto", AutoOptions)
class Auto(PointStrategy):
    """Models every metric the goal names and measures where most may be gained.

    What is predicted of all unseen points is recomputed from the outcomes at each ``ask``, so
    there is no hidden state. Points that failed, or that :meth:`learn` knows, are not proposed, but
    for the best known one: it is measured here first, since only then it can be delivered.
    """

    def __init__(self, options: AutoOptions, *, space: Space | None, seed: int) -> None:
        super().__init__(space, needed_by="auto")
        self._options = options
        self._seed = seed
        self._start = [self._legal(point, number) for number, point in enumerate(options.start)]
        self._history: list[dict[str, Json]] = []
        self._known = Flight()
        self._believed: list[list[Json]] = []
        self._advisor: Advisor | None = None

    def learn(self, parameters: Mapping[str, Json], outcome: Outcome) -> None:
        if outcome.status != "measured" or not self.space.contains(parameters):
            return
        point = self.space.canonical(parameters)
        self._known.launch(point)
        self._history.append(_record(point, outcome, elsewhere=True))

    def believe(self, points: Sequence[tuple[Mapping[str, Json], Mapping[str, float]]]) -> None:
        goal = self.goal
        wanted = {name for name, _ in goal.objectives} | {bound.metric for bound in goal.bounds}
        self._advisor = None
        self._believed = []
        for point, metrics in points:
            finite = {name: float(x) for name, x in metrics.items() if math.isfinite(x)}
            kept = {name: finite[name] for name in sorted(wanted & finite.keys())}
            if self.space.contains(point) and (kept or not metrics):
                self._believed.append([self.space.canonical(point), kept])

    def trust(self) -> float | None:
        return self._advice().trust(self.goal, self._history) if self._believed else None

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        flying = self._flight.proposals.get(proposal.number)
        super().tell(proposal, outcome)
        if flying is not None and outcome.status != "cancelled":
            self._history.append(_record(flying.parameters, outcome, elsewhere=False))

    def state(self) -> dict[str, Json]:
        return {
            **super().state(),
            "history": list(self._history),
            "known": self._known.state(),
            "believed": list(self._believed),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self._history = list(state["history"])
        self._known.restore(state["known"])
        self._believed = list(state["believed"])
        self._advisor = None

    def most(self) -> int | None:
        limits = [limit for limit in (self._options.trials, self.space.size()) if limit is not None]
        return min(limits, default=None)

    def remaining(self) -> int | None:
        most = self.most()
        if most is None:
            return None
        return max(most - self._flight.distinct, 0) + len(self._flight) + len(self._again)

    def _draw(self) -> tuple[Mapping[str, Json], str] | None:
        if self._options.trials is not None and self._flight.distinct >= self._options.trials:
            return None
        for point in self._start:
            if not self._taken(point):
                return point, "given to start with"
        if (best := self._best_known()) is not None and not self._flight.asked(best):
            return best, "the best that earlier measurements know"
        flying = [proposal.parameters for proposal in self._flight.proposals.values()]
        return self._advice().advise(
            self.goal,
            self._history,
            flying,
            self._taken,
            label=f"{self._seed}/{self._flight.distinct}",
        )

    def _advice(self) -> Advisor:
        if self._advisor is None:
            from searchers._auto_advisor import Advisor

            believed = [(point, metrics) for point, metrics in self._believed]
            self._advisor = Advisor(self.space, hints=self._options.hints, believed=believed)
        return self._advisor

    def _best_known(self) -> Mapping[str, Json] | None:
        """Of what was measured elsewhere, the point that satisfies with the highest objective."""
        known = [
            record
            for record in self._history
            if record["elsewhere"] and record["satisfied"] is not False and not record["stopped"]
        ]
        ranked = [record for record in known if record["objective"] is not None]
        best = max(ranked, key=lambda record: float(record["objective"]), default=None)
        return None if best is None else dict(best["parameters"])

    def _taken(self, point: Mapping[str, Json]) -> bool:
        return bool(self._flight.asked(point) or self._known.asked(point))

    def _legal(self, point: Mapping[str, Json], number: int) -> dict[str, Json]:
        try:
            return self.space.canonical(point)
        except ValueError as error:
            raise ValueError(f"start.{number}: {error}") from None


def _record(
    parameters: Mapping[str, Json], outcome: Outcome, *, elsewhere: bool
) -> dict[str, Json]:
    metrics = {name: value for name, value in outcome.metrics.items() if math.isfinite(value)}
    objective: Any = outcome.objective
    return {
        "elsewhere": elsewhere,
        "parameters": dict(parameters),
        "failed": outcome.status == "failed",
        "stopped": "stopped" in outcome.data,
        "satisfied": outcome.satisfied,
        "metrics": metrics,
        "objective": objective if objective is not None and math.isfinite(objective) else None,
    }
