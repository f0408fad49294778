"""From baseline to verified answer: what a campaign adds to a search."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers import Done, Outcome, Proposal, Strategy, Wait, make_strategy
from trainables import Measurement
from tuner._campaign import Campaign, Event
from tuner._identity import digest
from tuner.experiment import Budget, Objective

LAYERS = [f"layer.{number}" for number in range(16)]


class Known:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.measurements: dict[str, Measurement] = {}

    def find(self, identity: str) -> Measurement | None:
        return self.measurements.get(identity)

    def forget(self, identity: str) -> None:
        del self.measurements[identity]

    def add(
        self,
        identity: str,
        proposal: Proposal,
        metrics: Mapping[str, float],
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.measurements[identity] = Measurement(
            identity, "t", proposal.kind, dict(proposal.parameters), proposal.repeat, metrics,
            data or {}, {}, {}, (), 1, "run", "", 1.0,
        )  # fmt: skip


def identify(proposal: Proposal) -> str:
    return digest({"k": proposal.kind, "p": dict(proposal.parameters), "r": proposal.repeat})


def bisection() -> Strategy:
    return make_strategy("binary_fallback", {"candidates": LAYERS}, space=None, seed=0)


def campaign(
    known: Known,
    *,
    events: list[Event] | None = None,
    budget: Mapping[str, Any] | None = None,
    target: object = "baseline",
    verifies: bool = True,
    search: Callable[[], Strategy] = bisection,
) -> Campaign:
    expectation = {"metric": "accuracy", "target": target, "tolerance": 0.1}
    return Campaign(
        search(),
        objective=Objective.model_validate({"expectations": [expectation]}),
        budget=Budget.model_validate(budget or {}),
        known=known,
        identify=identify,
        verifies=verifies,
        spent=lambda: sum(m.kind == "candidate" for m in known.measurements.values()),
        observe=(events if events is not None else []).append,
    )


def accuracy(proposal: Proposal, threshold: int) -> dict[str, float]:
    if proposal.kind == "baseline":
        return {"accuracy": 0.9}
    level = len(proposal.parameters["fallback"])
    return {"accuracy": 0.85 if level >= threshold else 0.6}


def measure(known: Known, proposal: Proposal, threshold: int) -> Outcome:
    metrics = accuracy(proposal, threshold)
    known.add(identify(proposal), proposal, metrics)
    return Outcome("measured", metrics)


def drive(
    it: Campaign,
    known: Known,
    threshold: int,
    *,
    order: random.Random | None = None,
    most: int = 200,
    on_step: Callable[[list[Proposal]], None] = lambda live: None,
) -> tuple[Done, list[Proposal]]:
    """Carry everything out, completing in random order if ``order`` is given."""
    live: list[Proposal] = []
    asked: list[Proposal] = []
    for _ in range(most):
        step = it.ask() if len(live) < it.width else Wait.WAIT
        if isinstance(step, Done):
            return step, asked
        if isinstance(step, Proposal):
            live.append(step)
            asked.append(step)
            continue
        assert live, "the campaign waits for nothing"
        on_step(live)
        obsolete = [proposal for proposal in live if proposal.number in it.obsolete()]
        proposal = obsolete[0] if obsolete else (order.choice(live) if order else live[0])
        live.remove(proposal)
        outcome = Outcome("cancelled") if obsolete else measure(known, proposal, threshold)
        it.tell(proposal, outcome)
    raise AssertionError("no end")


def kinds(asked: list[Proposal]) -> list[str]:
    return [proposal.kind for proposal in asked]


def test_baseline_first_then_the_search_then_the_verification() -> None:
    known = Known()
    done, asked = drive(campaign(known), known, threshold=5)
    assert done.verdict == "satisfied"
    assert done.best is not None and done.best.parameters["fallback"] == LAYERS[:5]
    assert kinds(asked)[0] == "baseline"
    assert kinds(asked)[-1] == "verification"
    assert asked[-1].parameters["fallback"] == LAYERS[:5]
    assert set(kinds(asked)[1:-1]) == {"candidate"}


def test_an_absolute_demand_needs_no_baseline() -> None:
    known = Known()
    _, asked = drive(campaign(known, target=0.9), known, threshold=5)
    assert "baseline" not in kinds(asked)


def test_a_second_run_reuses_everything_and_proposes_nothing() -> None:
    known = Known()
    first, _ = drive(campaign(known), known, threshold=5)
    events: list[Event] = []
    again, asked = drive(campaign(known, events=events), known, threshold=5)
    assert (again.verdict, asked) == (first.verdict, [])
    assert again.best is not None and first.best is not None
    assert again.best.parameters == first.best.parameters
    assert {event.kind for event in events} == {"reused"}


def test_exhausted_is_neither_verified_nor_delivered() -> None:
    known = Known()
    done, asked = drive(campaign(known), known, threshold=17)
    assert done.verdict == "exhausted"
    assert "verification" not in kinds(asked)


def test_a_verification_that_fails_is_not_delivered() -> None:
    known = Known()
    it = campaign(known)
    while not isinstance(step := it.ask(), Done):
        assert isinstance(step, Proposal)
        good = measure(known, step, threshold=0)
        it.tell(
            step, Outcome("measured", {"accuracy": 0.1}) if step.kind == "verification" else good
        )
    assert step.verdict == "failed"
    assert step.best is None
    assert "accuracy 0.1" in step.message


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [("startup", 3), ("timeout", 3), ("lost", 3), ("out_of_memory", 1), ("input", 1)],
)
def test_a_failure_is_retried_as_its_class_deserves(failure: str, attempts: int) -> None:
    known, events = Known(), []
    it = campaign(known, events=events, budget={"retries": 2}, target=0.9)
    tried = 0
    while isinstance(step := it.ask(), Proposal) and not step.parameters["fallback"]:
        tried += 1
        it.tell(step, Outcome("failed", data={"failure": {"class": failure}}, error="x"))
    assert tried == attempts
    assert [event.kind for event in events].count("retry") == attempts - 1


def test_a_failed_baseline_ends_the_run_and_says_why() -> None:
    known = Known()
    it = campaign(known, budget={"retries": 0})
    step = it.ask()
    assert isinstance(step, Proposal)
    it.tell(step, Outcome("failed", data={"failure": {"class": "device"}}, error="no device"))
    done = it.ask()
    assert isinstance(done, Done)
    assert done.verdict == "failed"
    assert "baseline" in done.message and "no device" in done.message


def test_the_trial_budget_counts_measured_candidates_and_delivers_the_best_so_far() -> None:
    known = Known()
    done, asked = drive(campaign(known, budget={"trials": 3}), known, threshold=5)
    assert done.verdict == "budget"
    assert kinds(asked) == ["baseline", "candidate", "candidate", "candidate", "verification"]
    assert done.best is not None and len(done.best.parameters["fallback"]) == 8


def test_reused_measurements_are_free() -> None:
    known = Known()
    drive(campaign(known, budget={"trials": 3}), known, threshold=5)
    spent = len(known.measurements)
    events: list[Event] = []
    it = campaign(known, events=events, budget={"trials": 30})
    drive(it, known, threshold=5)
    assert [event.kind for event in events].count("reused") == spent - 1


def test_stopping_cancels_the_search_but_still_verifies_the_best() -> None:
    known = Known()
    it = campaign(known)

    def stop(live: list[Proposal]) -> None:
        if len(live[0].parameters.get("fallback", ())) == 4:
            it.stop("budget", "time is up")

    done, asked = drive(it, known, threshold=5, on_step=stop)
    assert done.verdict == "budget"
    assert done.message == "time is up"
    assert asked[-1].kind == "verification"
    assert asked[-1].parameters["fallback"] == LAYERS[:8]


@settings(deadline=None, max_examples=60)
@given(
    threshold=st.integers(0, 17),
    width=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    cut=st.integers(0, 12),
)
def test_a_snapshot_at_any_moment_continues_to_the_same_answer(
    threshold: int, width: int, seed: int, cut: int
) -> None:
    """State goes through JSON; what is in flight finishes in any order after the restore."""
    known = Known()
    order = random.Random(seed)
    it = campaign(known)
    it.width = width
    live: list[Proposal] = []
    for _ in range(cut):
        step = it.ask() if len(live) < width else Wait.WAIT
        if isinstance(step, Done):
            break
        if isinstance(step, Proposal):
            live.append(step)
        else:
            proposal = live.pop(order.randrange(len(live)))
            it.tell(proposal, measure(known, proposal, threshold))

    twin = campaign(known)
    twin.width = width
    twin.restore(json.loads(json.dumps(it.state())))
    assert sorted(twin.live()) == sorted(proposal.number for proposal in live)
    for ticket in list(twin.live().values()):
        twin.tell(ticket.proposal, measure(known, ticket.proposal, threshold))
    done, _ = drive(twin, known, threshold, order=order)

    expected, _ = drive(campaign(fresh := Known()), fresh, threshold)
    assert done.verdict == expected.verdict
    if expected.best is not None:
        assert done.best is not None
        assert done.best.parameters == expected.best.parameters


@pytest.mark.parametrize(("target", "again"), [(0.9, False), (0.5, True)])
def test_a_trial_that_ended_early_answers_only_while_it_would_end_there_again(
    target: float, again: bool
) -> None:
    known = Known()
    zero = Proposal(0, {"fallback": []})
    stopped = {"stopped": {"metric": "accuracy", "limit": 0.8, "value": 0.6}}
    known.add(identify(zero), zero, {"accuracy": 0.6}, stopped)
    _, asked = drive(campaign(known, target=target), known, threshold=5)
    measured = [proposal.parameters["fallback"] for proposal in asked]
    assert ([] in measured) == again


def test_a_restored_campaign_tells_the_whole_story_again() -> None:
    known = Known()
    it = campaign(known)
    asked: list[Proposal] = []
    while len(asked) < 4:
        proposal = it.ask()
        assert isinstance(proposal, Proposal)
        asked.append(proposal)
        it.tell(proposal, measure(known, proposal, threshold=5))
    events: list[Event] = []
    twin = campaign(known, events=events)
    twin.restore(json.loads(json.dumps(it.state())))
    told = [(event.kind, event.ticket and event.ticket.proposal.number) for event in events]
    assert told == [("reused", proposal.number) for proposal in asked]
    assert twin.identities() == it.identities()
