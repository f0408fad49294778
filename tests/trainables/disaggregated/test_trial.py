"""A split from the start of its engines to its measurement, with real processes on one node."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes
from trainables import Measurement, TrialRun, TrialSpec
from trainables.benchmarks import METRICS
from trainables.disaggregated._fleet import Fleet
from trainables.disaggregated._options import DisaggregatedOptions
from trainables.disaggregated._plan import plan
from trainables.disaggregated._transfer_vllm import ExampleTransfer

Carried = Callable[..., dict[str, Any]]
LONG = {
    "type": "builtin",
    "requests": 4000,
    "warm_ups": 0,
    "workload": {"type": "random", "input_tokens": 8, "output_tokens": 100},
}


def measured(report: dict[str, Any]) -> Measurement:
    assert report["status"] == "measured", report
    found: Measurement = report["measurement"]
    return found


def failed(report: dict[str, Any]) -> dict[str, str]:
    assert report["status"] == "failed", report
    assert report["measurement"] is None
    found: dict[str, str] = report["failure"]
    return found


def test_a_split_is_measured_once_its_kv_caches_have_moved(carry_out: Carried) -> None:
    stages: list[str] = []
    report = carry_out(
        {"prefill_instances": 1, "decode_instances": 2},
        seen=lambda one: stages.append(one["stage"]),
    )
    found = measured(report)
    assert list(dict.fromkeys(stages)) == ["deploy", "health", "transfer", "benchmark-1"]
    assert [stage["name"] for stage in found.stages] == list(dict.fromkeys(stages))
    assert found.metrics["success_rate"] == 1
    assert found.metrics["devices"] == 3
    assert found.metrics["startup_s"] > 0
    assert set(found.metrics) <= METRICS | {"startup_s", "devices"}
    assert min(found.data["transferred_tokens"].values()) > 0
    assert set(found.data["instances"]) == {"prefill-1", "decode-1", "decode-2"}
    for name in found.data["instances"]:
        assert (report["folder"] / name / "engine.log").is_file()
    assert (report["folder"] / "router.log").is_file()
    assert not (report["folder"] / "transfer").exists()


@pytest.mark.slow
def test_the_load_is_searched_through_the_router(carry_out: Carried) -> None:
    report = carry_out(
        {"prefill_instances": 1, "decode_instances": 1, "decode.STUB_SLOTS": 4},
        limits=[{"metric": "ttft_mean_s", "max": 0.2}],
        load={"type": "operating_point", "high": 16, "precision": 0.4},
    )
    found = measured(report)
    assert found.metrics["ttft_mean_s"] <= 0.2
    assert len(found.data["runs"]) > 1


def test_mixed_instances_share_the_load_without_a_transfer(carry_out: Carried) -> None:
    found = measured(carry_out({"mixed_instances": 2}))
    assert found.metrics["success_rate"] == 1
    assert "transferred_tokens" not in found.data
    assert "transfer" not in [stage["name"] for stage in found.stages]


def test_a_prefill_instance_alone_answers_with_one_token(carry_out: Carried) -> None:
    limits = [{"metric": "ttft_mean_s", "max": 5}, {"metric": "tpot_mean_s", "max": 0.0001}]
    load = {"type": "operating_point", "high": 4}
    found = measured(carry_out({}, kind="prefill", limits=limits, load=load))
    assert "stopped" not in found.data
    assert found.metrics["output_tokens"] == found.metrics["requests"]
    assert found.metrics["concurrency"] == 4
    assert {"ttft_mean_s", "requests_per_s"} <= set(found.metrics)
    assert set(found.data["instances"]) == {"prefill-1"}


def test_a_decode_instance_alone_gets_its_caches_for_nothing(carry_out: Carried) -> None:
    found = measured(carry_out({}, kind="decode"))
    assert found.data["transferred_tokens"]["decode-1"] > 0
    assert "dummy values" in found.data["note"]
    assert {"tpot_mean_s", "concurrency", "requests_per_s"} <= set(found.metrics)


def test_an_instance_that_does_not_start_fails_the_trial_and_ends_the_others(
    carry_out: Carried, run_id: str
) -> None:
    parameters = {
        "prefill_instances": 1,
        "decode_instances": 1,
        "decode.STUB_DIE_AT_START": "torch.OutOfMemoryError: NPU out of memory",
    }
    failure = failed(carry_out(parameters))
    assert (failure["class"], failure["instance"]) == ("out_of_memory", "decode-1")
    assert failure["node"] == "127.0.0.1"
    assert failure["message"].startswith("decode-1 on node-2: ")
    assert "NPU out of memory" in failure["excerpt"]
    assert not find_processes(run_id)


@pytest.mark.parametrize("victim", ["prefill", "decode"])
def test_an_instance_that_dies_under_load_fails_the_trial(
    carry_out: Carried, tmp_path: Path, run_id: str, victim: str
) -> None:
    file = tmp_path / "die"

    def kill(report: dict[str, Any]) -> None:
        if report["stage"].startswith("benchmark") and not file.exists():
            file.with_suffix(".new").write_text("RuntimeError: HCCL timeout")
            file.with_suffix(".new").rename(file)

    parameters = {
        "prefill_instances": 1,
        "decode_instances": 1,
        f"{victim}.STUB_DIE_FILE": str(file),
    }
    failure = failed(carry_out(parameters, seen=kill, benchmark=LONG))
    assert (failure["class"], failure["instance"]) == ("device", f"{victim}-1")
    assert failure["stage"] == "benchmark-1"
    assert "HCCL timeout" in failure["message"]
    assert not find_processes(run_id)


def test_a_router_that_dies_fails_the_trial(carry_out: Carried, tmp_path: Path) -> None:
    script = tmp_path / "router.sh"
    script.write_text("#!/bin/sh\necho 'RuntimeError: no route' >&2\nexit 3\n")
    script.chmod(0o755)
    router = {"type": "command", "command": [str(script)]}
    failure = failed(carry_out({"prefill_instances": 1, "decode_instances": 1}, router=router))
    assert "the router" in failure["message"]
    assert "no route" in failure["message"]
    assert "instance" not in failure


@pytest.mark.parametrize("split", [{"prefill_instances": 1}, {"mixed_instances": 1}])
def test_nothing_listens_where_a_transport_takes_ports_at_random(
    carry_out: Carried, monkeypatch: pytest.MonkeyPatch, split: dict[str, int]
) -> None:
    monkeypatch.setattr(ExampleTransfer, "reserved", range(20000, 64000))
    report = carry_out(split)
    measured(report)
    logs = [*report["folder"].glob("*/engine.log"), report["folder"] / "router.log"]
    ports = [int(re.findall(r"--port (\d+)", log.read_text())[0]) for log in logs]
    assert len(ports) == len(split) + 1 + ("prefill_instances" in split)
    assert min(ports) >= 64000


def test_a_split_that_moves_no_cache_is_no_measurement(carry_out: Carried) -> None:
    connector = {"kv_connector": "MultiConnector"}
    transfer = {
        "type": "custom",
        "prefill": {**connector, "kv_role": "kv_producer"},
        "decode": {**connector, "kv_role": "kv_consumer"},
    }
    failure = failed(carry_out({"prefill_instances": 1, "decode_instances": 1}, transfer=transfer))
    assert failure["stage"] == "transfer"
    assert "decode-1 answered" in failure["message"]
    assert "without a KV cache" in failure["message"]


@pytest.mark.slow
def test_an_engine_that_counts_nothing_is_measured_and_that_is_said(
    carry_out: Carried, options: dict[str, Any]
) -> None:
    engine = {**options["engine"], "entrypoint": "openai_engine"}
    found = measured(carry_out({"prefill_instances": 1, "decode_instances": 1}, engine=engine))
    assert "KV transfer not proven: decode-1: /metrics answers 404" in found.data["note"]
    assert "transferred_tokens" not in found.data


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"prefill_instances": 1, "decode_instances": 0}, "needs a mixed one"),
        ({"prefill_shape": "two"}, "'two' is no shape"),
    ],
)
def test_parameters_that_are_no_split_start_nothing(
    carry_out: Carried, parameters: dict[str, Any], said: str
) -> None:
    report = carry_out(parameters)
    failure = failed(report)
    assert failure["class"] == "input"
    assert said in failure["message"]
    assert not list(report["folder"].glob("*/engine.log"))


class Silent:
    """A member whose process does not come up."""

    name, address = "node-1", "127.0.0.1"

    def ask(self, method: str, /, *arguments: Any) -> Silent:
        return self

    def call(self, method: str, /, *arguments: Any, timeout: float) -> Any:
        raise AssertionError

    def wait(self, seconds: float) -> bool:
        assert seconds <= 1, "nobody waits that long for it"
        return False

    def get(self) -> Any:
        raise AssertionError


def test_nobody_waits_for_a_member_that_never_said_a_word(
    options: dict[str, Any], tmp_path: Path
) -> None:
    spec = TrialSpec("run", "identity", str(tmp_path), "disaggregated", "candidate", {}, 0, {})
    split = plan(DisaggregatedOptions(**options), {"mixed_instances": 1})
    with Fleet(TrialRun(spec, [Silent()]), split, silence_s=60) as fleet:
        starts = fleet.start(options["model"], lambda instance, there, head: instance)
        assert "waiting for node-1" in next(starts).note
        assert "waiting for node-1" in next(starts).note


def test_a_trial_that_is_cancelled_leaves_nothing(carry_out: Carried, run_id: str) -> None:
    report = carry_out({"prefill_instances": 1, "decode_instances": 1}, cancel_at="benchmark")
    assert report["status"] == "cancelled"
    assert not find_processes(run_id)
