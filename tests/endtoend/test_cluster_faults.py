"""A node, an engine, the network, the driver or the storage fails in the middle of a
prefill/decode trial on several nodes. The trial is told as failed, with where and why; it is
repeated; the search gets its answer; nothing is measured twice and nothing is left."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.endtoend.cluster import Search, one_split, write_search
from tests.nodes import Node, Nodes, nodes
from tests.tuner.runs import (
    assert_nothing_left,
    assert_nothing_measured_twice,
    ledger,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SILENCE_S = 15
"""``trial.timeouts.answer`` where a test waits for it; 60 s by default."""
Start = Callable[..., Search]


@contextmanager
def mounted(*words: str | Path) -> Iterator[None]:
    """A mount for the time of the context; ``words`` as mount(8) takes them."""
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"only root can mount: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(words[-1])], check=True)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which nodes see vanish and come back as the driver does."""
    folder = tmp_path / "storage"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=64m", "tmpfs", folder):
        subprocess.run(["mount", "--make-shared", str(folder)], check=True)
        yield folder


@pytest.fixture
def cluster(storage: Path) -> Iterator[Nodes]:
    """A node for prefill and supervision, two for decode; the head carries no trials."""
    with nodes(cpus=0, isolated=True) as made:
        made.add({"CPU": 2, "NPU": 1}, {"role": "prefill"})
        made.add({"CPU": 2, "NPU": 1}, {"role": "decode"})
        made.add({"CPU": 2, "NPU": 1}, {"role": "decode"})
        yield made


@pytest.fixture
def gates(tmp_path: Path) -> list[Path]:
    """Of both candidates of a search, whose benchmarks get to their ends once they are opened."""
    made = [tmp_path / "gate-1", tmp_path / "gate-2"]
    for gate in made:
        gate.touch()
    return made


@pytest.fixture
def start(storage: Path, tmp_path: Path, cluster: Nodes, gates: list[Path]) -> Iterator[Start]:
    """Starts a search and returns once its first split is under load, which it stays."""
    with ExitStack() as stack:

        def begin(**changes: Any) -> Search:
            split = one_split(gates)
            file = write_search(
                tmp_path, cluster, **split, storage=str(storage / "results"), **changes
            )
            started = Search("run", file, cluster, "--json")
            stack.callback(started.process.kill)
            started.until(Search.in_benchmark, 600)
            return started

        yield begin


def under_second_load(search: Search, gates: list[Path]) -> list[dict[str, Any]]:
    """Waits until one candidate is measured and the other under load; the ledger."""
    gates[0].unlink()
    search.until(lambda run: len(run.measured()) == 1 and run.in_benchmark(), 600)
    return ledger(search.folder)


def assert_satisfied_without_remains(search: Search, gates: list[Path]) -> None:
    for gate in gates:
        gate.unlink(missing_ok=True)
    search.conclude()
    assert_nothing_measured_twice(search.folder)
    assert {item["metrics"]["success_rate"] for item in ledger(search.folder)} == {1.0}
    assert_nothing_left(search.folder)
    assert not list(search.folder.glob("trials/*/transfer"))


@contextmanager
def apart(cluster: Nodes, node: Node, *others: Node) -> Iterator[None]:
    """Nothing gets from a node to the others, nor back."""
    with ExitStack() as stack:
        for other in others:
            cluster.cut(other, node)
            stack.callback(cluster.heal, other, node)
        yield


@contextmanager
def without_power(cluster: Nodes, node: Node) -> Iterator[None]:
    """All of a node is gone, and nobody is told: not even connections are closed."""
    with apart(cluster, node, *(other for other in cluster.alive if other is not node)):
        cluster.kill(node)
        yield


def test_an_engine_dies(start: Start, tmp_path: Path, gates: list[Path]) -> None:
    words = tmp_path / "last words"
    search = start(trial__roles__decode__env_vars={"STUB_DIE_FILE": str(words)})
    engine = search.engines()["decode-1"]
    words.write_text("EngineDeadError: gone")
    engine.wait(120)
    words.unlink()
    failure = search.first_failure()
    print(failure)
    assert failure["class"] == "tool"
    assert failure["instance"] == "decode-1"
    assert failure["node"] in failure["message"]
    assert failure["stage"].startswith("benchmark")
    assert "EngineDeadError: gone" in failure["excerpt"]
    assert_satisfied_without_remains(search, gates)


def test_an_engine_is_killed_as_by_the_memory_killer(start: Start, gates: list[Path]) -> None:
    search = start(budget__retries={"out_of_memory": 1})
    search.engines()["prefill-1"].kill()
    failure = search.first_failure()
    print(failure)
    assert failure["class"] == "out_of_memory"
    assert failure["instance"] == "prefill-1"
    assert_satisfied_without_remains(search, gates)


def test_a_node_with_an_instance_loses_power(
    start: Start, cluster: Nodes, gates: list[Path]
) -> None:
    search = start(trial__timeouts={"answer": SILENCE_S})
    node = search.node_of("decode-1", cluster)
    with without_power(cluster, node):
        failure = search.first_failure()
        print(failure)
        assert failure["class"] == "lost"
        assert failure["instance"] == "decode-1"
        assert failure["node"] == node.address
        assert failure["message"].startswith(f"decode-1 on {node.address}")
        assert_satisfied_without_remains(search, gates)


def test_a_node_with_the_trial_itself_loses_power(
    start: Start, cluster: Nodes, gates: list[Path]
) -> None:
    search = start(
        cluster__labels={"role": "decode"}, trial__roles__prefill={"labels": {"role": "prefill"}}
    )
    node = search.node_of("decode-1", cluster)
    begun = time.monotonic()
    with without_power(cluster, node):
        search.until(lambda run: f"node left: {node.address}" in run.said(), 600)
        print("left after", time.monotonic() - begun)
        assert_satisfied_without_remains(search, gates)


def test_the_driver_is_killed_and_resumed(start: Start, cluster: Nodes, gates: list[Path]) -> None:
    first = start()
    before = under_second_load(first, gates)
    first.process.kill()
    first.process.wait()
    begun = time.monotonic()
    assert_nothing_left(first.folder)
    print("gone after", time.monotonic() - begun)
    gates[1].unlink()
    second = Search("resume", first.folder, cluster, "--json")
    result = second.conclude()
    assert ledger(first.folder)[:1] == before
    assert (result["trials_run"], result["reused"]) == (2, 1)
    assert_nothing_measured_twice(first.folder)
    assert_nothing_left(first.folder)


def test_the_network_between_two_instances_is_cut(
    start: Start, cluster: Nodes, gates: list[Path]
) -> None:
    search = start(trial__timeouts={"answer": SILENCE_S})
    one, other = search.node_of("prefill-1", cluster), search.node_of("decode-1", cluster)
    with apart(cluster, other, one):
        failure = search.first_failure()
    print(failure)
    assert failure["class"] in ("network", "lost", "timeout")
    assert failure["instance"] == "decode-1"
    assert failure["node"] == other.address
    assert_satisfied_without_remains(search, gates)


def test_the_network_between_head_and_a_node_is_cut(
    start: Start, cluster: Nodes, gates: list[Path]
) -> None:
    search = start()
    node = search.node_of("decode-1", cluster)
    with apart(cluster, node, cluster.alive[0]):
        failure = search.first_failure()
    print(failure)
    assert failure["class"] == "lost"
    assert failure["instance"] == "decode-1"
    assert failure["node"] == node.address
    assert_satisfied_without_remains(search, gates)
    assert node.process.wait(300) is not None  # what the cluster has given up ends itself


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """As when a file server is gone: what is open goes on, all else meets an empty folder."""
    with mounted("-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", folder):
        yield


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    with mounted("--bind", folder, folder):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield


def whole(file: TextIO) -> str:
    """All of an open file, wherever its folder is."""
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("fault", [read_only, away])
def test_the_storage_is_gone_for_a_while(
    start: Start, storage: Path, gates: list[Path], fault: Callable[[Path], Any]
) -> None:
    search = start()
    before = under_second_load(search, gates)
    with search.log.open() as log, fault(storage):
        gates[1].unlink()
        search.until(lambda _: " cannot be written to: " in whole(log), 600)
        time.sleep(8)  # in which the trial ends
    assert_satisfied_without_remains(search, gates)
    assert ledger(search.folder)[:1] == before
    assert search.said().count(" cannot be written to: ") == 1
    assert search.said().count(" is back after ") == 1
    assert search.result()["failed"] == 0
