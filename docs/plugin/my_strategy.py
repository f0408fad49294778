"""search: {type: listed, points: [...]}: measures the points of a list, in their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from searchers import WAIT, Done, Outcome, Proposal, Space, Strategy, Wait, register_strategy


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    points: list[dict[str, Any]] = Field(min_length=1)


@register_strategy("listed", Options)
class Listed(Strategy):
    def __init__(self, options: Options, *, space: Space | None, seed: int) -> None:
        self._points = options.points
        self._next = 0
        self._flying: set[int] = set()
        self._measured = 0
        self._best: tuple[float, int] | None = None

    def ask(self) -> Proposal | Wait | Done:
        if self._next < len(self._points):
            self._flying.add(self._next)
            self._next += 1
            return Proposal(self._next - 1, self._points[self._next - 1], why="next of the list")
        if self._flying:
            return WAIT
        best = self.best()
        if not self._measured:
            return Done("failed", message="no point of the list could be measured")
        if best is None:
            return Done("exhausted", message="no point of the list satisfies")
        return Done("satisfied", best, f"the best of {len(self._points)} points")

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        if proposal.number not in self._flying:
            return
        self._flying.remove(proposal.number)
        self._measured += outcome.status == "measured"
        if outcome.status == "measured" and outcome.satisfied:
            found = (outcome.objective or 0.0, -proposal.number)
            self._best = max(self._best or found, found)

    def best(self) -> Proposal | None:
        if self._best is None:
            return None
        number = -self._best[1]
        return Proposal(number, self._points[number], why="next of the list")

    def state(self) -> dict[str, Any]:
        return {
            "next": self._next,
            "flying": sorted(self._flying),
            "measured": self._measured,
            "best": None if self._best is None else [*self._best],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._next, self._flying = state["next"], set(state["flying"])
        self._measured = state["measured"]
        self._best = None if state["best"] is None else tuple(state["best"])
