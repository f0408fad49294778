"""Instances get the configuration that their connector's guide asks for, and misfits are told."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.disaggregated.splits import ASCEND, CPU, HOST, added, misfits, split
from trainables._program import StageError
from trainables.disaggregated._options import DECODE, PREFILL
from trainables.disaggregated._transfer import Where, make_transfer
from trainables.disaggregated._transfer_sizes import Sizes, given_arguments, sizes
from trainables.engines import Deployment, make_engine

RECIPE_SIZES = {"prefill": {"dp_size": 2, "tp_size": 8}, "decode": {"dp_size": 16, "tp_size": 1}}


@pytest.mark.parametrize(
    ("kind", "connector"),
    [("mooncake", "MooncakeConnectorV1"), ("mooncake_layerwise", "MooncakeLayerwiseConnector")],
)
def test_the_recipe_of_vllm_ascends_guide(kind: str, connector: str) -> None:
    """``pd_disaggregation_mooncake_multi_node``: prefill on 16 chips, and decode on 16."""
    whole = split(
        {"type": kind},
        prefill={"tensor-parallel-size": 8, "data-parallel-size": 2},
        decode={"data-parallel-size": 16},
        devices=(16, 16),
    )
    common = {
        "HCCL_IF_IP": HOST,
        "VLLM_HOST_IP": HOST,
        "GLOO_SOCKET_IFNAME": "eth0",
        "TP_SOCKET_IFNAME": "eth0",
        "HCCL_SOCKET_IFNAME": "eth0",
        "OMP_PROC_BIND": "false",
        "OMP_NUM_THREADS": "10",
        "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True",
        "TASK_QUEUE_ENABLE": "1",
        "HCCL_OP_EXPANSION_MODE": "AIV",
        "VLLM_USE_V1": "1",
    }
    for role, kv_role, port, buffer in (
        (PREFILL, "kv_producer", 36000, "256"),
        (DECODE, "kv_consumer", 36200, "600"),
    ):
        args, env = added(whole, role, ports=port)
        assert args == {
            "kv-transfer-config": {
                "kv_connector": connector,
                "kv_role": kv_role,
                "kv_port": str(port),
                "kv_connector_extra_config": RECIPE_SIZES,
            },
            "no-enable-prefix-caching": True,
        }
        assert env == {**common, "HCCL_BUFFSIZE": buffer}


def test_the_recipe_as_the_command_that_is_run() -> None:
    whole = split({"type": "mooncake"}, instances=(1, 2))
    instance = whole.of(DECODE)[1]
    addition = make_transfer(whole.transfer or {}).settings(
        instance, Where(whole, HOST, [36000], "eth0")
    )
    launch = make_engine(whole.engine).launch(
        Deployment(
            Path("/models/m"),
            "m",
            HOST,
            7101,
            {**instance.args, **addition.args},
            {**instance.env, **addition.env},
        )
    )
    assert shlex.join(launch.argv) == (
        f"vllm serve /models/m --served-model-name m --host {HOST} --port 7101 "
        '--kv-transfer-config \'{"kv_connector":"MooncakeConnectorV1","kv_role":"kv_consumer",'
        '"kv_port":"36000","kv_connector_extra_config":{"prefill":{"dp_size":1,"tp_size":1},'
        '"decode":{"dp_size":1,"tp_size":1}}}\' --no-enable-prefix-caching'
    )
    assert launch.env["HCCL_IF_IP"] == HOST


def test_what_the_user_says_is_never_changed() -> None:
    whole = split(
        {"type": "mooncake", "config": {"engine_id": "a", "kv_connector_extra_config": {"x": 1}}},
        {**ASCEND, "args": {"enable_prefix_caching": True}, "env_vars": {"OMP_NUM_THREADS": 1}},
        env_vars={"HCCL_BUFFSIZE": "1024", "HCCL_SOCKET_IFNAME": "bond0"},
    )
    args, env = added(whole, DECODE)
    assert args.keys() == {"kv-transfer-config"}
    assert args["kv-transfer-config"]["engine_id"] == "a"
    extra = args["kv-transfer-config"]["kv_connector_extra_config"]
    assert extra.keys() == {"prefill", "decode", "x"}
    assert not env.keys() & {"HCCL_BUFFSIZE", "HCCL_SOCKET_IFNAME", "OMP_NUM_THREADS"}
    assert added(whole, PREFILL)[1]["HCCL_BUFFSIZE"] == "256"


@settings(deadline=None)
@given(
    tensor=st.sampled_from([(1, 1), (8, 1), (4, 4), (16, 2)]),
    data=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    spelling=st.sampled_from(["tensor-parallel-size", "--tensor_parallel_size"]),
)
def test_both_sides_are_told_the_same_true_sizes(
    tensor: tuple[int, int], data: tuple[int, int], spelling: str
) -> None:
    given_sizes = [
        {spelling: tp, "data-parallel-size": dp} for tp, dp in zip(tensor, data, strict=True)
    ]
    whole = split(
        {"type": "mooncake"},
        prefill=given_sizes[0],
        decode=given_sizes[1],
        devices=(tensor[0] * data[0], tensor[1] * data[1]),
    )
    told = [
        added(whole, role)[0]["kv-transfer-config"]["kv_connector_extra_config"]
        for role in (PREFILL, DECODE)
    ]
    assert told[0] == told[1]
    assert [told[0][role] for role in (PREFILL, DECODE)] == [
        {"dp_size": dp, "tp_size": tp} for tp, dp in zip(tensor, data, strict=True)
    ]


def test_sizes_are_found_wherever_an_engine_takes_them() -> None:
    engine = {
        **ASCEND,
        "args": {"tensor-parallel-size": "$TP", "pp": 9},
        "extra_args": ["-tp", "2", "-dp=3", "--pipeline-parallel-size=2", "--trust-remote-code"],
        "env_vars": {"TP": "4"},
    }
    whole = split({"type": "custom", "prefill": {"a": 1}, "decode": {"a": 1}}, engine)
    assert sizes(whole, whole.instances[0]) == Sizes(4, 2, 3)
    assert given_arguments(whole, whole.instances[0])["trust-remote-code"] is True


@pytest.mark.parametrize(
    ("transfer", "prefill", "decode", "devices", "said"),
    [
        (
            "mooncake",
            {"tensor-parallel-size": 2},
            {"tensor-parallel-size": 4},
            (2, 4),
            "prefill's must be a multiple of decode's",
        ),
        ("mooncake", {"tensor-parallel-size": 2}, {}, (8, 1), "2 x 1 x 1, and their shape p has 8"),
        ("mooncake", {}, {"pipeline-parallel-size": 2}, (1, 2), "pipeline-parallel-size above 1"),
        ("mooncake", {"tensor-parallel-size": "two"}, {}, (1, 1), "'two', no number above 0"),
        (
            "mooncake",
            {"speculative-config": {"num_speculative_tokens": 3}},
            {"speculative-config": '{"num_speculative_tokens": 2}'},
            (1, 1),
            "num_speculative_tokens is 3 for prefill and 2",
        ),
        (
            "mooncake_layerwise",
            {"block-size": 128},
            {"block-size": 64},
            (1, 1),
            "decode's must be a multiple of prefill's",
        ),
        ("example", {"block-size": 32}, {}, (1, 1), "32 for prefill and the engine's default"),
        ("example", {}, {"tensor-parallel-size": 2}, (1, 2), "a tensor-parallel-size above 1"),
        (
            "nixl",
            {"tensor-parallel-size": 2},
            {"tensor-parallel-size": 3},
            (2, 3),
            "one must be a multiple of the other",
        ),
        ("nixl", {"kv-transfer-config": {}}, {}, (1, 1), "among the arguments of prefill"),
        ("example", {"kv_transfer_config": "{}"}, {}, (1, 1), "among the arguments of prefill"),
    ],
)
def test_a_split_that_cannot_work_is_told_before_it_starts(
    transfer: str,
    prefill: dict[str, Any],
    decode: dict[str, Any],
    devices: tuple[int, int],
    said: str,
) -> None:
    engine = ASCEND if transfer.startswith("mooncake") else CPU
    whole = split({"type": transfer}, engine, prefill, decode, devices=devices)
    assert said in misfits(whole)
    with pytest.raises(StageError, match=r"transfer|arguments|number"):
        added(whole, DECODE)


@pytest.mark.parametrize(
    ("prefill", "decode", "devices"),
    [
        ({"tensor-parallel-size": 8}, {"tensor-parallel-size": 2}, (8, 2)),
        ({"pipeline-parallel-size": 2}, {}, (2, 1)),
        ({"speculative-config": {"num_speculative_tokens": 1}}, {}, (1, 1)),
        ({"block-size": 64}, {"block-size": 128}, (1, 1)),
    ],
)
def test_splits_that_work_have_no_misfits(
    prefill: dict[str, Any], decode: dict[str, Any], devices: tuple[int, int]
) -> None:
    for kind in ("mooncake", "mooncake_layerwise"):
        assert misfits(split({"type": kind}, ASCEND, prefill, decode, devices=devices)) == ""


def test_connectors_are_for_the_engines_that_have_them() -> None:
    assert "needs engine.type vllm-ascend" in misfits(split({"type": "mooncake"}, CPU))
    mindie = split({"type": "example"}, {"type": "mindie"})
    assert "MindIE moves KV caches by its own configuration" in misfits(mindie)


def test_pipeline_stages_of_prefill_are_told() -> None:
    whole = split({"type": "mooncake"}, prefill={"pipeline-parallel-size": 2}, devices=(2, 1))
    extra = added(whole, DECODE)[0]["kv-transfer-config"]["kv_connector_extra_config"]
    assert extra["prefill"] == {"dp_size": 1, "tp_size": 1, "pp_size": 2}


def test_the_example_connector_shares_one_folder() -> None:
    whole = split({"type": "example"}, CPU)
    for role in (PREFILL, DECODE):
        args, env = added(whole, role, folder="/trial/kv")
        assert args == {
            "kv-transfer-config": {
                "kv_connector": "ExampleConnector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {"shared_storage_path": "/trial/kv"},
            },
            "no-enable-prefix-caching": True,
        }
        assert env == {}
    fixed = split({"type": "example", "folder": "/nfs/kv"}, CPU)
    extra = added(fixed, PREFILL)[0]["kv-transfer-config"]["kv_connector_extra_config"]
    assert extra == {"shared_storage_path": "/nfs/kv"}


def test_nixl_has_a_side_channel_on_the_nodes_own_address() -> None:
    whole = split({"type": "nixl", "buffer_device": "cpu"}, CPU, devices=(2, 1))
    args, env = added(whole, PREFILL, ports=25000)
    assert args == {
        "kv-transfer-config": {
            "kv_connector": "NixlConnector",
            "kv_role": "kv_producer",
            "kv_buffer_device": "cpu",
        }
    }
    assert env == {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": HOST,
        "VLLM_NIXL_SIDE_CHANNEL_PORT": "25000",
    }
    assert make_transfer({"type": "nixl"}).ports(whole.instances[0]) == 2
