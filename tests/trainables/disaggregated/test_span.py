"""Instances over several nodes: what their parts are told, and how they live and die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, parse_bundle
from tests.trainables.disaggregated.splits import ASCEND, CPU
from tests.trainables.disaggregated.test_deploy import said, written
from trainables import trial_type
from trainables._program import StageError
from trainables.disaggregated._deploy import deployment_files
from trainables.disaggregated._options import DisaggregatedOptions
from trainables.disaggregated._plan import Plan, plan
from trainables.disaggregated._span import Head, on_node, span_misfits
from trainables.disaggregated._transfer import Where, make_transfer

HEAD = Head("10.0.0.1", 29000)
DP16 = {"data-parallel-size": 16, "enable-expert-parallel": True}
TP16 = {"tensor-parallel-size": 16}


def block(
    args: dict[str, Any], nodes: int = 2, devices: int = 16, **changes: Any
) -> dict[str, Any]:
    """A prefill instance over several nodes, and a decode instance on one."""
    wide = {"devices": devices, "nodes": nodes, "args": args, "roles": ["prefill", "mixed"]}
    one = {"devices": 1, "roles": ["decode"]}
    return {
        "model": "/models/m",
        "engine": ASCEND,
        "benchmark": {"type": "builtin"},
        "load": {"type": "fixed", "concurrency": 1},
        "shapes": {"wide": wide, "one": one},
        "transfer": {"type": "mooncake"},
        **changes,
    }


def split(*arguments: Any, parameters: dict[str, Any] | None = None, **changes: Any) -> Plan:
    options = DisaggregatedOptions.model_validate(block(*arguments, **changes))
    return plan(options, parameters or {"prefill_instances": 1, "decode_instances": 1})


def told(whole: Plan, part: int) -> dict[str, Any]:
    """What a part of the first instance gets besides what all have."""
    one = whole.parts[part - 1]
    return {
        name: value
        for name, value in on_node(whole, one, HEAD, "eth0").args.items()
        if name not in one.args
    }


def test_parts_of_an_instance_have_a_bundle_each_and_none_on_one_node() -> None:
    trial = trial_type("disaggregated")(DisaggregatedOptions.model_validate(block(DP16)))
    counts = {"prefill_instances": 2, "decode_instances": 1}
    placement = trial.placement(counts, "candidate", parse_bundle({"CPU": 4, "NPU": 1}))
    assert [one.resources.get("NPU") for one in placement.bundles] == [None, 8, 8, 8, 8, 1]
    assert placement.apart == ((1, 2), (3, 4))
    assert trial.devices(counts, "candidate") == 33
    names = [one.title for one in plan(trial.options, counts).parts]
    assert names[:3] == ["prefill-1", "prefill-1 part 2", "prefill-2"]


def test_only_more_than_one_node_changes_an_identity(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    def identity(nodes: int) -> Any:
        options = block(DP16, nodes, model=str(tmp_path))
        return trial_type("disaggregated")(DisaggregatedOptions(**options)).identity("candidate")

    assert identity(1)["shapes"]["wide"] == {"devices": 16, "args": DP16}
    assert identity(1) != identity(2) != identity(4)


def test_data_parallel_ranks_are_shared_out_over_the_nodes() -> None:
    whole = split(DP16, 4)
    common = {
        "data-parallel-size-local": 4,
        "data-parallel-address": "10.0.0.1",
        "data-parallel-rpc-port": 29000,
    }
    assert told(whole, 1) == common, "a start rank would give the head ranks of its own only"
    assert told(whole, 2) == {**common, "data-parallel-start-rank": 4}
    assert told(whole, 4) == {**common, "data-parallel-start-rank": 12}


@pytest.mark.parametrize("args", [TP16, {"tensor-parallel-size": 4, "pipeline-parallel-size": 4}])
def test_a_group_of_ranks_meets_at_its_head(args: dict[str, Any]) -> None:
    whole = split(args, 2, transfer={"type": "nixl"})
    common = {"nnodes": 2, "master-addr": "10.0.0.1", "master-port": 29000}
    assert told(whole, 1) == {**common, "node-rank": 0}
    assert told(whole, 2) == {**common, "node-rank": 1}


def test_what_the_user_said_of_a_part_stays_where_it_says_the_same() -> None:
    whole = split({**DP16, "data_parallel_size_local": 8})
    assert span_misfits(whole) == []
    args = on_node(whole, whole.parts[1], HEAD, "").args
    assert [value for name, value in args.items() if "local" in name] == [8]


@pytest.mark.parametrize(
    ("args", "nodes", "why"),
    [
        ({**DP16, "data-parallel-size-local": 4}, 2, "is 4, and on 2 nodes it has to be 8"),
        ({**DP16, "data-parallel-start-rank": 8}, 2, "data-parallel-start-rank is among"),
        ({**DP16, "data-parallel-address": "10.0.0.9"}, 2, "leave it out"),
        ({**DP16, "data-parallel-backend": "ray"}, 2, "has to be 'mp'"),
        ({**DP16, "distributed-executor-backend": "ray"}, 2, "places its workers itself"),
        ({**TP16, "distributed-executor-backend": "uni"}, 2, "has to be 'mp'"),
        ({**TP16, "nnodes": 4}, 2, "is 4, and on 2 nodes it has to be 2"),
        ({**TP16, "headless": True}, 2, "headless is among"),
        ({"data-parallel-size": 2, "tensor-parallel-size": 8}, 4, "shared out evenly over 4"),
        ({"tensor-parallel-size": 8}, 2, "8 x 1 x 1, and their shape wide has 16 devices on 2"),
        ({}, 2, "1 x 1 x 1"),
    ],
)
def test_arguments_that_contradict_the_nodes_are_refused(
    args: dict[str, Any], nodes: int, why: str
) -> None:
    whole = split(args, nodes)
    assert any(why in one for one in span_misfits(whole)), span_misfits(whole)
    with pytest.raises(StageError):
        deployment_files(whole)


def test_what_is_right_on_two_nodes_is_not_refused() -> None:
    for args in ({**DP16, "distributed-executor-backend": "mp"}, {**TP16, "nnodes": 2}):
        assert span_misfits(split(args)) == []


@pytest.mark.parametrize(
    ("changes", "path", "why"),
    [
        ({"nodes": 3}, "trial.shapes.wide.nodes", "16 devices cannot be shared out evenly over 3"),
        ({"engine": {"type": "mindie"}}, "trial.shapes.wide.nodes", "is started on one node"),
    ],
)
def test_blocks_with_such_shapes_are_told_their_faults(
    changes: dict[str, Any], path: str, why: str
) -> None:
    options = DisaggregatedOptions.model_validate(
        {
            **block(DP16, changes.get("nodes", 2)),
            **{k: v for k, v in changes.items() if k != "nodes"},
        }
    )
    found = trial_type("disaggregated")(options).problems()
    assert [said for where, said in found if where == path and why in said], found


def test_a_search_is_told_that_a_shape_cannot_be_spread() -> None:
    options = DisaggregatedOptions.model_validate(block({**DP16, "node-rank": 1}))
    (misfit, *_) = trial_type("disaggregated")(options).search_options()["misfits"]
    assert "node-rank is among" in misfit["why"]


def test_each_part_has_its_own_nodes_ports_and_all_have_the_sizes_of_the_whole() -> None:
    whole = split({"data-parallel-size": 2, "tensor-parallel-size": 8})
    transfer = make_transfer(whole.transfer or {})
    found = []
    for number, part in enumerate(whole.parts[:2], 1):
        ports = range(40000 + 100 * number, 40000 + 100 * number + transfer.ports(part))
        added = transfer.settings(part, Where(whole, f"10.0.0.{number}", ports, "eth0"))
        config = added.args["kv-transfer-config"]
        found.append((added.env["HCCL_IF_IP"], config["kv_port"], len(ports)))
        assert config["kv_connector_extra_config"]["prefill"] == {"dp_size": 2, "tp_size": 8}
    # Rank 8 on the second node listens 8 above the port of its own node.
    assert found == [("10.0.0.1", "40100", 16), ("10.0.0.2", "40200", 16)]


def test_mooncake_refuses_a_group_whose_ports_it_would_count_through_two_nodes() -> None:
    whole = split(TP16)
    assert "parallel group over 2 nodes" in "".join(
        make_transfer(whole.transfer or {}).misfits(whole)
    )
    assert make_transfer({"type": "mooncake"}).misfits(split(DP16)) == []


def test_parts_outside_ascend_are_told_their_address_and_interface() -> None:
    changes: dict[str, Any] = {"engine": CPU, "transfer": {"type": "example"}}
    whole = split({"tensor-parallel-size": 2}, 2, 2, **changes)
    env = on_node(whole, whole.parts[1].serving("10.0.0.2", 0, ""), HEAD, "eth0").env
    assert env["VLLM_HOST_IP"] == "10.0.0.2"
    assert env["GLOO_SOCKET_IFNAME"] == "eth0"


def test_an_instance_that_is_alone_on_ascend_is_told_its_node() -> None:
    engine = {**ASCEND, "env_vars": {"HCCL_OP_EXPANSION_MODE": "HOST"}}
    changes: dict[str, Any] = {"engine": engine, "parameters": {"mixed_instances": 1}}
    whole = split({"tensor-parallel-size": 16}, 1, **changes)
    one = whole.parts[0].serving("127.0.0.1", 7100, "")
    found = on_node(whole, one, HEAD, "eth0", "10.0.0.1")
    assert found.args == one.args
    assert found.env["HCCL_IF_IP"] == found.env["VLLM_HOST_IP"] == "10.0.0.1"
    assert found.env["GLOO_SOCKET_IFNAME"] == "eth0"
    assert "HCCL_OP_EXPANSION_MODE" not in found.env


def test_scripts_start_each_part_on_its_node(tmp_path: Path) -> None:
    args = {**DP16, "api-server-count": 2}
    files = deployment_files(split(args, parameters={"mixed_instances": 1}))
    assert [name for name in files if name.endswith(".sh")] == [
        "mixed-1.sh",
        "mixed-1-part-2.sh",
        "router.sh",
    ]
    assert "LeaderWorkerSet" in files["kubernetes.txt"]
    assert not any(name.endswith(".yaml") for name in files)
    values = {"MIXED_1_HOST": "10.0.0.1", "MIXED_1_PART_2_HOST": "10.0.0.2", "INTERFACE": "eth0"}
    written(files, tmp_path, **values)
    head, _ = said("mixed-1.sh", tmp_path)
    part, environment = said("mixed-1-part-2.sh", tmp_path)
    assert "--port" in head and "--headless" not in head
    assert "--headless" in part and "--port" not in part
    assert "--api-server-count" in head and "--api-server-count" not in part
    for argv in (head, part):
        assert argv[argv.index("--data-parallel-address") + 1] == "10.0.0.1"
    assert environment["HCCL_IF_IP"] == "10.0.0.2"
    assert environment["ASCEND_RT_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"


Carried = Callable[..., dict[str, Any]]
SHAPES = {
    "wide": {"devices": 2, "nodes": 2, "args": {"data-parallel-size": 2}, "roles": ["prefill"]},
    "one": {"devices": 1, "roles": ["decode"]},
}
ONE_OF_EACH = {"prefill_instances": 1, "decode_instances": 1}


def test_an_instance_over_two_nodes_is_measured_as_one(carry_out: Carried, run_id: str) -> None:
    report = carry_out(ONE_OF_EACH, shapes=SHAPES)
    assert report["status"] == "measured", report
    measured = report["measurement"]
    assert measured.metrics["devices"] == 3
    found = measured.data["instances"]
    assert set(found) == {"prefill-1", "prefill-1 part 2", "decode-1"}
    assert [one["devices"] for one in found.values()] == [1, 1, 1]
    head, part = (
        (report["folder"] / folder / "engine.log").read_text()
        for folder in ("prefill-1", "prefill-1-part-2")
    )
    assert "'--headless'" in part and "'--headless'" not in head
    assert "'--data-parallel-start-rank', '1'" in part
    (port,) = {
        text.split("'--data-parallel-rpc-port', '")[1].split("'")[0] for text in (head, part)
    }
    assert int(port) > 0
    assert not find_processes(run_id)


@pytest.mark.parametrize(
    ("kind", "last_words", "sort"),
    [("candidate", "RuntimeError: HCCL timeout", "device"), ("prefill", "bye", "tool")],
)
def test_a_part_that_dies_under_load_fails_its_instance(
    carry_out: Carried, tmp_path: Path, run_id: str, kind: str, last_words: str, sort: str
) -> None:
    file = tmp_path / "die"

    def kill(report: dict[str, Any]) -> None:
        if report["stage"].startswith("benchmark") and not file.exists():
            file.with_suffix(".new").write_text(last_words)
            file.with_suffix(".new").rename(file)

    report = carry_out(
        {**ONE_OF_EACH, "prefill.STUB_PART_DIE_FILE": str(file)},
        kind=kind,
        shapes=SHAPES,
        seen=kill,
        benchmark={
            "type": "builtin",
            "requests": 4000,
            "warm_ups": 0,
            "workload": {"type": "random", "input_tokens": 8, "output_tokens": 100},
        },
        positions={"STUB_PART_DIE_FILE": "env"},
    )
    assert report["status"] == "failed", report
    failure = report["failure"]
    assert (failure["class"], failure["instance"]) == (sort, "prefill-1")
    assert failure["message"].startswith("prefill-1 part 2 on node-2: ")
    assert failure["stage"] == "benchmark-1"
    assert not find_processes(run_id)


def test_a_part_that_does_not_start_fails_its_instance(carry_out: Carried, tmp_path: Path) -> None:
    file = tmp_path / "die"
    file.write_text("torch.OutOfMemoryError: NPU out of memory")
    report = carry_out(
        {**ONE_OF_EACH, "prefill.STUB_PART_DIE_FILE": str(file)},
        shapes=SHAPES,
        positions={"STUB_PART_DIE_FILE": "env"},
    )
    failure = report["failure"]
    assert failure["class"] == "out_of_memory"
    assert "prefill-1 part 2" in failure["message"]
