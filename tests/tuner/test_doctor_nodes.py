"""The doctor of a cluster: what nodes lack, and what differs between them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from cluster import Chip
from tests.nodes import Nodes, nodes
from tests.tuner.runs import write_experiment
from tuner._doctor_node import NodeExaminer, chip_problems, describe_chips
from tuner._doctor_nodes import ClusterReport, NodeReport, print_cluster
from tuner.experiment import load_experiment

CONFIGS = Path(__file__).parents[2] / "configs"


def chip(card: int, health: str = "OK", used: int = 2800, name: str = "910B4") -> Chip:
    return Chip(card, 0, card, name, health, used, 32768)


def said(found: list[Chip], npus: float) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    notes: list[str] = []
    chip_problems(found, npus, problems, notes)
    return problems, notes


def test_sick_chips_and_more_npus_than_there_are_are_problems() -> None:
    assert said([chip(0), chip(1)], 2) == ([], [])
    (sick,), _ = said([chip(0), chip(1, "Critical")], 2)
    assert "NPU 1 chip 0 is in health Critical" in sick
    (few,), _ = said([chip(0)], 8)
    assert few == "Ray gives out 8 NPUs here, but npu-smi shows 1"


def test_warnings_and_memory_in_use_are_notes() -> None:
    problems, notes = said([chip(0, "Warning"), chip(1, used=30000)], 2)
    assert problems == []
    assert ["Warning" in notes[0], "30000 of 32768 MiB" in notes[1]] == [True, True]
    assert said([], 0) == ([], [])
    assert said([], 2)[1] == ["Ray gives out 2 NPUs here, but npu-smi shows none"]


def test_chips_of_each_sort_are_counted() -> None:
    assert describe_chips([chip(0), chip(1), chip(2, name="310P3")]) == (
        "2 x 910B4, 32 GiB; 1 x 310P3, 32 GiB"
    )
    assert describe_chips([]) == "none"


def test_a_node_knows_the_tools_of_a_trial_and_what_it_lacks(tmp_path: Path) -> None:
    """The experiment's engine is another interpreter, whose packages are looked up there."""
    document = yaml.safe_load((CONFIGS / "serving.yaml").read_text())
    folder = tmp_path / "tool"
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    (folder / "bin" / "python").symlink_to(sys.executable)
    packages = folder / "lib" / "python3.11" / "site-packages"
    for name, version in (("vllm", "0.17.1"), ("torch_npu", "2.9.0")):
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    document["trial"]["engine"]["command"] = [str(folder / "bin" / "python")]
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    trial = load_experiment(file, []).trial
    needs = {"type": "serving", "settings": trial.settings(), "devices_linked": False}
    found = NodeExaminer().examine(0, needs)
    assert found["versions"]["engine vllm"] == "0.17.1"
    assert found["problems"] == []
    (folder / "bin" / "python").unlink()
    (problem,) = NodeExaminer().examine(0, needs)["problems"]
    assert problem.startswith("trial.engine.command: there is no program")
    bare = NodeExaminer().examine(0, None)
    assert (bare["problems"], "engine vllm" in bare["versions"]) == ([], False)


def test_a_question_on_shared_storage_is_answered(tmp_path: Path) -> None:
    (tmp_path / "question").write_text("token")
    node = NodeExaminer()
    assert node.answer(str(tmp_path / "question"), str(tmp_path / "answer")) is None
    assert (tmp_path / "answer").read_text() == "token"
    error = node.answer(str(tmp_path / "question"), str(tmp_path / "question" / "answer"))
    assert error is not None
    assert "Not a directory" in error


def test_differences_are_marked_and_fail_nothing_by_themselves() -> None:
    same = {"ray": "2.60.0"}
    found = ClusterReport(
        "10.0.0.1:6379",
        [
            NodeReport("10.0.0.1", "a", {**same, "driver": "24.1"}, {"NPUs": "none"}),
            NodeReport("10.0.0.2", "b", {**same, "driver": "24.1"}, {"NPUs": "none"}),
            NodeReport("10.0.0.3", "c", {**same, "driver": "25.2"}, {"NPUs": "8 x 910B4"}),
        ],
        [],
    )
    assert found.ok
    assert found.differences == {"driver": {"24.1": ["10.0.0.1", "10.0.0.2"], "25.2": ["10.0.0.3"]}}
    console = Console(width=120, record=True, file=io.StringIO())
    print_cluster(found, console)
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines if "24.1" in line or "25.2" in line] == [
        "differs"
    ] * 2
    assert any(line.split()[-1] == "all" for line in lines if "2.60.0" in line)
    found.nodes[0].problems.append("no disk")
    assert not found.ok
    assert not ClusterReport("x", [], ["no node can hold a trial"]).ok


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(cpus=1) as made:
        made.add({"CPU": 1, "NPU": 2}, {"role": "prefill"})
        yield made


def doctor(cluster: Nodes, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuner", "doctor", "--cluster", cluster.address, *words],
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_every_node_is_asked_and_storage_is_proven_shared(cluster: Nodes, tmp_path: Path) -> None:
    file = write_experiment(tmp_path, cluster={"address": cluster.address})
    done = doctor(cluster, "--experiment", str(file), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    addresses = [node["address"] for node in found["nodes"]]
    assert addresses == sorted(node.address for node in cluster.alive)
    assert all(node["facts"]["storage"] == "shared" for node in found["nodes"])
    assert all("clock" in node["facts"] for node in found["nodes"])
    assert found["differences"] == {}
    assert not list(tmp_path.glob(".doctor-*"))


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_trial_needs_is_only_asked_of_nodes_it_may_come_to(
    cluster: Nodes, tmp_path: Path
) -> None:
    labels = {"address": cluster.address, "labels": {"role": "prefill"}}
    done = doctor(cluster, "--experiment", str(write_experiment(tmp_path, cluster=labels)))
    assert done.returncode == 0, done.stdout
    nowhere = {"address": cluster.address, "labels": {"role": "decode"}}
    done = doctor(cluster, "--experiment", str(write_experiment(tmp_path, cluster=nowhere)))
    assert done.returncode == 1
    assert "no node can hold a trial" in done.stdout
    assert "role: (not set), prefill" in done.stdout
