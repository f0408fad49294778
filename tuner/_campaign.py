"""One search from its baseline to its verified answer. Pure: no Ray, no clock, no I/O.

A campaign wraps the user's strategy and is a strategy itself. Around the search it adds what every
experiment needs: the baseline that relative demands are held against, measurements that are known
already, retries after infrastructure failures, budgets, and a last measurement of what is about to
be delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol

from searchers import WAIT, Done, Json, Outcome, Proposal, Strategy, Verdict, Wait
from trainables import Measurement, VerificationPolicy
from tuner._finale import Finale
from tuner._judge import BaselineMissing, judge
from tuner.experiment import Budget, Objective

Role = Literal["baseline", "search", "verification"]
EventKind = Literal["proposed", "reused", "measured", "failed", "retry", "cancelled", "stopped"]


class Known(Protocol):
    """Where measurements that exist already are found."""

    def find(self, identity: str) -> Measurement | None: ...

    def forget(self, identity: str) -> None: ...


@dataclass(frozen=True)
class Ticket:
    """A proposal of the campaign under way.

    Attributes:
        proposal: As handed out, numbered by the campaign.
        role: What the campaign wants it for.
        inner: The number the search gave it; None for the campaign's own proposals.
        identity: Digest of the question asked.
        attempt: From 1.
    """

    proposal: Proposal
    role: Role
    inner: int | None
    identity: str
    attempt: int = 1

    def to_json(self) -> dict[str, Json]:
        return {**vars(self), "proposal": self.proposal.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> Ticket:
        return cls(**{**document, "proposal": Proposal.from_json(document["proposal"])})


@dataclass(frozen=True)
class Event:
    """Something worth telling: to the progress view, the event log, the metrics."""

    kind: EventKind
    ticket: Ticket | None
    outcome: Outcome | None = None
    message: str = ""


class Campaign(Strategy):
    """See the module. ``identify`` digests a proposal; ``observe`` hears every event.

    Args:
        search: The user's strategy, fresh.
        objective: What good means.
        budget: Of it, trials and retries; time is the runner's, which calls :meth:`stop`.
        known: Measurements to reuse.
        verifies: Whether a winner is measured once more from what is delivered.
        policy: How a winner is verified; by default once.
        baseline: Parameters of a baseline that is measured in any case, and that is the answer
            when nothing beats it; None: one is measured where a demand is relative to it.
        answers: Whether a known measurement still answers the question its identity asks.
        spent: Number of candidates this run has measured, those before a resume included.
    """

    def __init__(
        self,
        search: Strategy,
        *,
        objective: Objective,
        budget: Budget,
        known: Known,
        identify: Callable[[Proposal], str],
        verifies: bool,
        spent: Callable[[], int],
        policy: VerificationPolicy | None = None,
        baseline: Mapping[str, Json] | None = None,
        answers: Callable[[Measurement], bool] = lambda measurement: True,
        observe: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.search = search
        self._objective = objective
        self._budget = budget
        self._known = known
        self.identify = identify
        self._policy = policy or VerificationPolicy()
        self._finale = Finale(self._policy if verifies else None)
        self._verifies = verifies
        self._reference = {} if baseline is None and objective.needs_baseline else baseline
        self._answers = answers
        self._observe = observe
        self._next = 0
        self._spent = spent
        self._live: dict[int, Ticket] = {}
        self._retries: list[Ticket] = []
        self._held: list[tuple[Proposal, Outcome]] = []
        self._inner: dict[int, Proposal] = {}
        self._learned: list[Ticket] = []
        self._remembered: frozenset[str] = frozenset()
        self._baseline: dict[str, float] | None = None
        self._asked_baseline = False
        self._stopped: tuple[Verdict, str] | None = None

    @property
    def baseline(self) -> Mapping[str, float] | None:
        """Metrics of the baseline, once known."""
        return self._baseline

    @property
    def final(self) -> Done | None:
        """The verified answer; None until the campaign is over."""
        return self._finale.final

    def incumbent(self) -> float | None:
        """The objective's value that a candidate has to beat; None while there is none."""
        best = self._finale.contest.best()
        return None if best is None else best.value

    def identities(self) -> frozenset[str]:
        """Identities of everything this campaign has learned from, reused or measured."""
        return frozenset(ticket.identity for ticket in self._learned)

    def live(self) -> Mapping[int, Ticket]:
        """Tickets in flight by proposal number."""
        return self._live

    def unfinished(self) -> frozenset[str]:
        """Identities of what is in flight or about to be repeated."""
        tickets = [*self._live.values(), *self._retries]
        return frozenset(ticket.identity for ticket in tickets)

    def ask(self) -> Proposal | Wait | Done:
        if self.final is not None:
            return self.final
        self.search.width = self.width
        if self._retries:
            return self._hand_out(self._retries.pop(0))
        if self._reference is not None and not self._asked_baseline:
            self._asked_baseline = True
            wanted = Proposal(0, self._reference, "baseline", why=_WHY_BASELINE)
            ticket = self._ticket(wanted, "baseline", None)
            if not self._reuse(ticket):
                return self._hand_out(ticket)
        if self._finale.answer is None:
            step = self._ask_search()
            if not isinstance(step, Done):
                return step
            if any(ticket.role == "baseline" for ticket in self._live.values()):
                return WAIT
            self._finale.begin(step)
        return self._conclude()

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        ticket = self._live.pop(proposal.number)
        if outcome.status == "failed" and self._retry(ticket, outcome):
            return
        known = outcome.status == "measured" and ticket.identity in self._remembered
        self._observe(Event("reused" if known else outcome.status, ticket, outcome))
        self._learn(ticket, outcome)

    def stop(self, verdict: Verdict, message: str) -> None:
        """End the search with what is known; the best so far is still verified and delivered."""
        if self._stopped is None and self._finale.answer is None:
            self._stopped = (verdict, message)
            self._retries = [ticket for ticket in self._retries if ticket.role == "verification"]
            self._observe(Event("stopped", None, message=message))

    def obsolete(self) -> frozenset[int]:
        inner = self.search.obsolete()
        return frozenset(
            number
            for number, ticket in self._live.items()
            if ticket.role != "verification" and (self._stopped or ticket.inner in inner)
        )

    def best(self) -> Proposal | None:
        """What would be delivered if the search ended now."""
        best = self._finale.contest.best()
        return self.search.best() if best is None else best.proposal

    def remaining(self) -> int | None:
        if self.final is not None:
            return 0
        verification = self._policy.finalists if self._verifies else 0
        if self._finale.answer is not None or self._stopped is not None:
            return verification
        rest = self.search.remaining()
        return None if rest is None else rest + verification

    def most(self) -> int | None:
        most = self.search.most()
        if self._budget.trials is not None:
            most = self._budget.trials if most is None else min(most, self._budget.trials)
        extra = int(self._reference is not None)
        extra += self._policy.finalists if self._verifies else 0
        return None if most is None else most + extra

    def state(self) -> dict[str, Json]:
        return {
            "search": self.search.state(),
            "next": self._next,
            "live": [ticket.to_json() for ticket in self._live.values()],
            "retries": [ticket.to_json() for ticket in self._retries],
            "held": [[proposal.to_json(), asdict(outcome)] for proposal, outcome in self._held],
            "inner": [proposal.to_json() for proposal in self._inner.values()],
            "learned": [ticket.to_json() for ticket in self._learned],
            "baseline": self._baseline,
            "asked_baseline": self._asked_baseline,
            "stopped": self._stopped,
            "finale": self._finale.state(),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self.search.restore(state["search"])
        self._next = state["next"]
        live = [Ticket.from_json(item) for item in state["live"]]
        self._live = {ticket.proposal.number: ticket for ticket in live}
        # Finished after this state was saved: their Ray trials will answer from the measurement.
        self._remembered = frozenset(t.identity for t in live if self._known.find(t.identity))
        self._retries = [Ticket.from_json(item) for item in state["retries"]]
        self._held = [(Proposal.from_json(p), Outcome(**o)) for p, o in state["held"]]
        inner = [Proposal.from_json(item) for item in state["inner"]]
        self._inner = {proposal.number: proposal for proposal in inner}
        self._learned = [Ticket.from_json(item) for item in state["learned"]]
        self._baseline = state["baseline"]
        self._asked_baseline = state["asked_baseline"]
        self._stopped = None if state["stopped"] is None else tuple(state["stopped"])
        self._finale.restore(state["finale"])
        for ticket in self._learned:
            if measurement := self._known.find(ticket.identity):
                self._observe(Event("reused", ticket, _outcome(measurement)))

    def _ask_search(self) -> Proposal | Wait | Done:
        """Ask the strategy until it wants something that is not known yet."""
        while self._stopped is None:
            if self._budget.trials is not None and self._committed() >= self._budget.trials:
                if self._live or self._held:
                    return WAIT
                self.stop("budget", f"all {self._budget.trials} trials of the budget are spent")
                break
            step = self.search.ask()
            if not isinstance(step, Proposal):
                return step
            self._inner[step.number] = step
            ticket = self._ticket(step, "search", step.number)
            if not self._reuse(ticket):
                return self._hand_out(ticket)
        if self._live:
            return WAIT
        assert self._stopped is not None
        return Done(self._stopped[0], self.best(), self._stopped[1])

    def _committed(self) -> int:
        """Candidates measured or in flight."""
        flying = sum(ticket.proposal.kind == "candidate" for ticket in self._live.values())
        return self._spent() + flying

    def _conclude(self) -> Proposal | Wait | Done:
        if any(ticket.role == "verification" for ticket in self._live.values()):
            return WAIT
        while (wanted := self._finale.wanted()) is not None:
            ticket = self._ticket(wanted, "verification", None)
            if not self._reuse(ticket):
                return self._hand_out(ticket)
            if self.final is not None:
                break
        assert self.final is not None
        return self.final

    def _ticket(self, proposal: Proposal, role: Role, inner: int | None) -> Ticket:
        identity = self.identify(proposal)
        ticket = Ticket(replace(proposal, number=self._next), role, inner, identity)
        self._next += 1
        return ticket

    def _hand_out(self, ticket: Ticket) -> Proposal:
        self._live[ticket.proposal.number] = ticket
        self._observe(Event("proposed", ticket))
        return ticket.proposal

    def _reuse(self, ticket: Ticket) -> bool:
        measurement = self._known.find(ticket.identity)
        if measurement is None:
            return False
        if not self._still_answers(measurement):
            self._known.forget(ticket.identity)
            return False
        outcome = _outcome(measurement)
        self._observe(Event("reused", ticket, outcome))
        self._learn(ticket, outcome)
        return True

    def _still_answers(self, measurement: Measurement) -> bool:
        """Whether a trial that ended early for a reason would end there today too.

        What it skipped then may matter now that the demand is another one.
        """
        stopped = measurement.data.get("stopped")
        if not stopped:
            return True
        if not self._answers(measurement):
            return False
        if (bound := stopped.get("bound")) is not None:
            best = self.incumbent()
            return best is not None and best > bound
        if stopped.get("metric") is None:
            return True
        try:
            checks = judge(self._objective, measurement.metrics, self._baseline).checks
        except BaselineMissing:
            return False
        return any(check.metric == stopped["metric"] and not check.ok for check in checks)

    def _retry(self, ticket: Ticket, outcome: Outcome) -> bool:
        failure = outcome.data.get("failure", {})
        stopping = self._stopped is not None and ticket.role != "verification"
        if ticket.attempt > self._budget.retries_of(failure) or stopping:
            return False
        proposal = replace(ticket.proposal, number=self._next)
        self._next += 1
        self._retries.append(replace(ticket, proposal=proposal, attempt=ticket.attempt + 1))
        self._observe(Event("retry", ticket, outcome))
        return True

    def _learn(self, ticket: Ticket, outcome: Outcome) -> None:
        if outcome.status == "measured":
            self._learned.append(ticket)
        if ticket.role == "baseline":
            self._learn_baseline(ticket.proposal, outcome)
        elif ticket.role == "verification":
            self._learn_verification(outcome)
        else:
            assert ticket.inner is not None
            self._tell_search(self._inner.pop(ticket.inner), outcome)

    def _learn_baseline(self, proposal: Proposal, outcome: Outcome) -> None:
        held, self._held = self._held, []
        if outcome.status == "measured":
            self._baseline = dict(outcome.metrics)
            self._enter(proposal, outcome)
        elif self._objective.needs_baseline:
            reason = outcome.error or "it was cancelled"
            self.stop("failed", f"the baseline could not be measured: {reason}")
            for candidate, _ in held:
                self.search.tell(candidate, Outcome("cancelled"))
            return
        for candidate, kept in held:
            self._tell_search(candidate, kept)

    def _tell_search(self, proposal: Proposal, outcome: Outcome) -> None:
        if outcome.status == "measured" and proposal.kind == "candidate":
            if self._objective.needs_baseline and self._baseline is None:
                self._held.append((proposal, outcome))
                return
            outcome = self._enter(proposal, outcome)
        self.search.tell(proposal, outcome)

    def _enter(self, proposal: Proposal, outcome: Outcome) -> Outcome:
        """Judge a measured outcome; it may win if nothing stopped it early."""
        verdict = judge(self._objective, outcome.metrics, self._baseline)
        whole = "stopped" not in outcome.data
        satisfied = verdict.satisfied and whole
        may_win = satisfied or (self._policy.refines and whole and proposal.kind == "candidate")
        if may_win and self._policy.most > 1:
            self._finale.contest.enter(proposal, verdict.objective)
        metrics = {**outcome.metrics, **verdict.derived}
        return replace(outcome, metrics=metrics, satisfied=satisfied, objective=verdict.objective)

    def _learn_verification(self, outcome: Outcome) -> None:
        measured = outcome.status == "measured"
        verdict = judge(self._objective, outcome.metrics, self._baseline) if measured else None
        self._finale.learn(outcome, verdict)


_WHY_BASELINE = "baseline: what all else is compared with"


def _outcome(measurement: Measurement) -> Outcome:
    return Outcome("measured", dict(measurement.metrics), dict(measurement.data))
