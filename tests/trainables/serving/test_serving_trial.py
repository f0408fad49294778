"""A serving trial from its engine's start to its measurement, with real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_qwen3 import write_tiny_qwen3
from trainables import Measurement
from trainables.benchmarks import METRICS

CHIP = """
| 0     910B4               | OK            | 88.9        39                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          28   / 64            |
"""
TTFT = {"metric": "ttft_mean_s", "max": 0.18}
Carried = Callable[..., dict[str, Any]]


def measured(report: dict[str, Any]) -> Measurement:
    assert report["status"] == "measured", report
    found: Measurement = report["measurement"]
    return found


def test_the_load_is_raised_until_the_slo_would_break(carry_out: Carried) -> None:
    few = measured(carry_out({"STUB_SLOTS": 2}, limits=[TTFT]))
    many = measured(carry_out({"STUB_SLOTS": 8}, limits=[TTFT]))
    assert few.metrics["ttft_mean_s"] <= 0.18
    assert many.metrics["ttft_mean_s"] <= 0.18
    assert many.metrics["concurrency"] > few.metrics["concurrency"] >= 2
    assert many.metrics["output_tokens_per_s"] > few.metrics["output_tokens_per_s"]
    runs = few.data["runs"]
    assert [run["full"] for run in runs].count(True) >= 1
    assert len({run["stage"] for run in runs}) == len(runs)
    assert few.metrics["startup_s"] > 0
    unknown = set(few.metrics) - METRICS - {"startup_s"}
    assert not unknown


def test_an_engine_that_breaks_the_slo_at_the_lowest_load_is_given_up(carry_out: Carried) -> None:
    limit = {"metric": "ttft_mean_s", "max": 0.001}
    found = measured(carry_out({"STUB_SLOTS": 4}, limits=[limit]))
    assert found.data["stopped"]["by"] == "slo"
    assert "at the lowest load (1)" in found.data["stopped"]["reason"]
    assert not any(run["full"] for run in found.data["runs"])


def test_a_candidate_that_cannot_beat_the_best_known_has_no_full_run(carry_out: Carried) -> None:
    incumbent = {"metric": "output_tokens_per_s", "value": 5000.0}
    context = {"incumbent": incumbent}
    found = measured(carry_out({"STUB_SLOTS": 2}, limits=[TTFT], context=context))
    assert found.data["stopped"]["by"] == "incumbent"
    assert found.data["stopped"]["bound"] < 5000
    allowed = {"incumbent": False}
    found = measured(
        carry_out({"STUB_SLOTS": 2}, limits=[TTFT], context=context, early_rejection=allowed)
    )
    assert "stopped" not in found.data


def test_a_fixed_load_is_one_run_and_the_search_may_decide_it(carry_out: Carried) -> None:
    load = {"type": "fixed", "concurrency": 4}
    found = measured(carry_out({"STUB_SLOTS": 4}, load=load))
    assert found.metrics["concurrency"] == 4
    assert len(found.data["runs"]) == 1
    found = measured(carry_out({"STUB_SLOTS": 4, "CONCURRENCY": 2, "REQUESTRATE": 0}, load=load))
    assert found.metrics["concurrency"] == 2
    assert "request_rate" not in found.metrics


def test_a_calibrated_load_is_a_little_above_what_the_engine_completes(carry_out: Carried) -> None:
    load = {"type": "calibrated", "concurrency": 8}
    found = measured(carry_out({"STUB_SLOTS": 4}, load=load))
    first, second = found.data["runs"]
    assert first["request_rate"] is None
    assert second["request_rate"] == 1.05 * first["metrics"]["requests_per_s"]
    assert found.metrics["output_tokens_per_s"] == second["metrics"]["output_tokens_per_s"]


def test_a_run_that_breaks_its_slo_ends_before_all_requests_are_sent(carry_out: Carried) -> None:
    load = {"type": "fixed", "concurrency": 32}
    limit = {"metric": "ttft_p90_s", "max": 0.03}
    found = measured(carry_out({"STUB_SLOTS": 1}, limits=[limit], load=load))
    stopped = found.data["stopped"]
    assert (stopped["by"], stopped["metric"]) == ("windows", "ttft_p90_s")
    assert "given up (windows)" in found.data["note"]


def test_a_baseline_is_measured_to_its_end_and_several_times(carry_out: Carried) -> None:
    load = {"type": "fixed", "concurrency": 32}
    limit = {"metric": "ttft_p90_s", "max": 0.03}
    found = measured(carry_out({}, kind="baseline", limits=[limit], load=load, final_repeats=2))
    assert "stopped" not in found.data
    assert len(found.data["runs"]) == 2
    assert found.metrics["output_tokens_per_s_se"] >= 0


def test_an_engine_that_dies_under_load_is_a_failure_and_no_measurement(
    carry_out: Carried,
) -> None:
    report = carry_out(
        {"STUB_SLOTS": 4, "STUB_DIE_AFTER": 20},
        limits=[TTFT],
        positions={"STUB_SLOTS": "env", "STUB_DIE_AFTER": "env"},
    )
    assert report["status"] == "failed"
    assert report["measurement"] is None
    assert "engine" in report["failure"]["message"]


def test_memory_of_npus_is_asked_for_where_the_user_does_not_say_it(
    carry_out: Carried, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chip").write_text(CHIP)
    (program := tmp_path / "npu-smi").write_text(f"#!/bin/sh\ncat {tmp_path}/chip\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_tiny_qwen3(model := tmp_path / "qwen3")
    engine = options["engine"] | {"type": "vllm-ascend", "args": {"max-model-len": 10**7}}
    found = measured(carry_out({}, model=str(model), engine=engine))
    assert found.data["stopped"]["by"] == "kv_memory"
    cpu = engine | {"type": "vllm"}
    report = carry_out({}, model=str(model), engine=cpu, load={"type": "fixed", "concurrency": 1})
    assert "stopped" not in measured(report).data
