"""A prefill/decode search on nodes of their own, by the command line: instances are really on
different nodes, KV caches really move between them, and what is delivered can be started there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endtoend.cluster import Search, write_search
from tests.nodes import Nodes, nodes
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import (
    assert_nothing_left,
    assert_nothing_measured_twice,
    events,
    ledger,
    run_id,
)

TOOL = Path(__file__).parents[2] / ".tools" / "vllm" / "bin" / "python"
VLLM: dict[str, Any] = {
    "type": "vllm",
    "command": [str(TOOL)],
    "startup_timeout": 400,
    "args": {
        "max-model-len": 512,
        "block-size": 32,
        "enforce-eager": True,
        "kv-cache-memory-bytes": "16M",
    },
    "env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": 1, "HF_HUB_OFFLINE": 1},
}
"""A small real engine, of which several fit this machine."""
BY_ROLE = {"prefill": {"labels": {"role": "prefill"}}, "decode": {"labels": {"role": "decode"}}}


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    """A node for prefill, one for decode; mixed instances may be on both."""
    with nodes(cpus=0) as made:
        made.add({"CPU": 2, "NPU": 2}, {"role": "prefill"})
        made.add({"CPU": 2, "NPU": 2}, {"role": "decode"})
        yield made


def roles(item: dict[str, Any]) -> dict[str, int]:
    """How many instances of each role a measurement is of."""
    names = (name.rpartition("-")[0] for name in item["data"]["instances"])
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def assert_apart_and_transferred(item: dict[str, Any], cluster: Nodes) -> None:
    """Each instance of a split is where its role belongs, and got KV caches from there."""
    _, prefill, decode = cluster.alive
    for name, told in item["data"]["instances"].items():
        assert told["node"] == (prefill if name.startswith("prefill") else decode).address
    moved = item["data"]["transferred_tokens"]
    assert moved.keys() == {n for n in item["data"]["instances"] if n.startswith("decode")}
    assert any(moved.values())


def assert_deployable(best: Path, instances: set[str]) -> None:
    """A script for each instance and the router, which a shell accepts; manifests; one file with
    what differs from node to node."""
    for name in {*instances, "router"}:
        script = best / f"{name}.sh"
        subprocess.run(["sh", "-n", str(script)], check=True)
    assert (best / "hosts.env").is_file()
    kinds = [
        document["kind"]
        for file in (best / "kubernetes").glob("*.yaml")
        for document in yaml.safe_load_all(file.read_text())
    ]
    roles_of = {name.rpartition("-")[0] for name in instances}
    assert kinds.count("StatefulSet") == len(roles_of)
    assert "Deployment" in kinds


def assert_left_in_order(folder: Path) -> None:
    assert_nothing_measured_twice(folder)
    assert_nothing_left(folder)
    assert not list(folder.glob("trials/*/transfer"))
    assert run_id(folder)


@pytest.mark.ray
def test_a_split_over_two_nodes_is_found_and_delivered(tmp_path: Path, cluster: Nodes) -> None:
    file = write_search(
        tmp_path, cluster, search={"type": "pd_split", "devices": 2, "mixed": False},
        budget={"concurrent": "auto"},
    )  # fmt: skip
    search = Search("run", file, cluster, "--json")
    result = search.conclude()
    split = {"prefill_instances": 1, "decode_instances": 1}
    assert {name: result["best"][name] for name in split} == split
    kinds = {item["kind"]: item for item in ledger(search.folder)}
    assert kinds.keys() == {"prefill", "decode", "candidate", "verification"}
    for kind in ("candidate", "verification"):
        assert_apart_and_transferred(kinds[kind], cluster)
    assert_deployable(search.folder / "best", {"prefill-1", "decode-1"})
    assert_left_in_order(search.folder)


@pytest.mark.ray
@pytest.mark.slow
def test_splits_and_mixed_instances_share_nodes_and_are_compared(
    tmp_path: Path, cluster: Nodes
) -> None:
    file = write_search(
        tmp_path,
        cluster,
        search={"type": "pd_split", "devices": 3, "top": 4, "gain": 0.0},
        trial__roles=BY_ROLE,
        trial__load={"type": "operating_point", "by": "concurrency", "low": 1, "high": 8},
        objective__limits=[{"metric": "ttft_p90_s", "max": 2.0}],
        cluster__labels={},
        budget={"concurrent": "auto"},
    )
    search = Search("run", file, cluster, "--json")
    search.conclude()
    candidates = [item for item in ledger(search.folder) if item["kind"] == "candidate"]
    found = [roles(item) for item in candidates]
    assert {"mixed": 3} in found
    assert any("prefill" in split for split in found)
    for item in candidates:
        if "prefill" in roles(item):
            assert_apart_and_transferred(item, cluster)
        else:
            assert {told["node"] for told in item["data"]["instances"].values()} == {
                node.address for node in cluster.alive[1:]
            }
    manifest = json.loads((search.folder / "best" / "result.json").read_text())
    assert manifest["verdict"] == "satisfied"
    assert_left_in_order(search.folder)


@pytest.mark.engine
@pytest.mark.skipif(not TOOL.exists(), reason="no vLLM; see make tools")
@pytest.mark.timeout(2400)
def test_a_split_of_real_engines_over_two_nodes(tmp_path: Path, cluster: Nodes) -> None:
    """1P1D, 2P1D, 1P2D and mixed ones, of vLLM, whose KV caches move from node to node."""
    model = write_tiny_qwen3(tmp_path / "qwen3")
    alone = {"distributed-executor-backend": "uni"}
    engine = {
        **VLLM,
        "args": {**VLLM["args"], **alone},
        "env_vars": {**VLLM["env_vars"], "VLLM_ENABLE_V1_MULTIPROCESSING": 0},
    }
    workload = {"type": "random", "input_tokens": 96, "output_tokens": 16}
    file = write_search(
        tmp_path,
        cluster,
        search={"type": "pd_split", "devices": 3, "top": 4, "gain": 0.0},
        trial__model=str(model),
        trial__engine=engine,
        trial__roles=BY_ROLE,
        trial__benchmark={
            "type": "builtin",
            "requests": 24,
            "warm_ups": 2,
            "workload": workload,
        },
        cluster__labels={},
    )
    search = Search("run", file, cluster, "--json")
    result = search.conclude(2300)
    candidates = [item for item in ledger(search.folder) if item["kind"] == "candidate"]
    for item in candidates:
        metrics = item["metrics"]
        print(roles(item), item["seconds"], item["data"].get("transferred_tokens"),
              {n: round(metrics[n], 4) for n in ("requests_per_s", "ttft_mean_s", "tpot_mean_s",
               "startup_s")})  # fmt: skip
    assert {"mixed": 3} in [roles(item) for item in candidates]
    splits = [item for item in candidates if "prefill" in roles(item)]
    assert splits
    for item in splits:
        assert_apart_and_transferred(item, cluster)
        assert item["environment"]["vllm"]
    assert result["best"]
    assert not events(search.folder, "failed")
    assert_left_in_order(search.folder)
