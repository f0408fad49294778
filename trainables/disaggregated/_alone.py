"""One instance measured alone: what differs from a whole split. Pure.

A prefill instance answers with one token, so that its latency is its TTFT. A decode instance gets
its KV cache filled with dummy values by vLLM's ``DecodeBenchConnector`` instead of computing the
prompt: with vLLM 0.32 on a CPU all but the last token of each prompt come from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL
from trainables.disaggregated._plan import Instance
from trainables.serving._goal import Goal
from trainables.serving._load import CalibratedLoad, FixedLoad, Load, OperatingPoint

DUMMY = "DecodeBenchConnector"
_LATENCIES: dict[str, tuple[str, ...]] = {PREFILL: ("ttft_",), DECODE: ("tpot_", "itl_")}
_ANSWER_OF: dict[str, str] = {
    "random": "output_tokens",
    "sharegpt": "output_tokens",
    "trace": "max_output_tokens",
}
"""The option of a workload that decides the tokens of all its answers."""


def one_token(block: Mapping[str, Json]) -> dict[str, Json] | None:
    """A benchmark's block with answers of one token; None where it cannot be said."""
    sort = block.get("type", "builtin")
    if sort == "vllm_benchmark":
        return _one_token_of_vllm(block)
    own = block.get("datasets") or block.get("custom_dataset_path")
    if sort == "ais_bench" and own:
        return {**block, "max_out_len": 1}
    if sort not in ("builtin", "ais_bench"):
        return None
    workload = dict(block.get("workload") or {})
    option = _ANSWER_OF.get(workload.get("type", "random"))
    return None if option is None else {**block, "workload": {**workload, option: 1}}


def _one_token_of_vllm(block: Mapping[str, Json]) -> dict[str, Json] | None:
    dataset = block.get("dataset_name", "random")
    if dataset == "random":
        return {**block, "random_output_len": 1}
    if dataset in ("sharegpt", "custom"):
        args = dict(block.get("args") or {})
        return {**block, "args": {**args, f"{dataset}-output-len": 1}}
    return None


def alone_goal(goal: Goal, role: str) -> Goal:
    """The limits that one role is answerable for, and the throughput that its rate is."""
    own = (*_LATENCIES[role], "success_rate")
    limits = tuple(limit for limit in goal.limits if limit.metric.startswith(own))
    return Goal("requests_per_s" if role == PREFILL else goal.throughput, limits)


def alone_load(load: Load) -> Load:
    """A load with a concurrency, which rates of instances are computed from."""
    if isinstance(load, OperatingPoint) and load.by == "concurrency":
        return load
    if isinstance(load, FixedLoad | CalibratedLoad):
        if load.concurrency is None:
            return OperatingPoint()
        return FixedLoad(type="fixed", concurrency=load.concurrency, requests=load.requests)
    return OperatingPoint(
        high=load.concurrency or OperatingPoint().high,
        precision=load.precision,
        probes=load.probes,
        probe_requests=load.probe_requests,
        full_runs=load.full_runs,
    )


def with_dummies(instance: Instance) -> Instance:
    """A decode instance whose KV cache is filled without a prefill."""
    connector = {"kv_connector": DUMMY, "kv_role": "kv_both"}
    return replace(instance, args={**instance.args, "kv-transfer-config": connector})
