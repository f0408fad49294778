"""Whole runs on several real nodes: sizes side by side, and nodes that come and go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.nodes import Node, Nodes, nodes
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import Run, assert_nothing_measured_twice, events, ledger, write_experiment
from tuner._gantt import read_bars

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

STUBS = Path(__file__).parents[1] / "stubs"


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
    assert it.wait(900) == 0, it.said()
    assert it.result()["failed"] == 0
    assert_nothing_measured_twice(it.folder)
    bars = read_bars(it.folder / "events.jsonl")
    assert {bar.devices for bar in bars} == {1.0, 2.0, 4.0}
    assert len({bar.node for bar in bars}) == 2
    found = [held(item) for item in ledger(it.folder)]
    assert {bar.node for bar in bars} == {one.node for one in found}
    for one in found:
        beside = [other for other in found if other.node == one.node and one.begun in other]
        assert sum(other.devices for other in beside) <= 4


class Held(NamedTuple):
    """Devices of a node, and a time in which a trial surely had them."""

    node: str
    devices: int
    begun: float
    ended: float

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, float) and self.begun <= moment < self.ended


def held(item: dict[str, Any]) -> Held:
    """By the trial's own clock, which tells its start in whole seconds."""
    started = datetime.fromisoformat(item["started"]).timestamp()
    node, devices = item["environment"]["node"], item["parameters"]["devices"]
    return Held(node, devices, started + 1.0, started + item["seconds"])


def test_a_size_that_no_node_has_fails_at_once_and_the_search_goes_on(
    tmp_path: Path, cluster: Nodes
) -> None:
    cluster.add({"CPU": 8, "NPU": 2})
    it = started(experiment(tmp_path, cluster, [1, 16], 6, 0.0), tmp_path, cluster)
    assert it.wait(900) == 0, it.said()
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
    it.until(lambda run: "stage measure" in run.said(), 600)
    cluster.add({"CPU": 8, "NPU": 1})
    it.until(lambda run: "room for 2 trials at once, before for 1" in run.said(), 600)
    it.until(lambda run: len(where(run)) == 2, 600)
    cluster.kill(first)
    it.until(lambda run: f"node left: {first.address}" in run.said(), 600)
    assert it.wait(900) == 0, it.said()
    assert it.result()["failed"] == 0
    assert_nothing_measured_twice(it.folder)


def where(run: Run) -> set[str]:
    return {event["node"] for event in everything_told(run) if event["event"] == "begun"}


def everything_told(run: Run) -> list[dict[str, Any]]:
    file = run.folder / "events.jsonl"
    whole, _, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")
    return [json.loads(line) for line in whole.splitlines()]


BREAKS = "TEST_DEVICE_BREAKS"
"""In the environment of a node: the file that grows by a letter with each error of its device."""
SERVER = f"""
import http.server, os, sys
if file := os.environ.get("{BREAKS}"):
    with open(file, "a") as stream:
        stream.write("x")
    sys.exit("RuntimeError: NPU function error: aclrtSetDevice, error code is 507899")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
EVALUATE = """
import sys, time
from pathlib import Path
errors, turns = map(Path, sys.argv[1:])
with turns.open("a") as stream:
    stream.write("x")
wanted = 1 if turns.stat().st_size < 3 else 2
deadline = time.monotonic() + 60
while errors.stat().st_size < wanted and time.monotonic() < deadline:
    time.sleep(0.05)
print("score=$X")
"""
"""On the whole node, the first two wait for an error on the other node, all later ones for another:
however slow that node is, it gets its two trials."""


def test_a_node_whose_device_breaks_is_left_out_after_two_errors_in_a_row(
    tmp_path: Path, cluster: Nodes
) -> None:
    whole = cluster.add({"CPU": 4, "NPU": 1})
    errors, turns = tmp_path / "errors", tmp_path / "turns"
    errors.touch()
    broken = cluster.add({"CPU": 4, "NPU": 1}, environment={BREAKS: str(errors)})
    file = write_experiment(
        tmp_path,
        search={"type": "grid", "space": {"X": {"type": "enum", "values": [1, 2, 3, 4, 5]}}},
        objective={"expectations": [], "maximize": "score"},
        cluster={"address": cluster.address, "resources": {"CPU": 0.5, "NPU": 1}},
        budget={"concurrent": "auto", "retries": 1},
    )
    document = yaml.safe_load(file.read_text())
    document["trial"] = {
        "type": "script",
        "start": {"command": [sys.executable, "-c", SERVER]},
        "evaluate": {
            "command": [sys.executable, "-c", EVALUATE, str(errors), str(turns)],
            "runs": 1,
        },
        "metrics": {"score": {"pattern": "score=([0-9]+)"}},
    }
    file.write_text(yaml.safe_dump(document))
    it = started(file, tmp_path, cluster)
    assert it.wait(900) == 0, it.said()
    failures = [event["failure"] for event in events(it.folder, "retry")]
    assert [failure["class"] for failure in failures] == ["device", "device"]
    (said,) = [event["message"] for event in events(it.folder, "nodes")]
    assert said.startswith(f"{broken.address} (")
    assert said.endswith(") gets no more trials of this run: 2 device errors in a row")
    assert said in it.said()
    told = everything_told(it)
    cut = next(number for number, event in enumerate(told) if event.get("message") == said)
    assert began(told[:cut]).count(broken.address) == 2
    assert set(began(told[cut:])) == {whole.address}
    result = it.result()
    assert (result["best"], result["failed"]) == ({"X": 5}, 0)
    status = json.loads((it.folder / "status.json").read_text())
    assert [one["address"] for one in status["nodes"]["excluded"]] == [broken.address]
    assert_nothing_measured_twice(it.folder)


def began(told: list[dict[str, Any]]) -> list[str]:
    """Addresses of the nodes where trials began, in their order."""
    return [event["address"] for event in told if event["event"] == "begun"]


@contextmanager
def own_disks(nodes: list[Node], folder: Path) -> Iterator[Callable[[Node], list[Path]]]:
    """A disk of its own for each node, mounted at folder; yields what tells copies on it."""
    folder.mkdir()
    for node in nodes:
        inside = ["nsenter", "--mount", "--target", str(node.process.pid)]
        done = subprocess.run(
            [*inside, "mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            pytest.skip(f"only root can mount on nodes: {done.stderr}")

    def copies(node: Node) -> list[Path]:
        disk = Path(f"/proc/{node.raylet().pid}/root{folder}")
        return [file.parent for file in disk.glob("npu-tuner-weights/*/copy.json")]

    yield copies


def test_a_model_is_copied_once_to_a_node_which_then_gets_the_trials(tmp_path: Path) -> None:
    with nodes(cpus=0, isolated=True) as cluster:
        both = [cluster.add({"CPU": 4, "NPU": 2}) for _ in range(2)]
        with own_disks(both, tmp_path / "nvme") as copies:
            it = started(served(tmp_path, cluster), tmp_path, cluster)
            it.until(lambda run: len(began(everything_told(run))) == 3, 600)
            first, second, third = began(everything_told(it))
            assert first == second == third
            (holder,) = [node for node in both if node.address == first]
            (other,) = [node for node in both if node is not holder]
            assert len(copies(holder)) == 1 and not copies(other)
            cluster.kill(holder)
            (tmp_path / "engine" / "go").touch()
            it.until(lambda run: copies(other), 600)
            assert it.wait(900) == 0, it.said()
            assert len(copies(other)) == 1
    assert set(began(everything_told(it))[3:]) == {other.address}
    logs = [log.read_text() for log in it.folder.glob("trials/*/weights.log")]
    assert sum("copying stub.json" in log for log in logs) == 2
    result = it.result()
    assert (result["verdict"], result["failed"]) == ("satisfied", 0)
    assert_nothing_measured_twice(it.folder)


THIRD_WAITS = """
import sys, time
from pathlib import Path
import openai_engine
starts, go = (Path(__file__).with_name(name) for name in ("starts", "go"))
with starts.open("a") as stream:
    stream.write("x")
while starts.stat().st_size == 3 and not go.exists():
    time.sleep(0.05)
openai_engine.main()
"""


def served(folder: Path, cluster: Nodes) -> Path:
    """An experiment with stub engines one after the other, from weights on the node's disk. The
    third comes up once there is the file ``engine/go``."""
    (folder / "engine").mkdir()
    (folder / "engine" / "third_waits.py").write_text(THIRD_WAITS)
    model = folder / "tiny"
    write_tiny_qwen3(model)
    (model / "stub.json").write_text(json.dumps({"ttft": 0.01, "tpot": 0.002}))
    file = write_experiment(
        folder,
        search={
            "type": "grid",
            "space": {"max-num-seqs": {"type": "enum", "values": [8, 16, 32]}},
        },
        objective={"expectations": [], "maximize": "requests_per_s"},
        cluster={
            "address": cluster.address,
            "resources": {"CPU": 0.5, "NPU": 1},
            "local_weights": str(folder / "nvme"),
        },
        budget={"concurrent": 1, "retries": 2},
    )
    document = yaml.safe_load(file.read_text())
    document["trial"] = {
        "type": "serving",
        "model": str(model),
        "engine": {
            "type": "vllm",
            "command": [sys.executable],
            "entrypoint": "third_waits",
            "startup_timeout": 600,
            "env_vars": {"PYTHONPATH": f"{folder / 'engine'}:{STUBS}"},
        },
        "benchmark": {
            "type": "builtin",
            "requests": 40,
            "warm_ups": 0,
            "window_s": 0.2,
            "workload": {"type": "random", "input_tokens": 8, "output_tokens": 20},
        },
        "load": {"type": "fixed", "concurrency": 2},
    }
    file.write_text(yaml.safe_dump(document))
    return file
