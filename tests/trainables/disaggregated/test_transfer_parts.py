"""What all transfers have in common, and those that a user writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster import PortUnavailableError
from tests.trainables.disaggregated.splits import CPU, HOST, split
from trainables._program import StageError
from trainables.disaggregated._options import DECODE, MIXED
from trainables.disaggregated._transfer import Where, make_transfer, transfer_types
from trainables.disaggregated._transfer_environment import ascend_environment, interface_of
from trainables.disaggregated._transfer_ports import lease_transfer_ports


def test_a_configuration_of_ones_own_has_its_variables_replaced() -> None:
    transfer = {
        "type": "custom",
        "prefill": {"kv_connector": "C", "kv_role": "kv_producer", "kv_port": "$PORT"},
        "decode": {
            "kv_connector": "C",
            "kv_role": "kv_consumer",
            "kv_rank": "$RANK",
            "peers": ["$PREFILL_INSTANCES", "tcp://$HOST:${PORT}", "$OTHER"],
            "kv_connector_extra_config": {"tp": "$PREFILL_TP", "dp": "$DECODE_DP"},
        },
        "env_vars": {"SIDE_HOST": "$HOST", "N": "$NUMBER"},
        "ports": 3,
    }
    whole = split(transfer, CPU, {"tensor-parallel-size": 2}, instances=(2, 2))
    instance = whole.of(DECODE)[1]
    found = make_transfer(transfer).settings(instance, Where(whole, HOST, [30000, 30001, 30002]))
    assert found.args["kv-transfer-config"] == {
        "kv_connector": "C",
        "kv_role": "kv_consumer",
        "kv_rank": 3,
        "peers": [2, f"tcp://{HOST}:30000", "$OTHER"],
        "kv_connector_extra_config": {"tp": 2, "dp": 1},
    }
    assert found.env == {"SIDE_HOST": HOST, "N": "2"}
    assert make_transfer(transfer).ports(instance) == 3


@pytest.mark.parametrize(
    ("block", "where", "said"),
    [
        (("kv_producer", "kv_producer"), "decode.kv_role", "a decode instance needs kv_consumer"),
        (("kv_consumer", "kv_consumer"), "prefill.kv_role", "a prefill instance needs kv_producer"),
        (("kv_both", "kv_consumer"), "prefill.kv_role", "either send or receive"),
        ((None, "kv_consumer"), "prefill.kv_role", "a connector needs it"),
    ],
)
def test_roles_of_ones_own_configuration_are_checked(
    block: tuple[str | None, str], where: str, said: str
) -> None:
    sides = [
        {"kv_connector": "MooncakeConnectorV1", **({"kv_role": role} if role else {})}
        for role in block
    ]
    found = make_transfer({"type": "custom", "prefill": sides[0], "decode": sides[1]}).problems()
    assert [path for path, _ in found] == [where]
    assert said in found[0][1]


def test_two_connectors_do_not_understand_each_other() -> None:
    prefill = {"kv_connector": "A", "kv_role": "kv_both"}
    decode = {"kv_connector": "B", "kv_role": "kv_both"}
    block = {"type": "custom", "prefill": prefill, "decode": decode}
    assert make_transfer(block).problems() == [
        ("decode.kv_connector", "B cannot read what A sends")
    ]


def test_what_a_transfer_decides_cannot_be_written_beside_it() -> None:
    block = {"type": "nixl", "config": {"kv_role": "kv_both", "kv_connector_extra_config": 1}}
    assert [path for path, _ in make_transfer(block).problems()] == [
        "config.kv_role",
        "config.kv_connector_extra_config",
    ]
    with pytest.raises(ValidationError):
        make_transfer({"type": "example", "unknown": 1})
    with pytest.raises(KeyError, match="there are custom, example, mooncake"):
        make_transfer({"type": "nothing"})


def test_identities_have_no_places_in_them() -> None:
    blocks: dict[str, dict[str, Any]] = {
        "example": {"folder": "/somewhere"},
        "nixl": {},
        "mooncake": {"devices_per_node": 8},
        "mooncake_layerwise": {},
        "custom": {"prefill": {"p": "$HOST"}, "decode": {"p": "$PORT"}, "ports": 2},
    }
    assert sorted(blocks) == transfer_types()
    documents = [
        json.dumps(make_transfer({"type": kind, **more}).identity())
        for kind, more in blocks.items()
    ]
    assert len(set(documents)) == len(blocks)
    assert not any("/somewhere" in one or "8" in one for one in documents)
    assert make_transfer({"type": "nixl"}).identity() != (
        make_transfer({"type": "nixl", "buffer_device": "cpu"}).identity()
    )


METRICS = """# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 100.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 2016.0
vllm:prompt_tokens_by_source_total{engine="1",model_name="m",source="external_kv_transfer"} 4.0
vllm:prompt_tokens_by_source_created{engine="0",source="external_kv_transfer"} 1.7e+09
"""


def test_tokens_that_came_from_elsewhere_are_counted() -> None:
    transfer = make_transfer({})
    assert transfer.transferred(METRICS) == 2020
    assert transfer.transferred(METRICS.replace("2016.0", "0.0").replace("4.0", "0.0")) == 0
    assert transfer.transferred("# an older engine\nvllm:num_requests 1\n") is None


@pytest.mark.parametrize("ports", [[], [36000], [36000, 36002], [36001, 36000], [27999, 28000]])
def test_ports_that_a_connector_cannot_use_are_refused(ports: list[int]) -> None:
    whole = split({"type": "mooncake", "devices_per_node": 8}, devices=(2, 2), **_two())
    transfer = make_transfer(whole.transfer or {})
    with pytest.raises(StageError, match="port"):
        transfer.settings(whole.instances[0], Where(whole, HOST, ports))


def _two() -> dict[str, Any]:
    return {"prefill": {"tensor-parallel-size": 2}, "decode": {"tensor-parallel-size": 2}}


@settings(max_examples=10, deadline=None)
@given(count=st.integers(1, 16), nodes=st.sampled_from([8, 16]))
def test_leased_ports_are_neighbours_outside_those_of_the_transport(count: int, nodes: int) -> None:
    reserved = make_transfer({"type": "mooncake", "devices_per_node": nodes}).reserved
    assert reserved == range(20000, 20000 + 1000 * nodes)
    with lease_transfer_ports(count, reserved) as lease:
        first = lease.ports[0]
        assert list(lease.ports) == list(range(first, first + count))
        assert first >= reserved.stop
    with pytest.raises(PortUnavailableError, match="neighbouring"):
        lease_transfer_ports(count, range(1, 65536))


def test_mixed_instances_on_ascend_have_their_environment_too() -> None:
    env = ascend_environment(MIXED, HOST, "")
    assert env["HCCL_BUFFSIZE"] == "256"
    assert "GLOO_SOCKET_IFNAME" not in env


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.254") == ""
