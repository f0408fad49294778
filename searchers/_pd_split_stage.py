"""What one instance does alone: the first stage of ``pd_split``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from searchers._contract import Bound, Goal, Json, Outcome, Proposal, Strategy
from searchers._pd_splits import Role, decode_rate, prefill_rate

RATE = "requests_per_s"
OUT_OF_MEMORY = "out_of_memory"

SIDES: Mapping[str, Role] = {"ttft": "prefill", "tpot": "decode", "itl": "decode"}
"""The pool that brings a latency about, by the first word of its metric."""

_HELD: Mapping[Role, frozenset[str]] = {
    "prefill": frozenset({"ttft", "success"}),
    "decode": frozenset({"tpot", "itl", "success"}),
    "mixed": frozenset({"ttft", "tpot", "itl", "e2el", "success"}),
}
"""Limits that an instance alone has to keep, by the first word of their metric. Throughput of the
whole is none of them."""


@dataclass(frozen=True)
class Rated:
    """The best that one instance did alone.

    Attributes:
        rate: Requests per second.
        parameters: Of the role's space.
        kept: Whether the limits of its role were.
    """

    rate: float
    parameters: Mapping[str, Json]
    kept: bool


class Stage:
    """One shape in one role: tuned by a strategy of its own, or measured once.

    Args:
        search: Over the role's parameters; None: there are none.
        trials: At most, failures included, cancelled ones not.

    Attributes:
        pending: Proposals of ``search`` that are being measured, by the number under which.
        best: None as long as nothing was measured.
        failure: Of the last failed trial: ``{error, class}``.
    """

    def __init__(self, role: Role, shape: str, search: Strategy | None, trials: int) -> None:
        self.role, self.shape = role, shape
        self.pending: dict[int, Proposal] = {}
        self.best: Rated | None = None
        self.failure: dict[str, Json] | None = None
        self._search, self._trials = search, trials if search is not None else 1
        self._asked = 0

    @property
    def key(self) -> tuple[str, Role]:
        return self.shape, self.role

    @property
    def begun(self) -> bool:
        return self._asked > 0

    def ask(self, goal: Goal, width: int) -> Proposal | None:
        """The next of its own proposals; None when there is none, or none yet."""
        if self._asked >= self._trials:
            return None
        if self._search is None:
            self._asked += 1
            return Proposal(0, {})
        self._search.goal, self._search.width = _goal(goal, self.role), width
        step = self._search.ask()
        if not isinstance(step, Proposal):
            return None
        self._asked += 1
        return step

    def tell(self, number: int, outcome: Outcome, goal: Goal, output_tokens: float | None) -> None:
        """What became of a pending proposal."""
        proposal = self.pending.pop(number)
        rated = rated_outcome(self.role, outcome, goal, output_tokens)
        if outcome.status == "cancelled":
            self._asked -= 1
        elif rated.status == "failed":
            failure = rated.data.get("failure", {})
            self.failure = {"error": rated.error or "", "class": failure.get("class", "")}
        else:
            assert rated.objective is not None
            found = Rated(rated.objective, dict(proposal.parameters), bool(rated.satisfied))
            if self.best is None or (found.kept, found.rate) > (self.best.kept, self.best.rate):
                self.best = found
        if self._search is not None:
            self._search.goal = _goal(goal, self.role)
            self._search.tell(proposal, rated)

    def remaining(self) -> int:
        """Trials still to come at most, those in flight included."""
        own = None if self._search is None else self._search.remaining()
        left = self._trials - self._asked + len(self.pending)
        return left if own is None else max(min(left, own), len(self.pending))

    def most(self) -> int:
        own = None if self._search is None else self._search.most()
        return self._trials if own is None else min(self._trials, own)

    def state(self) -> dict[str, Json]:
        return {
            "asked": self._asked,
            "pending": [[number, one.to_json()] for number, one in self.pending.items()],
            "best": None if self.best is None else asdict(self.best),
            "failure": self.failure,
            "search": None if self._search is None else self._search.state(),
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        self._asked = state["asked"]
        self.pending = {number: Proposal.from_json(one) for number, one in state["pending"]}
        self.best = None if state["best"] is None else Rated(**state["best"])
        self.failure = state["failure"]
        if self._search is not None:
            self._search.restore(state["search"])


def rated_outcome(role: Role, outcome: Outcome, goal: Goal, output_tokens: float | None) -> Outcome:
    """An outcome of one instance alone, judged by its rate and the limits of its role.

    One that was measured but tells no rate is a failure.
    """
    if outcome.status != "measured":
        return outcome
    rate = role_rate(role, outcome.metrics, output_tokens)
    if rate is None:
        return Outcome("failed", error=f"the {role} trial reported no throughput")
    excesses = [bound.excess(outcome.metrics) for bound in _goal(goal, role).bounds]
    kept = all(excess is None or excess <= 0 for excess in excesses)
    metrics = {**outcome.metrics, RATE: rate}
    satisfied = kept and "stopped" not in outcome.data
    return replace(outcome, metrics=metrics, satisfied=satisfied, objective=rate)


def role_rate(
    role: Role, metrics: Mapping[str, float], output_tokens: float | None = None
) -> float | None:
    """Requests per second of one instance alone, as :func:`prefill_rate` and :func:`decode_rate`
    say where their latency was measured at a known concurrency, else as it was measured itself;
    None: neither."""

    def positive(name: str) -> float | None:
        value = metrics.get(name)
        return value if value is not None and math.isfinite(value) and value > 0 else None

    concurrency, answer = positive("concurrency"), output_tokens or positive("output_tokens_mean")
    ttft, tpot = positive("ttft_mean_s"), positive("tpot_mean_s")
    if role == "prefill" and concurrency and ttft:
        return prefill_rate(concurrency, ttft)
    if role == "decode" and concurrency and tpot and answer:
        return decode_rate(concurrency, tpot, answer)
    return positive(RATE)


def held_rate(outcome: Outcome, goal: Goal) -> tuple[float | None, Role | None]:
    """Requests per second that a whole split would hold its limits at, and the pool that is known
    to bring that about.

    Of one that satisfies, what was measured. Else less in the proportion in which the latency that
    is farthest beyond its limit is beyond it: latency grows at least as load does. Of one that was
    given up because it cannot beat the best known, what it can reach at most.
    """
    rate = role_rate("mixed", outcome.metrics)
    if (most := reaches_at_most(outcome)) is not None:
        return most, None
    if rate is None or outcome.satisfied is not False:
        return rate, None
    worst, side = 0.0, None
    for bound in goal.bounds:
        excess = bound.excess(outcome.metrics)
        if bound.max is not None and excess is not None and math.isfinite(excess):
            word = _word(bound)
            if word in (*SIDES, "e2el") and excess > worst:
                worst, side = excess, SIDES.get(word)
    return rate / (1 + worst), side


def reaches_at_most(outcome: Outcome) -> float | None:
    """Requests per second that a whole split can reach, where that is why it was given up
    (``data["stopped"]``: ``{metric, bound}``, a bound of the metric that is maximised)."""
    stopped = outcome.data.get("stopped") or {}
    bound, metric = stopped.get("bound"), stopped.get("metric")
    if bound is None or metric == RATE:
        return None if bound is None else float(bound)
    rate, own = role_rate("mixed", outcome.metrics), outcome.metrics.get(str(metric))
    return rate * float(bound) / own if rate and own else None


def _goal(goal: Goal, role: Role) -> Goal:
    held = tuple(bound for bound in goal.bounds if _word(bound) in _HELD[role])
    return Goal(maximize=(RATE,), bounds=held)


def _word(bound: Bound) -> str:
    return bound.metric.partition("_")[0]
