"""What searches for the least fallback share: candidates, their ranking, and what satisfied."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from searchers._candidates import FallbackOptions, NoRanking, grouped, ranked
from searchers._contract import Done, Json, Outcome, Proposal, Strategy
from searchers._flight import Flight
from searchers._space import Space

Place = TypeVar("Place")
"""Where a candidate was measured: a level of fallback, and under what else."""


class Places(Protocol[Place]):
    """What is known of all places; see :class:`LevelSearch` and :class:`Ladders`."""

    def extend(self, top: int) -> None: ...

    def record(self, place: Place, satisfied: bool, /) -> None: ...

    def record_failure(self, place: Place, /) -> None: ...

    def answer(self) -> Place | None: ...

    def outstanding(self, width: int) -> int: ...

    def state(self) -> dict[str, Json]: ...

    def restore(self, state: Mapping[str, Json]) -> None: ...


class FallbackSearch(Strategy, Generic[Place]):
    """Measures prefixes of the candidates, which an ``analysis`` trial ranks where none are given.

    See :func:`searchers._candidates.ranked` for what that trial reports. The end comes only when
    everything handed out has been told.

    Args:
        places: What the search knows, empty as yet.
    """

    def __init__(
        self, options: FallbackOptions, places: Places[Place], space: Space | None
    ) -> None:
        if space is not None:
            raise ValueError("the candidates are searched; this search takes no space")
        self._places = places
        self._ranks = not options.candidates
        self._groups = grouped(options.candidates)
        self._flight = Flight()
        self._satisfied: dict[Place, Proposal] = {}
        self._trouble: str | None = None

    @abstractmethod
    def _place(self, proposal: Proposal) -> Place:
        """Where a candidate is measured."""

    @abstractmethod
    def _gave_up(self) -> bool:
        """Whether too many trials failed for the search to go on."""

    @abstractmethod
    def _delivery(self, place: Place) -> str:
        """What the answer is, in words."""

    @abstractmethod
    def _exhaustion(self) -> str:
        """Why nothing that could be measured would satisfy; empty when that is not known."""

    @abstractmethod
    def _notes(self) -> str:
        """What a person should know about the measurements the answer rests on."""

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        landed = self._flight.land(proposal)
        if landed is None or outcome.status == "cancelled":
            return
        if landed.kind == "analysis":
            self._learn_ranking(outcome)
            return
        place = self._place(landed)
        if outcome.status == "failed":
            self._places.record_failure(place)
            return
        if outcome.satisfied is None:
            raise ValueError("the search needs to be told whether the demand is satisfied")
        self._places.record(place, outcome.satisfied)
        if outcome.satisfied:
            self._satisfied.setdefault(place, landed)

    def best(self) -> Proposal | None:
        place = self._places.answer()
        return None if place is None else self._satisfied[place]

    def remaining(self) -> int | None:
        if self._needs_analysis():
            return None
        return max(self._places.outstanding(self.width), len(self._flight))

    def state(self) -> dict[str, Json]:
        return {
            "flight": self._flight.state(),
            "groups": self._groups,
            "places": self._places.state(),
            "satisfied": [proposal.to_json() for proposal in self._satisfied.values()],
            "trouble": self._trouble,
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self._flight.restore(state["flight"])
        self._groups = [list(group) for group in state["groups"]]
        self._places.restore(state["places"])
        satisfied = [Proposal.from_json(document) for document in state["satisfied"]]
        self._satisfied = {self._place(proposal): proposal for proposal in satisfied}
        self._trouble = state["trouble"]

    def _full(self) -> bool:
        return bool(self._flight) and len(self._flight) >= self.width

    def _candidates(self) -> dict[int, Proposal]:
        """Candidates in flight by number of the proposal."""
        flying = self._flight.proposals.items()
        return {number: each for number, each in flying if each.kind == "candidate"}

    def _useless(self, places: set[Place]) -> frozenset[int]:
        """Numbers of what is in flight for ``places``, and of an analysis nobody needs."""
        candidates = self._candidates()
        numbers = {number for number, each in candidates.items() if self._place(each) in places}
        if not self._needs_analysis():
            numbers |= self._flight.proposals.keys() - candidates.keys()
        return frozenset(numbers)

    def _needs_analysis(self) -> bool:
        known = self._groups or self._trouble
        return not known and self._places.answer() is None and not self._gave_up()

    def _wants_analysis(self) -> bool:
        asked = len(self._flight) > len(self._candidates())
        return self._needs_analysis() and not asked

    def _analyse(self) -> Proposal:
        why = "sensitivity analysis: in which order should layers fall back?"
        return self._flight.launch({}, kind="analysis", why=why)

    def _learn_ranking(self, outcome: Outcome) -> None:
        try:
            self._groups = ranked(outcome)
        except NoRanking as error:
            self._trouble = str(error)
            return
        self._places.extend(len(self._groups))

    def _prefix(self, level: int) -> list[str]:
        """The layers of the first ``level`` candidates."""
        return [name for group in self._groups[:level] for name in group]

    def _conclude(self) -> Done:
        best = self.best()
        if best is not None:
            return Done("satisfied", best, self._delivery(self._place(best)) + self._notes())
        if self._trouble is not None:
            return Done("failed", None, self._trouble + self._notes())
        if exhaustion := self._exhaustion():
            return Done("exhausted", None, exhaustion + self._notes())
        return Done("failed", None, "no fallback was found that meets the demand" + self._notes())
