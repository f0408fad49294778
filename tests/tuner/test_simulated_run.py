"""Whole runs whose engine is simulated."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.tuner.optimizer import COLUMNS, World
from tests.tuner.runs import Run, assert_nothing_left, assert_nothing_measured_twice, ledger
from tuner.cli._options import configs

pytestmark = pytest.mark.ray

ANALYTIC = "trial.engine.latency={type: analytic, device: ascend-910b}"
NO_NPU_HERE = "cluster={address: local, dashboard: false, resources: {CPU: 1, NPU: 4}}"
SMALL = {"n_particles": 2, "iters": 2, "num_prompts": 24, "sample_size": 16}


def test_the_simulation_mode_searches_without_engine_tool_or_device(tmp_path: Path) -> None:
    world = World(tmp_path).with_vllm(**SMALL)
    for program in (world.vllm, world.ais_bench):
        program.write_text("#!/bin/sh\nexit 1\n")
    world.environment |= {
        "MODEL_EVAL_STATE_SIMULATE": "True",
        "MODEL_EVAL_STATE_IS_SLEEP_FLAG": "True",
    }
    run = world.run(settings=(ANALYTIC,))
    assert run.process.returncode == 0, run.said()
    assert "nothing sleeps, time is virtual" in run.said()
    result = run.result()
    assert result["verdict"] == "satisfied"
    assert "all numbers are simulated" in " ".join(result["notes"])
    items = ledger(run.folder)
    assert {item["kind"] for item in items} >= {"baseline", "candidate"}
    assert {item["data"]["real_evaluation"] for item in items} == {False}
    assert all(item["metrics"]["startup_s"] == 0 for item in items)
    assert not any("not simulated" in item["data"]["note"] for item in items)
    tuned = [item for item in items if item["kind"] == "candidate"]
    assert all(
        item["data"]["simulation"]["settings"]["max_num_seqs"] == item["parameters"]["MAX_NUM_SEQS"]
        for item in tuned
    )
    table = world.table()
    assert table.columns[:5] == COLUMNS
    rows = table.of("candidate")
    assert {row["real_evaluation"] for row in table.rows} == {"False"}
    assert all(float(row["generate_speed"]) > 0 for row in rows if not row["stopped_reason"])
    delivered = Path(result["delivered"])
    assert os.access(delivered / "serve.sh", os.X_OK)
    assert (delivered / "serve.sh").read_text().splitlines()[1].startswith("# Chosen by simulation")
    point = json.loads((delivered / "operating_point.json").read_text())
    assert "simulated" in point
    assert "measured" not in point
    assert_nothing_measured_twice(run.folder)
    assert_nothing_left(run.folder)


@pytest.mark.slow
def test_the_shipped_search_for_a_split_needs_no_npu_and_delivers_what_to_start(
    tmp_path: Path,
) -> None:
    run = Run(
        *("run", configs() / "pd-simulated.yaml", "--json", "--set", f"storage={tmp_path}"),
        *("--set", "trial.benchmark.requests=60", "--set", "search.mixed=false"),
        *("--set", NO_NPU_HERE),
        storage=tmp_path,
        name="pd-simulated",
        cwd=configs().parent,
    )
    assert run.wait() == 0, run.said()
    assert run.result()["verdict"] == "satisfied"
    items = ledger(run.folder)
    assert {item["kind"] for item in items} == {"prefill", "decode", "candidate", "verification"}
    assert {item["data"]["real_evaluation"] for item in items} == {False}
    best = json.loads((run.folder / "best" / "parameters.json").read_text())
    decode = (run.folder / "best" / "decode-1.sh").read_text()
    assert decode.splitlines()[1].startswith("# Chosen by simulation")
    assert "MooncakeConnectorV1" in decode
    assert best["prefill_instances"] >= 1
    assert_nothing_measured_twice(run.folder)
    assert_nothing_left(run.folder)
