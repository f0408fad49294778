"""Candidates of a group side by side, each on a node and with the service's own port there."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from tests.nodes import nodes
from tests.tuner.autotune.repo import evaluations, flags, hold, results, speeds, write_repo
from tests.tuner.runs import Run, assert_nothing_left, assert_nothing_measured_twice, events
from tuner._gantt import read_bars

VALUES = ("0.95", "0.96", "0.97", "0.98", "0.99")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_group_is_measured_on_all_nodes_at_once(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    there = speeds(g95=90.0, g96=110.0, g97=100.0, g98=130.0, g99=120.0)
    held = {f"{value} 1": hold(repo, f"{value} 1") for value in VALUES[1:]}

    def two_at_once(run: Run) -> bool:
        """Two evaluations are under way, and the driver has heard of both trials."""
        if len(held.keys() & set(evaluations(repo))) < 2:
            return False
        return len(events(run.folder, "begun")) - len(events(run.folder, "measured")) == 2

    with nodes(cpus=0, isolated=True) as cluster:
        for _ in range(2):
            cluster.add({"CPU": 2, "NPU": 1}, environment=there)
        call = flags(
            repo,
            *("--set", f"cluster.address={cluster.address}", "--set", "cluster.resources.NPU=1"),
            *("--set", "budget.concurrent=auto"),
            values=VALUES,
        )
        storage = repo / "tune_runs"
        run = Run(*call, storage=storage, name="tune_results", environment=cluster.environment)
        run.until(two_at_once)
        for file in held.values():
            file.unlink()
        assert run.wait() == 0, run.said()
        assert_nothing_measured_twice(run.folder)
        assert_nothing_left(run.folder)
    assert {line["params"]["GPU_MEMORY_UTILIZATION"] for line in results(repo)} == set(VALUES)
    assert json.loads((repo / "best_params.json").read_text())["GPU_MEMORY_UTILIZATION"] == "0.98"
    bars = read_bars(run.folder / "events.jsonl")
    assert len(bars) == len(VALUES)
    assert any(
        one.node != other.node and one.begun < other.ended and other.begun < one.ended
        for one, other in combinations(bars, 2)
    )
