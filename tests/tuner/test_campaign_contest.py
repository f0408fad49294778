"""Noisy numbers: the baseline contends, a lucky winner is found out, the next best is delivered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from searchers import Done, Outcome, Proposal, Space, make_strategy
from trainables import Measurement, VerificationPolicy
from tuner._campaign import Campaign
from tuner._identity import digest
from tuner.experiment import Budget, Objective

SPEED = "output_tokens_per_s"
SPACE = Space.model_validate({"x": {"type": "int", "low": 1, "high": 5}})
NOISY = VerificationPolicy(most=3)
World = Callable[[Proposal], Mapping[str, float] | None]


class Known:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.measurements: dict[str, Measurement] = {}

    def find(self, identity: str) -> Measurement | None:
        return self.measurements.get(identity)

    def forget(self, identity: str) -> None:
        del self.measurements[identity]

    def add(self, proposal: Proposal, metrics: Mapping[str, float], **data: Any) -> None:
        self.measurements[identify(proposal)] = Measurement(
            identify(proposal), "t", proposal.kind, dict(proposal.parameters), proposal.repeat,
            metrics, data, {}, {}, (), 1, "run", "", 1.0,
        )  # fmt: skip


def identify(proposal: Proposal) -> str:
    return digest({"k": proposal.kind, "p": dict(proposal.parameters), "r": proposal.repeat})


def campaign(known: Known | None = None, policy: VerificationPolicy = NOISY) -> Campaign:
    return Campaign(
        make_strategy("grid", {}, space=SPACE, seed=0),
        objective=Objective.model_validate(
            {"maximize": SPEED, "limits": [{"metric": "ttft_mean_s", "max": 1}]}
        ),
        budget=Budget.model_validate({}),
        known=known or Known(),
        identify=identify,
        verifies=True,
        spent=lambda: 0,
        policy=policy,
        baseline={},
    )


def carry_out(
    run: Campaign, world: World, policy: VerificationPolicy = NOISY
) -> tuple[Done, list[Proposal]]:
    """To the end, one at a time, restored from JSON after every step."""
    asked: list[Proposal] = []
    while True:
        step = run.ask()
        if isinstance(step, Done):
            return step, asked
        assert isinstance(step, Proposal)
        asked.append(step)
        metrics = world(step)
        twin = campaign(policy=policy)
        twin.restore(json.loads(json.dumps(run.state())))
        run = twin
        failed = Outcome("failed", data={"failure": {"class": "input"}}, error="does not start")
        run.tell(step, failed if metrics is None else Outcome("measured", metrics))


def speed(value: float, ttft: float = 0.5) -> dict[str, float]:
    return {SPEED: value, "ttft_mean_s": ttft}


def kinds(asked: list[Proposal]) -> list[str]:
    return [proposal.kind for proposal in asked]


def test_the_baseline_is_measured_first_and_the_best_of_all_is_verified() -> None:
    done, asked = carry_out(
        campaign(), lambda p: speed(100 if p.kind == "baseline" else 100 + 10 * p.parameters["x"])
    )
    assert kinds(asked) == ["baseline", *["candidate"] * 5, "verification"]
    assert done.verdict == "satisfied"
    assert done.best is not None
    assert done.best.parameters == {"x": 5}


def test_a_baseline_that_nothing_beats_is_the_answer_and_needs_no_verification() -> None:
    done, asked = carry_out(
        campaign(), lambda p: speed(100 if p.kind == "baseline" else p.parameters["x"])
    )
    assert kinds(asked) == ["baseline", *["candidate"] * 5]
    assert done.verdict == "satisfied"
    assert done.best is not None
    assert (done.best.kind, done.best.parameters) == ("baseline", {})
    assert "nothing measured beats the baseline" in done.message


def test_a_lucky_winner_gives_way_to_the_next_best() -> None:
    def world(proposal: Proposal) -> dict[str, float]:
        x = proposal.parameters.get("x", 0)
        lucky = proposal.kind == "verification" and x == 5
        return speed(10 + x, 2.0 if lucky else 0.5)

    done, asked = carry_out(campaign(), world)
    assert [p.parameters["x"] for p in asked if p.kind == "verification"] == [5, 4]
    assert done.best is not None
    assert done.best.parameters == {"x": 4}
    assert "fails: ttft_mean_s 2 (demand <= 1)" in done.message


def test_a_winner_that_measured_again_is_no_better_than_the_baseline_gives_way_to_it() -> None:
    def world(proposal: Proposal) -> dict[str, float]:
        if proposal.kind == "candidate" and proposal.parameters["x"] == 3:
            return speed(120)
        return speed(100 if proposal.kind in ("baseline", "verification") else 50)

    done, asked = carry_out(campaign(), world)
    assert kinds(asked)[-1] == "verification"
    assert done.best is not None
    assert done.best.kind == "baseline"
    assert done.verdict == "satisfied"


def test_three_lucky_winners_are_enough() -> None:
    def world(proposal: Proposal) -> dict[str, float]:
        slow = proposal.kind in ("baseline", "verification")
        return speed(10 + proposal.parameters.get("x", 0), 2.0 if slow else 0.5)

    done, asked = carry_out(campaign(), world)
    assert kinds(asked).count("verification") == 3
    assert (done.verdict, done.best) == ("failed", None)


def test_a_baseline_that_cannot_be_measured_costs_nothing_else() -> None:
    done, _ = carry_out(
        campaign(), lambda p: None if p.kind == "baseline" else speed(p.parameters["x"])
    )
    assert done.verdict == "satisfied"
    assert done.best is not None
    assert done.best.parameters == {"x": 5}


def test_a_trial_that_was_given_up_never_wins() -> None:
    run = campaign()
    step = run.ask()
    while isinstance(step, Proposal):
        given_up = step.kind == "candidate" and step.parameters["x"] == 5
        data = {"stopped": {"by": "incumbent", "bound": 1.0}} if given_up else {}
        run.tell(step, Outcome("measured", speed(step.parameters.get("x", 0)), data))
        step = run.ask()
    assert isinstance(step, Done)
    assert step.best is not None
    assert step.best.parameters == {"x": 4}


def test_what_was_given_up_against_a_better_incumbent_is_measured_again() -> None:
    known = Known()
    given_up = Proposal(0, {"x": 1})
    known.add(given_up, speed(90), stopped={"by": "incumbent", "bound": 99.0})
    run = campaign(known)
    step = run.ask()
    assert isinstance(step, Proposal)
    run.tell(step, Outcome("measured", speed(50)))
    following = run.ask()
    assert isinstance(following, Proposal)
    assert following.parameters == {"x": 1}


def test_what_was_given_up_is_reused_while_the_incumbent_is_better() -> None:
    known = Known()
    known.add(Proposal(0, {"x": 1}), speed(90), stopped={"by": "incumbent", "bound": 99.0})
    run = campaign(known)
    step = run.ask()
    assert isinstance(step, Proposal)
    run.tell(step, Outcome("measured", speed(150)))
    following = run.ask()
    assert isinstance(following, Proposal)
    assert following.parameters == {"x": 2}


def test_the_search_waits_for_the_baseline_before_it_answers() -> None:
    run = campaign()
    run.width = 10
    asked = []
    for _ in range(6):
        step = run.ask()
        assert isinstance(step, Proposal)
        asked.append(step)
    for proposal in asked[1:]:
        run.tell(proposal, Outcome("measured", speed(proposal.parameters["x"])))
    assert not isinstance(run.ask(), Done | Proposal)
    run.tell(asked[0], Outcome("measured", speed(100)))
    done = run.ask()
    assert isinstance(done, Done)
    assert done.best is not None
    assert done.best == replace(done.best, kind="baseline")


def test_of_several_finalists_the_best_when_measured_again_is_delivered() -> None:
    policy = VerificationPolicy(most=3, finalists=3)

    def world(proposal: Proposal) -> dict[str, float]:
        x = proposal.parameters.get("x", 0)
        return speed({3: 30.0, 4: 40.0, 5: 20.0}[x] if proposal.kind == "verification" else 10 + x)

    done, asked = carry_out(campaign(policy=policy), world, policy)
    assert [p.parameters["x"] for p in asked if p.kind == "verification"] == [5, 4, 3]
    assert done.best is not None
    assert done.best.parameters == {"x": 4}


def test_what_breaks_the_slo_may_win_once_its_load_is_refined() -> None:
    policy = VerificationPolicy(most=3, finalists=2, refines=True)

    def world(proposal: Proposal) -> dict[str, float]:
        x = proposal.parameters.get("x", 0)
        return speed(10 + x, 0.5 if proposal.kind == "verification" else 3.0)

    done, asked = carry_out(campaign(policy=policy), world, policy)
    assert [p.parameters["x"] for p in asked if p.kind == "verification"] == [5, 4]
    assert done.verdict == "satisfied"
    assert done.best is not None
    assert done.best.parameters == {"x": 5}


def test_where_no_refinement_helps_the_search_is_exhausted() -> None:
    policy = VerificationPolicy(most=3, refines=True)
    done, asked = carry_out(campaign(policy=policy), lambda p: speed(10, 3.0), policy)
    assert kinds(asked).count("verification") == 3
    assert (done.verdict, done.best) == ("exhausted", None)
