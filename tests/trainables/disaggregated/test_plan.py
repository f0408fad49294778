"""What instances a split has, and what the block and its parameters must not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import parse_bundle
from searchers import make_strategy
from trainables import trial_type
from trainables.disaggregated._alone import alone_load, one_token
from trainables.disaggregated._options import DisaggregatedOptions
from trainables.disaggregated._plan import Instance, Plan, SplitError, plan
from trainables.serving._load import CalibratedLoad, FixedLoad, OperatingPoint

SHAPES = {
    "tp1": {"devices": 1, "args": {"tensor-parallel-size": 1}},
    "tp4": {"devices": 4, "args": {"tensor-parallel-size": 4}, "roles": ["decode"]},
}
ROLES = {
    "prefill": {"args": {"max_num_seqs": 8}, "env_vars": {"A": "1"}, "labels": {"role": "p"}},
}
SIZES = (("two", 2), ("three", 3))
BLOCK: dict[str, Any] = {
    "model": "/models/m",
    "engine": {"type": "vllm", "args": {"block-size": 32}},
    "shapes": SHAPES,
    "roles": ROLES,
    "positions": {"THREADS": "env", "users": "concurrency"},
}


def split(parameters: Mapping[str, Any], kind: str = "candidate", **changes: Any) -> Plan:
    return plan(DisaggregatedOptions(**{**BLOCK, **changes}), parameters, kind)


def trial(**changes: Any) -> Any:
    return trial_type("disaggregated")(DisaggregatedOptions(**{**BLOCK, **changes}))


def names(found: Plan) -> list[str]:
    return [instance.name for instance in found.instances]


def test_instances_come_by_role_and_number_with_transfer_and_router() -> None:
    found = split({"prefill_instances": 2, "decode_instances": 1, "decode_shape": "tp4"})
    assert names(found) == ["prefill-1", "prefill-2", "decode-1"]
    assert [one.devices for one in found.instances] == [1, 1, 4]
    assert found.transfer is not None
    assert found.router is not None
    assert (found.served_name, str(found.model)) == ("m", "/models/m")


def test_mixed_instances_have_no_transfer_and_one_alone_no_router() -> None:
    mixed = split({"mixed_instances": 3, "mixed_shape": "tp1"})
    assert names(mixed) == ["mixed-1", "mixed-2", "mixed-3"]
    assert mixed.transfer is None
    assert mixed.router is not None
    alone = split({"decode_shape": "tp4", "prefill_instances": 7}, "decode")
    assert names(alone) == ["decode-1"]
    assert alone.transfer is alone.router is None


def test_counts_that_nobody_gives() -> None:
    assert names(split({"decode_shape": "tp1"})) == ["prefill-1", "decode-1"]
    assert names(split({"decode_shape": "tp1", "prefill_instances": 2})) == [
        *("prefill-1", "prefill-2", "decode-1")
    ]
    only_mixed = {"one": {"roles": ["mixed"]}}
    assert names(split({}, shapes=only_mixed, roles={})) == ["mixed-1"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"prefill_instances": 1, "decode_instances": 1}, "decode_shape: say which"),
        ({"decode_shape": "tp2"}, "'tp2' is no shape that may be decode; tp1, tp4"),
        ({"prefill_shape": "tp4", "decode_shape": "tp4"}, "no shape that may be prefill"),
        ({"mixed_instances": 1, "prefill_instances": 1}, "either mixed ones, or prefill and"),
        ({"prefill_instances": 0, "decode_instances": 0}, "needs a mixed one, or one of each"),
        ({"prefill_instances": 1, "decode_instances": 0}, "needs a mixed one, or one of each"),
        ({"prefill_instances": 1.5}, "1.5 is no number of instances"),
        ({"prefill_instances": -1}, "-1 is below 0"),
        ({"prefill_instances": True}, "True is no number of instances"),
    ],
)
def test_parameters_that_are_no_split(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(SplitError, match=said):
        split(parameters)
    one = parse_bundle({"CPU": 1})
    assert len(trial().placement(parameters, "candidate", one).bundles) == 1
    assert trial().devices(parameters, "candidate") is None


def test_later_layers_of_arguments_win_however_they_are_spelled() -> None:
    found = split(
        {
            "decode_shape": "tp4",
            "max-num-seqs": 16,
            "decode.max_num_seqs": 64,
            "prefill.THREADS": 3,
            "THREADS": 2,
            "users": 12,
        }
    )
    prefill, decode = found.instances
    assert prefill.args == {"tensor-parallel-size": 1, "max-num-seqs": 16}
    assert decode.args == {"tensor-parallel-size": 4, "max_num_seqs": 64}
    assert prefill.env == {"A": "1", "THREADS": 3}
    assert decode.env == {"THREADS": 2}
    assert found.load.concurrency == 12


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prefill_instances": st.integers(-1, 3),
            "decode_instances": st.integers(-1, 3),
            "mixed_instances": st.integers(-1, 3),
            "prefill_shape": st.sampled_from(["tp1", "tp4"]),
            "decode_shape": st.sampled_from(["tp1", "tp4"]),
            "mixed_shape": st.sampled_from(["tp1", "tp4"]),
        },
    ),
    st.sampled_from(["candidate", "verification", "baseline", "prefill", "decode"]),
)
def test_every_plan_can_serve_and_is_what_was_asked_for(
    parameters: dict[str, Any], kind: str
) -> None:
    try:
        found = split(parameters, kind)
    except SplitError:
        return
    roles = {one.role for one in found.instances}
    if kind in ("prefill", "decode"):
        assert names(found) == [f"{kind}-1"]
        return
    assert roles in ({"mixed"}, {"prefill", "decode"})
    for role in roles:
        ones = found.of(role)
        assert [one.number for one in ones] == list(range(1, len(ones) + 1))
        assert len(ones) == parameters.get(f"{role}_instances", 1)
        assert {one.shape for one in ones} <= {parameters.get(f"{role}_shape", ones[0].shape)}


def test_where_an_instance_serves() -> None:
    one = Instance("decode", 2, "tp4", 4)
    there = one.serving("10.0.0.2", 21000, "http://10.0.0.2:21000")
    assert (there.name, there.host, there.port) == ("decode-2", "10.0.0.2", 21000)
    assert one.base_url is None


def test_a_placement_has_a_small_bundle_first_and_the_devices_of_each_shape() -> None:
    one = parse_bundle({"CPU": 8, "NPU": 99, "npu_910b": 1}, {"pool": "a"})
    parameters = {"prefill_instances": 2, "decode_instances": 1, "decode_shape": "tp4"}
    found = trial().placement(parameters, "candidate", one)
    assert [dict(bundle.resources) for bundle in found.bundles] == [
        {"CPU": 1},
        {"CPU": 8, "NPU": 1, "npu_910b": 1},
        {"CPU": 8, "NPU": 1, "npu_910b": 1},
        {"CPU": 8, "NPU": 4, "npu_910b": 1},
    ]
    assert [dict(bundle.labels) for bundle in found.bundles] == [
        {"pool": "a"},
        {"pool": "a", "role": "p"},
        {"pool": "a", "role": "p"},
        {"pool": "a"},
    ]
    assert trial().devices(parameters, "candidate") == 6
    assert len(trial().placement(parameters, "prefill", one).bundles) == 2
    on_cpus = trial().placement(parameters, "candidate", parse_bundle({"CPU": 0.5}))
    assert all(bundle.resources == {"CPU": 0.5} for bundle in on_cpus.bundles)


def test_all_faults_of_a_block_are_told_at_once(tmp_path: Any) -> None:
    block = {
        "engine": {"type": "vllm", "command": ["no-such"], "port": 80, "host": "127.0.0.1",
                   "args": {"kv_transfer_config": {}}},
        "shapes": {
            "a": {"devices": 1, "args": {"tensor-parallel-size": 2, "port": 1}},
            "b": {"roles": []},
        },
        "roles": {"mixed": {"args": {"a b": 1}}},
        "transfer": {"type": "nothing"},
        "router": {"type": "builtin", "polciy": "x"},
        "load": {"type": "operating_point"},
        "baseline": {"prefill_instances": 0},
    }  # fmt: skip
    found = dict(trial(**block).problems())
    assert set(found) >= {
        "trial.model",
        "trial.engine.command",
        "trial.engine.port",
        "trial.engine.host",
        "trial.engine.args.kv_transfer_config",
        "trial.shapes.a.devices",
        "trial.shapes.a.args.port",
        "trial.shapes.b.roles",
        "trial.roles.mixed.args.a b",
        "trial.transfer.type",
        "trial.router.polciy",
        "trial.load",
        "trial.baseline",
    }


def test_a_role_without_a_shape_is_a_fault_wherever_it_is_named() -> None:
    block = {"shapes": {"a": {"roles": ["mixed", "decode"]}}}
    found = dict(trial(**block).problems())
    assert "no shape may be prefill" in found["trial.shapes"]
    assert "no shape may be prefill" in found["trial.roles.prefill"]
    names = ["prefill_instances", "prefill.max-num-seqs", "mixed_instances", "max-num-seqs"]
    found = dict(trial(**block).parameter_problems(names))
    assert set(found) == {"prefill_instances", "prefill.max-num-seqs"}


def test_parameters_that_the_trial_decides_or_that_are_one_load() -> None:
    load = {"type": "fixed", "concurrency": 4}
    names = ["decode.port", "kv-transfer-config", "decode.users", "users", "decode.block-size"]
    found = dict(trial(load=load).parameter_problems(names))
    assert set(found) == {"decode.port", "kv-transfer-config", "decode.users"}
    assert "searched on the running engine" in dict(trial().parameter_problems(["users"]))["users"]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({}, {"workload": {"output_tokens": 1}}),
        (
            {"workload": {"type": "random", "input_tokens": 9, "output_tokens": 30}},
            {"workload": {"type": "random", "input_tokens": 9, "output_tokens": 1}},
        ),
        (
            {"type": "ais_bench", "datasets": "gsm8k"},
            {"type": "ais_bench", "datasets": "gsm8k", "max_out_len": 1},
        ),
        (
            {"type": "vllm_benchmark", "random_output_len": 5},
            {"type": "vllm_benchmark", "random_output_len": 1},
        ),
        (
            {"type": "vllm_benchmark", "dataset_name": "sharegpt"},
            {
                "type": "vllm_benchmark",
                "dataset_name": "sharegpt",
                "args": {"sharegpt-output-len": 1},
            },
        ),
        ({"workload": {"type": "text", "path": "/x"}}, None),
        ({"type": "vllm_benchmark", "dataset_name": "hf"}, None),
        ({"type": "another"}, None),
    ],
)
def test_a_benchmark_with_answers_of_one_token(
    block: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    assert one_token(block) == expected


def test_an_instance_alone_is_measured_at_a_concurrency() -> None:
    assert alone_load(FixedLoad(type="fixed", concurrency=4, request_rate=2)) == FixedLoad(
        type="fixed", concurrency=4
    )
    assert isinstance(alone_load(CalibratedLoad(type="calibrated")), OperatingPoint)
    by_rate = OperatingPoint(by="request_rate", low=0.5, high=8.5, concurrency=64, probes=3)
    found = alone_load(by_rate)
    assert found == OperatingPoint(high=64, probes=3)
    assert alone_load(OperatingPoint(high=9)) == OperatingPoint(high=9)


def test_identities_know_what_decides_numbers_and_nothing_else(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")

    def identity(kind: str = "candidate", **changes: Any) -> Any:
        return trial(model=str(tmp_path), **changes).identity(kind)

    assert identity(interface="eth0") == identity()
    assert identity(timeouts={"answer": 5}) == identity()
    assert identity(router={"type": "builtin", "policy": "round_robin"}) != identity()
    assert identity(transfer={"type": "nixl"}) != identity()
    assert identity("prefill", transfer={"type": "nixl"}) == identity("prefill")
    assert identity("prefill") != identity("decode") != identity()
    labels = {"prefill": {**ROLES["prefill"], "labels": {}}}
    assert identity(roles=labels) == identity()
    assert identity(roles={}) != identity()
    assert identity(shapes={**SHAPES, "tp1": {"devices": 2}}) != identity()


def test_a_search_is_told_which_shapes_cannot_go_together() -> None:
    shapes = {
        "tp2": {"devices": 2, "args": {"tensor-parallel-size": 2}},
        "tp3": {"devices": 3, "args": {"tensor-parallel-size": 3}, "roles": ["decode", "mixed"]},
    }
    told = trial(shapes=shapes, transfer={"type": "nixl"}).search_options()
    (misfit,) = told["misfits"]
    assert (misfit["prefill"], misfit["decode"]) == ("tp2", "tp3")
    assert "one must be a multiple of the other" in misfit["why"]
    assert set(told["shapes"]) == {"tp2", "tp3"}
    router = {"type": "vllm_ascend", "script": "/opt/load_balance_proxy_server_example.py"}
    mixed = trial(shapes=shapes, transfer={"type": "nixl"}, router=router).search_options()
    assert [one.get("mixed") for one in mixed["misfits"]] == [None, "tp2", "tp3"]


@pytest.mark.parametrize(
    "block",
    [
        {"transfer": {"type": "nosuch"}},
        {"transfer": {"type": "nixl", "buffer": 1}},
        {"engine": {"type": "vllm", "args": 5}},
        {
            "engine": {
                "type": "simulated",
                "of": {"type": "vllm", "args": 5},
                "latency": {"type": "x"},
            }
        },
        {"engine": {"type": "simulated", "of": "vllm"}},
        {"router": {"type": "builtin", "policy": "loud"}},
    ],
)
def test_a_faulty_block_is_not_a_misfit(block: dict[str, Any]) -> None:
    assert trial(**block).search_options()["misfits"] == []


def test_the_search_takes_what_the_trial_tells() -> None:
    shapes = {
        name: {"devices": size, "args": {"tensor-parallel-size": size}} for name, size in SIZES
    }
    told = trial(shapes=shapes, transfer={"type": "nixl"}).search_options()
    strategy = make_strategy("pd_split", {"devices": 8, **told}, space=None, seed=0)
    left_out = strategy.account()["left_out"]
    assert set(left_out) == {"two prefill with three decode", "three prefill with two decode"}
