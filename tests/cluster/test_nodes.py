"""Nodes that differ: each has its address, its NPUs and its labels, and may be cut off or die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cluster import NodeOptions
from cluster._nodes import _own_address
from tests.nodes import Networks, Nodes, isolation, networks, nodes, remove_leftovers

REFUSED, NO_WAY = "refused", "no way"

WHERE = """
import json, os, sys, cluster, ray

@ray.remote(num_cpus=0, max_retries=0)
def look():
    return ray.util.get_node_ip_address(), os.environ.get("ASCEND_RT_VISIBLE_DEVICES")

with cluster.connect(sys.argv[1], name="test") as connection:
    wanted = [look.options(resources={"NPU": int(count)}, label_selector={"role": role})
        for role, count in (pair.split("=") for pair in sys.argv[2:])]
    print(json.dumps(ray.get([task.remote() for task in wanted], timeout=240)))
"""

REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=60)
except ConnectionRefusedError:
    print("refused")
except OSError:
    print("no way")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(cpus=1) as made:
        made.add({"CPU": 1, "NPU": 2}, {"role": "prefill"})
        made.add({"CPU": 1, "NPU": 4}, {"role": "decode"})
        yield made


@pytest.mark.ray
@pytest.mark.slow
def test_npus_are_handed_out_on_the_node_with_the_label(
    cluster: Nodes, program: Callable[..., subprocess.Popen[str]]
) -> None:
    driver = program("-c", WHERE, cluster.address, "prefill=2", "decode=3", **cluster.environment)
    (prefill, its), (decode, others) = json.loads(driver.communicate(timeout=280)[0])
    assert [prefill, decode] == [node.address for node in cluster.alive[1:]]
    assert len(its.split(",")) == 2
    assert len(others.split(",")) == 3


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_node_leaves_no_process(cluster: Nodes) -> None:
    node = cluster.add()
    family = node.family()
    assert any(process.name() == "raylet" for process in family)
    cluster.kill(node)
    assert not [process for process in family if process.is_running()]
    assert node not in cluster.alive


@pytest.fixture
def apart() -> Iterator[tuple[Networks, list[tuple[str, str]]]]:
    if (why := isolation()) is not None:
        pytest.skip(why)
    with networks() as made:
        yield made, [made.add(), made.add()]


def reach(namespace: str, address: str) -> str:
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    argv = [*inside, sys.executable, "-c", REACH, address]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_each_node_has_a_network_of_its_own(
    apart: tuple[Networks, list[tuple[str, str]]],
) -> None:
    made, ((one, inside), (other, beyond)) = apart
    assert reach(inside, other) == reach(beyond, one) == reach("", other) == REFUSED
    made.cut((inside, one), (beyond, other))
    assert reach(inside, other) == reach(beyond, one) == NO_WAY
    assert reach("", one) == reach("", other) == REFUSED
    made.heal((inside, one), (beyond, other))
    assert reach(inside, other) == REFUSED


def test_what_a_killed_test_left_is_removed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = subprocess.Popen(["sleep", "600"], env={**os.environ, "TUNER_TEST_NODES": str(gone.pid)})
    folder = Path(f"/tmp/nodes-{gone.pid}-left")
    folder.mkdir()
    remove_leftovers()
    assert left.wait(120) == -9
    assert not folder.exists()
    assert psutil.pid_exists(os.getpid())


@pytest.mark.parametrize(
    "line",
    [
        "Local node IP: 10.0.0.7",
        "2026-11-28 11:09:51\tINFO scripts.py:1043 -- \x1b[37mLocal node IP\x1b[39m: "
        "\x1b[1m10.0.0.7\x1b[22m",
    ],
)
def test_the_address_of_a_new_cluster_is_the_one_that_ray_took(tmp_path: Path, line: str) -> None:
    log = tmp_path / "start.log"
    log.write_text(f"Usage stats collection is disabled.\n{line}\n")
    assert _own_address(NodeOptions(), log) == "10.0.0.7"
