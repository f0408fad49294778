"""From the search's answer to a verified one. Pure.

The search ends with its best candidate. What is delivered is the best of everything that was
measured and satisfies, the baseline among it, and only after a last measurement of it has held what
the first one promised. Where numbers are noisy the best of many is often the luckiest: then the
next best is verified in its place, as often as the trial type allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from searchers import Done, Json, Outcome, Proposal
from tuner._contest import Contest
from tuner._judge import Judgement

_WHY = "verification: is what would be delivered the winner?"


class Finale:
    """The end of a campaign.

    Args:
        verifies: Whether a winner is measured once more from what is delivered.
        most: How many winners may fail that before the search has failed.

    Attributes:
        contest: Everything measured that may win by its objective's value.
        answer: What the search came to; None while it goes on.
        final: The verified answer; None until all is over.
    """

    def __init__(self, *, verifies: bool, most: int) -> None:
        self.contest = Contest()
        self.answer: Done | None = None
        self.final: Done | None = None
        self._verifies = verifies
        self._most = most
        self._doubts: list[str] = []

    def begin(self, answer: Done) -> None:
        """The search is over: ``answer`` is its own view of it."""
        best = self.contest.best()
        if best is not None:
            if best.proposal.kind == "baseline":
                said = f"nothing measured beats the baseline ({answer.message})"
                verdict = "satisfied" if answer.verdict == "exhausted" else answer.verdict
                answer = Done(verdict, best.proposal, said)
            else:
                answer = replace(answer, best=best.proposal)
        self.answer = answer

    def wanted(self) -> Proposal | None:
        """The verification that is missing; None once :attr:`final` is there."""
        answer = self.answer
        assert answer is not None
        sure = answer.best is None or answer.best.kind == "baseline"
        if sure or not self._verifies or answer.verdict in ("exhausted", "failed"):
            self.final = answer
            return None
        assert answer.best is not None
        return Proposal(0, answer.best.parameters, "verification", why=_WHY)

    def learn(self, outcome: Outcome, judgement: Judgement | None) -> None:
        """What the verification found; ``judgement`` of one that was measured."""
        answer = self.answer
        assert answer is not None and answer.best is not None
        if judgement is None:
            reason = outcome.error or "it was cancelled"
            said = f"the best found could not be verified: {reason}. {answer.message}"
            self.final = Done("failed", None, said)
            return
        doubt = self._doubt(judgement)
        if doubt is None:
            self.final = replace(answer, message="; ".join([answer.message, *self._doubts]))
            return
        self._doubts.append(doubt)
        self.contest.refute(answer.best)
        following = self.contest.best()
        if following is not None and following.proposal.kind == "baseline":
            said = "; ".join(["nothing measured beats the baseline", *self._doubts])
            self.final = Done(answer.verdict, following.proposal, said)
        elif following is not None and len(self._doubts) < self._most:
            self.answer = replace(answer, best=following.proposal)
        else:
            self.final = Done("failed", None, "; ".join(self._doubts))

    def _doubt(self, judgement: Judgement) -> str | None:
        again = "measured again from what would be delivered, the best found"
        if not judgement.satisfied:
            failed = "; ".join(str(check) for check in judgement.checks if not check.ok)
            return f"{again} fails: {failed}"
        baseline, value = self.contest.baseline, judgement.objective
        if baseline is not None and value is not None and value <= baseline.value:
            return f"{again} is no better than the baseline"
        return None

    def state(self) -> dict[str, Json]:
        return {
            "contest": self.contest.state(),
            "answer": _to_json(self.answer),
            "final": _to_json(self.final),
            "doubts": list(self._doubts),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self.contest.restore(state["contest"])
        self.answer = _from_json(state["answer"])
        self.final = _from_json(state["final"])
        self._doubts = list(state["doubts"])


def _to_json(done: Done | None) -> Json:
    if done is None:
        return None
    best = None if done.best is None else done.best.to_json()
    return {"verdict": done.verdict, "best": best, "message": done.message}


def _from_json(document: Json) -> Done | None:
    if document is None:
        return None
    best = None if document["best"] is None else Proposal.from_json(document["best"])
    return Done(document["verdict"], best, document["message"])
