"""Whole runs on several real nodes: sizes side by side, and nodes that come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import Nodes, nodes
from tests.tuner.runs import Run, assert_nothing_measured_twice, events, ledger, write_experiment
from tuner._gantt import read_bars

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    with nodes(cpus=0) as made:
        yield made


def experiment(folder: Path, cluster: Nodes, sizes: list[int], trials: int, seconds: float) -> Path:
    space = {
        "x": {"type": "float", "low": 0.0, "high": 1.0},
        "devices": {"type": "enum", "values": sizes},
    }
    return write_experiment(
        folder,
        trial={"stages": ["measure"], "seconds": seconds},
        search={"type": "random", "trials": trials, "space": space},
        objective={"expectations": [], "maximize": "score"},
        cluster={"address": cluster.address, "resources": {"CPU": 0.5, "NPU": "auto"}},
        budget={"concurrent": "auto", "retries": 2},
    )


def started(file: Path, folder: Path, cluster: Nodes) -> Run:
    return Run("run", file, "--json", storage=folder, environment=cluster.environment)


def test_trials_of_all_sizes_share_nodes_and_none_is_left_waiting(
    tmp_path: Path, cluster: Nodes
) -> None:
    for _ in range(2):
        cluster.add({"CPU": 8, "NPU": 4})
    it = started(experiment(tmp_path, cluster, [1, 2, 4], 10, 3.0), tmp_path, cluster)
    assert it.wait(280) == 0, it.said()
    assert it.result()["failed"] == 0
    assert_nothing_measured_twice(it.folder)
    bars = read_bars(it.folder / "events.jsonl")
    assert {bar.devices for bar in bars} == {1.0, 2.0, 4.0}
    assert len({bar.node for bar in bars}) == 2
    for node in {bar.node for bar in bars}:
        here = [bar for bar in bars if bar.node == node]
        for moment in [bar.begun for bar in here]:
            # An end is heard of up to one step of the trial after the devices are free.
            held = [bar for bar in here if bar.begun <= moment < bar.ended - 1.0]
            assert sum(bar.devices for bar in held) <= 4
    nodes_of = {item["identity"][:16]: item["environment"]["node"] for item in ledger(it.folder)}
    assert {bar.node for bar in bars} == set(nodes_of.values())


def test_a_size_that_no_node_has_fails_at_once_and_the_search_goes_on(
    tmp_path: Path, cluster: Nodes
) -> None:
    cluster.add({"CPU": 8, "NPU": 2})
    it = started(experiment(tmp_path, cluster, [1, 16], 6, 0.0), tmp_path, cluster)
    assert it.wait(200) == 0, it.said()
    assert "the largest trials of the search space fit no node" in it.said()
    failed = events(it.folder, "failed")
    assert failed and all(event["failure"]["class"] == "input" for event in failed)
    assert "NPU" in failed[0]["failure"]["message"]
    assert it.result()["failed"] == len(failed) and it.result()["trials_run"] + len(failed) == 7


def test_the_search_grows_onto_a_node_that_joins_and_survives_one_that_dies(
    tmp_path: Path, cluster: Nodes
) -> None:
    first = cluster.add({"CPU": 8, "NPU": 1})
    it = started(experiment(tmp_path, cluster, [1], 10, 8.0), tmp_path, cluster)
    it.until(lambda run: "stage measure" in run.said(), 150)
    cluster.add({"CPU": 8, "NPU": 1})
    it.until(lambda run: "room for 2 trials at once, before for 1" in run.said())
    it.until(lambda run: len(where(run)) == 2)
    cluster.kill(first)
    it.until(lambda run: f"node left: {first.address}" in run.said(), 150)
    assert it.wait(280) == 0, it.said()
    assert it.result()["failed"] == 0
    assert_nothing_measured_twice(it.folder)


def where(run: Run) -> set[str]:
    file = run.folder / "events.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    found: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
    return {event["node"] for event in found if event["event"] == "begun"}
