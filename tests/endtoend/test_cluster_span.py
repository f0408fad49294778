"""One engine over two nodes, by the command line: vLLM's parts find each other on nodes of their
own, share out its ranks, and answer as one instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.cluster import Search, write_search
from tests.endtoend.test_cluster import TOOL, VLLM, assert_left_in_order
from tests.nodes import Nodes, nodes
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import events, ledger


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    """Two nodes, of which the first has one device more, and a head that has none."""
    with nodes(cpus=1) as made:
        made.add({"CPU": 1, "NPU": 2})
        made.add({"CPU": 1, "NPU": 1})
        yield made


def span_search(
    folder: Path, cluster: Nodes, shapes: dict[str, Any], parameters: dict[str, Any], **more: Any
) -> Path:
    space = {name: {"type": "enum", "values": [value]} for name, value in parameters.items()}
    return write_search(
        folder,
        cluster,
        search={"type": "grid", "space": space},
        trial__shapes=shapes,
        trial__roles={},
        cluster__labels={},
        **more,
    )


def assert_spread(item: dict[str, Any], instance: str, cluster: Nodes) -> None:
    """Both parts of an instance are there, on both nodes."""
    told = item["data"]["instances"]
    parts = [told[instance], told[f"{instance} part 2"]]
    assert {part["node"] for part in parts} == {node.address for node in cluster.alive[1:]}
    assert [part["devices"] for part in parts] == [1, 1]


@pytest.mark.ray
def test_parts_of_an_instance_never_share_a_node(tmp_path: Path, cluster: Nodes) -> None:
    """Although one node has room for both."""
    args = {"data-parallel-size": 2}
    shapes = {"wide": {"devices": 2, "nodes": 2, "args": args, "roles": ["mixed"]}}
    file = span_search(tmp_path, cluster, shapes, {"mixed_instances": 1})
    search = Search("run", file, cluster, "--json")
    search.conclude()
    for item in ledger(search.folder):
        assert_spread(item, "mixed-1", cluster)
        assert item["metrics"]["devices"] == 2
    part = next(search.folder.glob("trials/*/mixed-1-part-2/engine.log")).read_text()
    assert "'--headless', '--data-parallel-size', '2'" in part
    assert_left_in_order(search.folder)


@pytest.mark.engine
@pytest.mark.skipif(not TOOL.exists(), reason="no vLLM; see make tools")
@pytest.mark.timeout(1200)
def test_a_tensor_parallel_group_is_on_two_nodes(tmp_path: Path, cluster: Nodes) -> None:
    args = {"tensor-parallel-size": 2}
    shapes = {"wide": {"devices": 2, "nodes": 2, "args": args, "roles": ["mixed"]}}
    file = span_search(
        tmp_path,
        cluster,
        shapes,
        {"mixed_instances": 1},
        trial__model=str(write_tiny_qwen3(tmp_path / "qwen3")),
        trial__engine=VLLM,
    )
    search = Search("run", file, cluster, "--json")
    search.conclude(1100)
    for item in ledger(search.folder):
        print(item["kind"], item["seconds"], item["metrics"]["startup_s"])
        assert_spread(item, "mixed-1", cluster)
        assert item["metrics"]["success_rate"] == 1
    assert not events(search.folder, "failed")
    assert_left_in_order(search.folder)


@pytest.mark.engine
@pytest.mark.skipif(not TOOL.exists(), reason="no vLLM; see make tools")
@pytest.mark.timeout(1200)
def test_kv_caches_come_from_both_nodes_of_an_instance(tmp_path: Path, cluster: Nodes) -> None:
    """Data parallel ranks of a prefill instance, and a decode instance beside one of its parts."""
    shapes = {
        "wide": {
            "devices": 2,
            "nodes": 2,
            "args": {"data-parallel-size": 2},
            "roles": ["prefill"],
        },
        "one": {"devices": 1, "roles": ["decode"]},
    }
    file = span_search(
        tmp_path,
        cluster,
        shapes,
        {"prefill_instances": 1, "decode_instances": 1},
        trial__model=str(write_tiny_qwen3(tmp_path / "qwen3")),
        trial__engine=VLLM,
        trial__benchmark__workload={"type": "random", "input_tokens": 96, "output_tokens": 8},
    )
    search = Search("run", file, cluster, "--json")
    search.conclude(1100)
    for item in ledger(search.folder):
        print(item["kind"], item["seconds"], item["metrics"]["startup_s"])
        assert_spread(item, "prefill-1", cluster)
        assert item["data"]["transferred_tokens"]["decode-1"] > 0
    assert (search.folder / "best" / "prefill-1-part-2.sh").is_file()
    assert_left_in_order(search.folder)
