"""From the search's answer to a verified one. Pure.

The search ends with its best candidate. What is delivered is the best of everything that was
measured and satisfies, the baseline among it, and only after a last measurement of it has held what
the first one promised. Where numbers are noisy the best of many is often the luckiest: then the
next best is verified in its place, as often as the trial type allows, or the best few are all
verified and the best of those is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from searchers import Done, Json, Outcome, Proposal
from trainables import VerificationPolicy
from tuner._contest import Contest
from tuner._judge import Judgement

_WHY = "verification: is what would be delivered the winner?"


class Finale:
    """The end of a campaign.

    Args:
        policy: How winners are verified; None where they are not.

    Attributes:
        contest: Everything measured that may win by its objective's value.
        answer: What the search came to; None while it goes on.
        final: The verified answer; None until all is over.
    """

    def __init__(self, policy: VerificationPolicy | None) -> None:
        self.contest = Contest()
        self.answer: Done | None = None
        self.final: Done | None = None
        self._policy = policy
        self._doubts: list[str] = []
        self._passed = Contest()

    def begin(self, answer: Done) -> None:
        """The search is over: ``answer`` is its own view of it."""
        best = self.contest.best()
        if best is not None:
            if best.proposal.kind == "baseline":
                said = f"nothing measured beats the baseline ({answer.message})"
                verdict = "satisfied" if answer.verdict == "exhausted" else answer.verdict
                answer = Done(verdict, best.proposal, said)
            else:
                verdict = "satisfied" if answer.verdict == "exhausted" else answer.verdict
                answer = replace(answer, verdict=verdict, best=best.proposal)
        self.answer = answer

    def wanted(self) -> Proposal | None:
        """The verification that is missing; None once :attr:`final` is there."""
        answer = self.answer
        assert answer is not None
        sure = answer.best is None or answer.best.kind == "baseline"
        if sure or self._policy is None or answer.verdict in ("exhausted", "failed"):
            self.final = answer
            return None
        assert answer.best is not None
        return Proposal(0, answer.best.parameters, "verification", why=_WHY)

    def learn(self, outcome: Outcome, judgement: Judgement | None) -> None:
        """What the verification found; ``judgement`` of one that was measured."""
        answer, policy = self.answer, self._policy
        assert answer is not None and answer.best is not None and policy is not None
        if judgement is None:
            reason = outcome.error or "it was cancelled"
            said = f"the best found could not be verified: {reason}. {answer.message}"
            self.final = Done("failed", None, said)
            return
        doubt = self._doubt(judgement)
        if doubt is None:
            self._passed.enter(answer.best, judgement.objective)
        else:
            self._doubts.append(doubt)
        self.contest.refute(answer.best)
        following = self.contest.best()
        enough = len(self._passed) >= policy.finalists or len(self._doubts) >= policy.most
        if following is None or following.proposal.kind == "baseline" or enough:
            self.final = self._chosen(answer, answer.best if doubt is None else None)
        else:
            self.answer = replace(answer, best=following.proposal)

    def _chosen(self, answer: Done, last: Proposal | None) -> Done:
        """The best of all that passed; of those without a value, the ``last`` one."""
        best = self._passed.best()
        winner = last if best is None else best.proposal
        if winner is not None:
            return replace(answer, best=winner, message="; ".join([answer.message, *self._doubts]))
        baseline = self.contest.baseline
        if baseline is None:
            refines = self._policy is not None and self._policy.refines
            return Done("exhausted" if refines else "failed", None, "; ".join(self._doubts))
        said = "; ".join(["nothing measured beats the baseline", *self._doubts])
        return Done(answer.verdict, baseline.proposal, said)

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
            "passed": self._passed.state(),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self.contest.restore(state["contest"])
        self.answer = _from_json(state["answer"])
        self.final = _from_json(state["final"])
        self._doubts = list(state["doubts"])
        self._passed.restore(state["passed"])


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
