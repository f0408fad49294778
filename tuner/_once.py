"""A search that wants one thing measured and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from searchers import WAIT, Done, Json, Outcome, Proposal, Strategy, Wait


class Once(Strategy):
    """Proposes a single trial of the given kind."""

    def __init__(self, kind: str, why: str) -> None:
        self._proposal = Proposal(0, {}, kind, why=why)
        self._asked = False
        self._outcome: str | None = None

    def ask(self) -> Proposal | Wait | Done:
        if not self._asked:
            self._asked = True
            return self._proposal
        if self._outcome is None:
            return WAIT
        measured = self._outcome == "measured"
        return Done("satisfied" if measured else "failed", None, "" if measured else self._outcome)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        self._outcome = "measured" if outcome.status == "measured" else outcome.error or "cancelled"

    def state(self) -> dict[str, Json]:
        return {"asked": self._asked, "outcome": self._outcome}

    def restore(self, state: Mapping[str, Json]) -> None:
        self._asked, self._outcome = state["asked"], state["outcome"]

    def best(self) -> Proposal | None:
        return None

    def remaining(self) -> int:
        return int(self._outcome is None)

    def most(self) -> int:
        return 1
