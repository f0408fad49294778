"""A campaign around a search whose first trials are instances alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from searchers import Done, Json, Outcome, Proposal, make_strategy
from trainables import Measurement
from tuner._campaign import Campaign
from tuner._identity import digest
from tuner.experiment import Budget, Objective

OBJECTIVE = {"maximize": "requests_per_s", "limits": [{"metric": "tpot_mean_s", "max": 0.05}]}


class Run:
    """A campaign, its trials, and what they measured."""

    def __init__(self, **budget: Json) -> None:
        self.measured: dict[str, Measurement] = {}
        self.asked: list[Proposal] = []
        self._budget = Budget.model_validate(budget)
        self.campaign = self.fresh()

    def fresh(self) -> Campaign:
        options = {"devices": 8, "shapes": {"one": {}}, "output_tokens": 101.0}
        return Campaign(
            make_strategy("pd_split", options, space=None, seed=0),
            objective=Objective.model_validate(OBJECTIVE),
            budget=self._budget,
            known=self,
            identify=identify,
            verifies=True,
            spent=lambda: sum(one.kind == "candidate" for one in self.measured.values()),
        )

    def find(self, identity: str) -> Measurement | None:
        return self.measured.get(identity)

    def forget(self, identity: str) -> None:
        del self.measured[identity]

    def step(self) -> Done | None:
        step = self.campaign.ask()
        if isinstance(step, Done):
            return step
        assert isinstance(step, Proposal)
        self.asked.append(step)
        found = metrics(step.kind, step.parameters)
        identity = identify(step)
        self.measured[identity] = Measurement(
            identity, "t", step.kind, dict(step.parameters), 0, found,
            {}, {}, {}, (), 1, "run", "", 1.0,
        )  # fmt: skip
        self.campaign.tell(step, Outcome("measured", found))
        return None

    def end(self) -> Done:
        while (done := self.step()) is None:
            pass
        return done


def identify(proposal: Proposal) -> str:
    return digest({"k": proposal.kind, "p": dict(proposal.parameters), "r": proposal.repeat})


def metrics(kind: str, parameters: Mapping[str, Json]) -> dict[str, float]:
    """One instance alone seems far better than any whole split."""
    if kind == "prefill":
        return {"concurrency": 4, "ttft_mean_s": 4 / 3, "requests_per_s": 900.0}
    if kind == "decode":
        return {"concurrency": 4, "tpot_mean_s": 0.04, "requests_per_s": 900.0}
    pools = [("prefill", 3.0), ("decode", 1.0), ("mixed", 0.6)]
    counts = [(parameters.get(f"{role}_instances"), rate) for role, rate in pools]
    rate = min(count * rate for count, rate in counts if count)
    return {"requests_per_s": rate, "tpot_mean_s": 0.04}


def kinds(run: Run) -> list[str]:
    return [one.kind for one in run.asked]


def test_instances_alone_are_neither_judged_nor_delivered() -> None:
    run = Run()
    done = run.end()
    assert kinds(run)[:2] == ["prefill", "decode"]
    assert kinds(run)[-1] == "verification"
    assert done.verdict == "satisfied"
    assert done.best is not None
    assert done.best.kind == "candidate"
    assert done.best.parameters == run.asked[-1].parameters
    assert done.best.parameters["prefill_instances"] == 2


def test_the_budget_counts_whole_splits_only() -> None:
    run = Run(trials=1)
    assert run.end().verdict == "budget"
    assert kinds(run) == ["prefill", "decode", "candidate", "verification"]


@pytest.mark.parametrize("stop", range(6))
def test_a_resumed_run_goes_on_where_it_was(stop: int) -> None:
    whole, cut = Run(), Run()
    done = whole.end()
    for _ in range(stop):
        assert cut.step() is None
    state: dict[str, Any] = json.loads(json.dumps(cut.campaign.state()))
    cut.campaign = cut.fresh()
    cut.campaign.restore(state)
    assert cut.end() == done
    assert cut.asked == whole.asked


def test_a_run_that_begins_anew_repeats_nothing() -> None:
    run = Run()
    done = run.end()
    run.asked.clear()
    run.campaign = run.fresh()
    assert run.end().best == done.best
    assert not run.asked
