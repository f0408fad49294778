"""Which measurement would be delivered now. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searchers import Json, Proposal


@dataclass(frozen=True)
class Contender:
    """A measured proposal that satisfies.

    Attributes:
        value: Its objective, to be maximised.
    """

    proposal: Proposal
    value: float

    def to_json(self) -> dict[str, Json]:
        return {"proposal": self.proposal.to_json(), "value": self.value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Contender:
        return cls(Proposal.from_json(document["proposal"]), document["value"])


class Contest:
    """Everything measured that satisfies and has an objective value, the baseline among it.

    Where the objective is only a demand nothing enters, and the strategy's own best counts.
    """

    def __init__(self) -> None:
        self._contenders: dict[str, Contender] = {}
        self._refuted: set[str] = set()
        self._best: Contender | None = None

    def enter(self, proposal: Proposal, value: float | None) -> None:
        """A proposal that satisfies was measured. A repetition of known parameters does not take
        the place of the first measurement."""
        key = _key(proposal)
        if value is None or key in self._contenders:
            return
        entered = self._contenders[key] = Contender(proposal, value)
        if key not in self._refuted:
            self._best = max(filter(None, (self._best, entered)), key=_rank)

    def refute(self, proposal: Proposal) -> None:
        """Leave a proposal out from now on: it was measured again, with whatever result."""
        self._refuted.add(_key(proposal))
        self._best = self._standing()

    def best(self) -> Contender | None:
        """The highest value; the baseline, then the earlier proposal, wins a tie."""
        return self._best

    def _standing(self) -> Contender | None:
        standing = [one for key, one in self._contenders.items() if key not in self._refuted]
        return max(standing, key=_rank, default=None)

    @property
    def baseline(self) -> Contender | None:
        """The baseline's own entry, if it satisfies. It is never refuted."""
        return next(
            (one for one in self._contenders.values() if one.proposal.kind == "baseline"), None
        )

    def __len__(self) -> int:
        return len(self._contenders)

    def state(self) -> dict[str, Json]:
        return {
            "contenders": [one.to_json() for one in self._contenders.values()],
            "refuted": sorted(self._refuted),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        found = [Contender.from_json(one) for one in state["contenders"]]
        self._contenders = {_key(one.proposal): one for one in found}
        self._refuted = set(state["refuted"])
        self._best = self._standing()


def _rank(contender: Contender) -> tuple[float, bool, int]:
    proposal = contender.proposal
    return contender.value, proposal.kind == "baseline", -proposal.number


def _key(proposal: Proposal) -> str:
    return json.dumps([proposal.kind == "baseline", proposal.parameters], sort_keys=True)
