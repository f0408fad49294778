"""From proposals to Ray trials and back, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import NODE_ID, Node
from searchers import Outcome, Proposal
from tests.tuner.runs import write_experiment
from trainables import LOCAL_WEIGHTS
from tuner._campaign import Campaign
from tuner._identity import Identifier
from tuner._nodes_watch import nodes_of
from tuner._outcome import Carrier
from tuner._store import RunStore
from tuner.experiment import load_experiment

NODES = [
    Node(name, f"10.0.0.{name}", {"CPU": 8, "NPU": npu}, {NODE_ID: name})
    for name, npu in (("a", 4), ("b", 4), ("c", 2))
]


class Driver:
    """What a session has between the campaign and Ray."""

    def __init__(self, folder: Path, sizes: list[int], **cluster: Any) -> None:
        file = write_experiment(
            folder,
            search={
                "type": "grid",
                "space": {"devices": {"type": "enum", "values": sizes}},
            },
            objective={"expectations": [], "maximize": "score"},
            cluster={"resources": {"CPU": 1, "NPU": "auto"}, **cluster},
            budget={"concurrent": "auto"},
        )
        experiment = load_experiment(file)
        store = RunStore(experiment.storage)
        ledger = store.ledger()
        self.said: list[str] = []
        self.campaign = Campaign(
            experiment.search.strategy(),
            objective=experiment.objective,
            budget=experiment.budget,
            known=ledger,
            identify=Identifier(experiment.trial, experiment.trial_type),
            verifies=False,
            spent=lambda: 0,
        )
        file = store.folder / "nodes.json"
        self.nodes = nodes_of(experiment, [], file, "run", lambda said, _: self.said.append(said))
        self.nodes.renew(NODES)
        self.campaign.width = self.nodes.width
        self.carrier = Carrier(experiment, store, ledger, self.campaign, self.nodes, "run")

    def ask(self) -> tuple[Proposal, Any]:
        step = self.campaign.ask()
        assert isinstance(step, Proposal)
        return step, self.carrier.config(step)

    def fail(self, proposal: Proposal, config: Any, failure: str, node: str) -> Outcome:
        """The proposal's trial ran on a node and failed there."""
        self.carrier.on_trial("begun", config)
        self.nodes.located(config["spec"]["identity"], node)
        document = json.dumps({"class": failure, "message": "broken"})
        result = {"status": "failed", "failure": document}
        outcome = self.carrier.outcome(proposal, result, False)
        self.campaign.tell(proposal, outcome)
        return outcome


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., Driver]:
    return lambda sizes, **cluster: Driver(tmp_path, sizes, **cluster)


def selectors(config: Any) -> list[str | None]:
    return [bundle["labels"].get(NODE_ID) for bundle in config["placement"]["bundles"]]


def test_each_trial_asks_for_its_own_devices(driver: Callable[..., Driver]) -> None:
    it = driver([1, 2, 4])
    amounts = [it.ask()[1]["placement"]["bundles"][0]["resources"]["NPU"] for _ in range(3)]
    assert amounts == [1, 2, 4]


def test_what_no_node_can_hold_has_failed_before_ray_hears_of_it(
    driver: Callable[..., Driver],
) -> None:
    it = driver([1, 8])
    it.ask()
    proposal, outcome = it.ask()
    assert proposal.parameters == {"devices": 8}
    assert outcome.status == "failed" and outcome.data["failure"]["class"] == "input"
    assert "the most is 4" in outcome.error
    it.campaign.tell(proposal, outcome)
    assert [ticket.proposal.number for ticket in it.campaign.live().values()] == [0]


def test_a_repeated_trial_leaves_the_node_that_failed_it(driver: Callable[..., Driver]) -> None:
    it = driver([1])
    proposal, config = it.ask()
    assert selectors(config) == [None]
    it.fail(proposal, config, "device", "a")
    again, config = it.ask()
    assert again.parameters == proposal.parameters and selectors(config) == ["!in(a)"]


def test_a_node_with_errors_in_a_row_gets_no_more_trials(driver: Callable[..., Driver]) -> None:
    it = driver([1, 2, 3])
    asked = [it.ask() for _ in range(2)]
    for proposal, config in asked:
        it.fail(proposal, config, "device", "a")
    assert "10.0.0.a (a) gets no more trials of this run: 2 device errors in a row" in it.said
    configs = [it.ask()[1] for _ in range(3)]
    assert all(selectors(config) == ["!in(a)"] for config in configs)


def test_a_worker_that_dies_is_lost_and_a_trial_given_up_says_why(
    driver: Callable[..., Driver],
) -> None:
    it = driver([4], wait=0)
    proposal, config = it.ask()
    it.nodes.renew(NODES[2:])
    assert it.carrier.given_up() == frozenset()
    it.nodes.renew(NODES[2:])
    assert it.carrier.given_up() == {config["spec"]["identity"]}
    outcome = it.carrier.outcome(proposal, None, False)
    assert outcome.data["failure"]["class"] == "lost"
    assert "no node could hold it for 0 s" in outcome.error


def test_trials_in_flight_of_an_earlier_session_keep_their_room(
    driver: Callable[..., Driver],
) -> None:
    _, config = driver([4]).ask()
    later = driver([4])
    for identity in ("first", "second"):
        assert later.nodes.has_room()
        spec = {**config["spec"], "identity": identity}
        later.carrier.on_trial("restored", {**config, "spec": spec})
    assert not later.nodes.has_room()


def test_the_place_of_local_copies_travels_with_the_trial(driver: Callable[..., Driver]) -> None:
    _, config = driver([1], local_weights={"folder": "/nvme", "copies": 2}).ask()
    local = config["spec"]["context"][LOCAL_WEIGHTS]
    assert local == {"folder": "/nvme", "copies": 2, "space": None, "timeout": 3600.0}
    json.dumps(config)
