"""What every strategy has to keep: the proposals it handed out and has not heard of yet."""

from __future__ import annotations

import json
from collections.abc import Mapping

from searchers._contract import Json, Proposal


class Flight:
    """Numbers proposals, never hands out the same one twice, and lands each once."""

    def __init__(self) -> None:
        self.proposals: dict[int, Proposal] = {}
        self._asked: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.proposals)

    @property
    def distinct(self) -> int:
        """Number of different parameters proposed so far."""
        return len(self._asked)

    def asked(self, parameters: Mapping[str, Json], kind: str = "candidate") -> int:
        """How often these parameters have been proposed."""
        return self._asked.get(_key(kind, parameters), 0)

    def launch(
        self,
        parameters: Mapping[str, Json],
        *,
        kind: str = "candidate",
        why: str = "",
        labels: Mapping[str, Json] | None = None,
    ) -> Proposal:
        """A new proposal; ``repeat`` counts the earlier ones with the same parameters."""
        repeat = self.asked(parameters, kind)
        number = sum(self._asked.values())
        self._asked[_key(kind, parameters)] = repeat + 1
        proposal = Proposal(number, parameters, kind, repeat, why, labels or {})
        self.proposals[number] = proposal
        return proposal

    def land(self, proposal: Proposal) -> Proposal | None:
        """The proposal as it was handed out; None if it is not, or no longer, in flight."""
        return self.proposals.pop(proposal.number, None)

    def state(self) -> dict[str, Json]:
        return {
            "proposals": [proposal.to_json() for proposal in self.proposals.values()],
            "asked": dict(self._asked),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        proposals = [Proposal.from_json(document) for document in state["proposals"]]
        self.proposals = {proposal.number: proposal for proposal in proposals}
        self._asked = dict(state["asked"])


def _key(kind: str, parameters: Mapping[str, Json]) -> str:
    return json.dumps([kind, parameters], sort_keys=True, ensure_ascii=False)
