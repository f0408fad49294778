"""Where trials of a run may go, as nodes come, go and break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import NODE_ID, Node, Placement, parse_bundle
from searchers import Outcome
from tuner._nodes import Nodes, NoPlace
from tuner._nodes_record import NodesRecord
from tuner.experiment import Cluster, Size

MEASURED = Outcome("measured", {"score": 1.0})


def node(name: str, npu: float = 8, **labels: str) -> Node:
    return Node(name, f"10.0.0.{name}", {"CPU": 64, "NPU": npu}, {NODE_ID: name, **labels})


def npus(amount: float, **labels: str) -> Placement:
    return Placement((parse_bundle({"CPU": 1, "NPU": amount}, labels),))


def failed(failure: str, **more: str) -> Outcome:
    return Outcome("failed", data={"failure": {"class": failure, **more}})


class Told:
    """A run's nodes, what was said of them, and a clock that only moves when told."""

    def __init__(self, folder: Path, *, limit: int | None = None, **block: Any) -> None:
        self.said: list[str] = []
        self.alarms: list[str] = []
        self.now = 0.0
        self.file = folder / "nodes.json"
        self.limit, self.block = limit, block
        self.sizes = [Size(npus(amount), "candidate", {}) for amount in (1, 8)]
        self.nodes = self.again()

    def again(self) -> Nodes:
        """The nodes of the next session of the same run."""
        return Nodes(
            Cluster.model_validate(self.block),
            self.sizes,
            limit=self.limit,
            record=NodesRecord.load(self.file, "run"),
            file=self.file,
            say=lambda message, wake: (self.alarms if wake else self.said).append(message),
            clock=lambda: self.now,
        )

    def run(self, key: str, placement: Placement, where: str, outcome: Outcome) -> Placement:
        """One trial from its beginning to its end."""
        asked = self.nodes.place(key, placement)
        self.nodes.begun(key)
        self.nodes.located(key, where, "measure")
        self.nodes.ended(key, outcome)
        return asked


def selector(placement: Placement) -> str | None:
    return placement.bundles[0].labels.get(NODE_ID)


def test_the_width_follows_nodes_that_come_and_go(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a")])
    assert told.nodes.width == 8 and told.said == []
    told.nodes.renew([node("a"), node("b", 4)])
    assert told.nodes.width == 12
    assert told.said[-1].startswith("node joined: 10.0.0.b (b); room for 12 trials")
    told.nodes.renew([node("b", 4)])
    assert told.nodes.width == 4 and "node left: 10.0.0.a" in told.said[-1]
    told.nodes.renew([node("b", 4)])
    assert len(told.said) == 2


def test_the_budget_bounds_the_width(tmp_path: Path) -> None:
    told = Told(tmp_path, limit=3)
    told.nodes.renew([node("a")])
    assert told.nodes.width == 3


def test_what_no_node_can_hold_is_refused_with_words(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a")])
    with pytest.raises(NoPlace, match="no node has that much NPU; the most is 8"):
        told.nodes.place("x", npus(16))
    assert told.nodes.refusal() == [] and told.nodes.warning() is None


def test_sizes_that_fit_no_node_are_told_before_the_search(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a", 4)])
    assert "largest" in str(told.nodes.warning()) and told.nodes.refusal() == []
    told.nodes.renew([node("a", 0)])
    assert "NPU" in told.nodes.refusal()[0]


def test_one_larger_trial_may_wait_and_nothing_passes_it(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a")])
    told.nodes.place("small", npus(1))
    told.nodes.located("small", "a")
    assert told.nodes.has_room()
    told.nodes.place("large", npus(8))
    assert not told.nodes.has_room()
    assert told.nodes.waiting() == {"large": "waits for NPU 8, CPU 1, which other trials hold"}
    told.nodes.ended("small", MEASURED)
    told.nodes.located("large", "a")
    assert not told.nodes.waiting() and not told.nodes.has_room()


def test_what_does_not_begin_although_it_should_holds_the_rest_back(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a")])
    told.nodes.place("one", npus(1))
    assert told.nodes.has_room()
    told.now = 20.0  # somebody else uses the node
    assert not told.nodes.has_room() and "one" in told.nodes.waiting()
    told.nodes.begun("one")
    assert told.nodes.has_room()


def test_what_waits_for_a_node_that_left_is_given_up_after_its_time(tmp_path: Path) -> None:
    told = Told(tmp_path, wait=100)
    told.nodes.renew([node("a"), node("b", 4)])
    told.nodes.place("one", npus(8))
    told.nodes.renew([node("b", 4)])
    assert "waits for NPU 8" in told.alarms[-1] and "1 min 40 s" in told.alarms[-1]
    told.now = 99.0
    told.nodes.renew([node("b", 4)])
    assert not told.nodes.given_up() and len(told.alarms) == 1
    told.now = 101.0
    told.nodes.renew([node("b", 4)])
    assert "no node could hold it for 100 s" in told.nodes.given_up()["one"]
    told.nodes.ended("one", failed("lost"))
    assert not told.nodes.given_up()


def test_a_node_that_comes_back_in_time_costs_nothing(tmp_path: Path) -> None:
    told = Told(tmp_path, wait=100)
    told.nodes.renew([node("a"), node("b", 4)])
    told.nodes.place("one", npus(8))
    told.nodes.renew([node("b", 4)])
    told.now = 50.0
    told.nodes.renew([node("a"), node("b", 4)])
    told.now = 120.0
    told.nodes.renew([node("b", 4)])
    assert not told.nodes.given_up()


def test_device_errors_in_a_row_exclude_a_node_for_the_rest_of_the_run(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b")])
    told.run("x1", npus(1), "a", failed("device"))
    told.run("x2", npus(1), "a", MEASURED)
    told.run("x3", npus(1), "a", failed("device"))
    told.run("x4", npus(1), "b", failed("device"))
    assert not told.alarms, "never two in a row on one node"
    told.run("x5", npus(1), "a", failed("device"))
    assert "10.0.0.a (a) gets no more trials of this run: 2 device errors" in told.alarms[0]
    assert selector(told.nodes.place("x6", npus(1))) == "!in(a)"
    assert told.nodes.width == 8
    assert told.nodes.to_json()["excluded"][0]["node"] == "a"

    resumed = told.again()
    resumed.renew([node("a"), node("b")])
    assert selector(resumed.place("x7", npus(1))) == "!in(a)" and resumed.width == 8


def test_another_run_knows_nothing_of_it(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b")])
    for key in "xy":
        told.run(key, npus(1), "a", failed("device"))
    assert NodesRecord.load(told.file, "run").excluded
    assert not NodesRecord.load(told.file, "another").excluded
    told.file.write_text("{")
    assert not NodesRecord.load(told.file, "run").excluded


def test_the_only_node_that_can_hold_a_size_is_never_excluded(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b", 4)])
    for key in "xyz":
        told.run(key, npus(1), "a", failed("device"))
    assert told.nodes.to_json()["excluded"] == []
    assert (
        len(told.alarms) == 1
        and "the only one that can hold a trial with NPU 8" in (told.alarms[0])
    )
    for key in "pq":
        told.run(key, npus(1), "b", failed("device"))
    assert [one["node"] for one in told.nodes.to_json()["excluded"]] == ["b"]


def test_exclusion_can_be_switched_off(tmp_path: Path) -> None:
    told = Told(tmp_path, exclude_after=None)
    told.nodes.renew([node("a"), node("b")])
    for key in "wxyz":
        told.run(key, npus(1), "a", failed("device"))
    assert told.nodes.to_json()["excluded"] == []


@pytest.mark.parametrize("failure", ["lost", "device"])
def test_a_repeated_trial_goes_elsewhere_where_it_can(tmp_path: Path, failure: str) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b", 4)])
    told.run("x", npus(1), "a", failed(failure))
    assert selector(told.nodes.place("x", npus(1))) == "!in(a)"
    assert selector(told.nodes.place("other", npus(1))) is None
    told.run("big", npus(8), "a", failed(failure))
    assert selector(told.nodes.place("big", npus(8))) is None, "only a can hold it"


def test_a_failure_that_names_its_node_blames_that_one(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b"), node("c")])
    for key in "xy":
        told.run(key, npus(1), "a", failed("device", node="10.0.0.b"))
    assert [one["node"] for one in told.nodes.to_json()["excluded"]] == ["b"]


def test_other_failures_blame_no_node(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b")])
    for key in "xyz":
        told.run(key, npus(1), "a", failed("out_of_memory"))
    assert selector(told.nodes.place("x", npus(1))) is None and not told.alarms


def test_labels_of_the_user_are_kept_beside_ours(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b"), node("c")])
    wanted = Placement((parse_bundle({"NPU": 1}, {NODE_ID: "in(a,b)"}),))
    told.run("x", wanted, "a", failed("lost"))
    assert selector(told.nodes.place("x", wanted)) == "in(b)"


def test_trials_go_where_the_weights_are_while_there_is_room(tmp_path: Path) -> None:
    told = Told(tmp_path, local_weights="/nvme")
    told.nodes.renew([node("a", 2), node("b")])
    assert selector(told.nodes.place("x", npus(1))) is None
    told.nodes.located("x", "a", "weights")
    assert selector(told.nodes.place("y", npus(1))) is None, "it is still being copied"
    told.nodes.located("y", "b", "starting")
    told.nodes.located("x", "a", "deploy")
    assert selector(told.nodes.place("z", npus(1))) == "in(a)"
    assert selector(told.nodes.place("w", npus(1))) is None, "a is full now"


def test_weights_of_a_trial_on_several_nodes_are_where_its_instances_were(tmp_path: Path) -> None:
    told = Told(tmp_path, local_weights="/nvme")
    told.nodes.renew([node("a"), node("b"), node("c")])
    split = Placement(
        (parse_bundle({"CPU": 1}), parse_bundle({"NPU": 2}), parse_bundle({"NPU": 2}))
    )
    instances = {"prefill-1": {"node": "10.0.0.b"}, "decode-1": {"node": "10.0.0.c"}}
    told.run("x", split, "a", Outcome("measured", data={"instances": instances}))
    asked = told.nodes.place("y", split)
    labels = [bundle.labels.get(NODE_ID) for bundle in asked.bundles]
    assert labels == [None, "in(b,c)", "in(b,c)"], "a only supervised"


def test_a_trial_whose_chosen_node_left_is_placed_anew_at_once(tmp_path: Path) -> None:
    told = Told(tmp_path, local_weights="/nvme")
    told.nodes.renew([node("a"), node("b")])
    told.run("x", npus(1), "a", MEASURED)
    assert selector(told.nodes.place("y", npus(1))) == "in(a)"
    told.nodes.renew([node("b")])
    assert "has left" in told.nodes.given_up()["y"]
    told.nodes.ended("y", failed("lost"))
    assert selector(told.nodes.place("y", npus(1))) is None


def test_trials_of_an_earlier_session_are_counted(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a")])
    told.nodes.take_over("x", npus(8), npus(8))
    assert not told.nodes.has_room()
    told.nodes.ended("x", MEASURED)
    assert told.nodes.has_room()


def instance_of(parts: int, npu: float = 2) -> Placement:
    """A supervisor, and an engine over several nodes."""
    bundles = (parse_bundle({"CPU": 1}), *(parse_bundle({"NPU": npu}) for _ in range(parts)))
    return Placement(bundles, apart=(tuple(range(1, parts + 1)),))


def chosen(asked: Placement) -> list[str | None]:
    return [bundle.labels.get(NODE_ID) for bundle in asked.bundles]


def test_parts_of_an_instance_are_asked_for_on_nodes_of_their_own(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b"), node("c", 1)])
    asked = told.nodes.place("x", instance_of(2))
    assert set(chosen(asked)[1:]) == {"a", "b"}
    assert asked.apart == () and Placement.from_json(asked.to_json()) == asked
    with pytest.raises(NoPlace, match="a node of their own each"):
        told.nodes.place("y", instance_of(3))


def test_parts_wait_for_nodes_of_their_own_and_are_placed_anew_when_one_leaves(
    tmp_path: Path,
) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b")])
    told.nodes.place("x", npus(8))
    told.nodes.begun("x")
    told.nodes.located("x", "a", "measure")
    assert set(chosen(told.nodes.place("y", instance_of(2, 8)))[1:]) == {"a", "b"}
    assert not told.nodes.has_room(), "nothing overtakes what waits"
    told.nodes.renew([node("a"), node("c")])
    assert "has left" in told.nodes.given_up()["y"]
    told.nodes.ended("y", failed("lost"))
    assert set(chosen(told.nodes.place("y", instance_of(2, 8)))[1:]) == {"a", "c"}


def test_parts_wait_for_a_node_that_was_there_before(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.nodes.renew([node("a"), node("b")])
    told.nodes.renew([node("a")])
    assert set(chosen(told.nodes.place("x", instance_of(2)))[1:]) == {"a", "b"}
    assert "waits for" in told.nodes.waiting()["x"]
