"""``tune`` carried out: our own quantizer, stubs for the engine and for AISBench."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endtoend.adder import write_data
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.compat.tune import plan_text
from tests.tuner.runs import (
    assert_nothing_left,
    assert_nothing_measured_twice,
    ledger,
    run_id,
)

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
STUBS = Path(__file__).parents[2] / "stubs"


def write_plan(folder: Path, target: int) -> Path:
    """The shape of the example, for a dataset of sums, candidates named."""
    plan = yaml.safe_load(plan_text("binary_fallback"))
    strategy, evaluation = plan["strategy"], plan["evaluation"]
    strategy["rollback_candidates"] = ["*model.layers.0.*", "*model.layers.1.*"]
    spec = strategy["template"]["spec"]
    spec["process"] = spec["process"][1:]
    spec["save"] = [{"type": "compressed_tensors"}]
    strategy["rollback_path"] = "spec.process.0.exclude"
    demand = {"dataset": "addition", "target": target, "tolerance": 1}
    evaluation["demand"]["expectations"] = [demand]
    evaluation["evaluation"]["datasets"] = {"addition": {"config_name": "addition_gen"}}
    engine = evaluation["inference_engine"]
    engine |= {"entrypoint": "openai_engine", "env_vars": {"PYTHONPATH": str(STUBS)}, "args": {}}
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(plan))
    return file


def start(folder: Path, plan: Path) -> subprocess.Popen[str]:
    _, configs = write_data(folder / "data", 10)
    command = [
        *(sys.executable, "-m", "tuner", "tune", "--json", "--device", "cpu"),
        *("--model_path", str(folder / "model"), "--save_path", str(folder / "save")),
        *("--config", str(plan), "--vllm", sys.executable, "--msmodelslim", sys.executable),
        *("--ais_bench", f"{sys.executable} {STUBS / 'ais_bench.py'}"),
        *("--set", "trial.quantizer={type: torch_reference}"),
        *("--set", f"trial.evaluation.settings.config_dir={configs}"),
        *("--set", "cluster.dashboard=false"),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def tune(folder: Path, plan: Path) -> tuple[int, dict[str, Any]]:
    process = start(folder, plan)
    output, _ = process.communicate(timeout=600)
    return process.returncode, json.loads(output.splitlines()[-1])


def test_the_same_call_goes_on_where_an_interrupted_one_stopped(tmp_path: Path) -> None:
    write_tiny_qwen3(tmp_path / "model")
    run = tmp_path / "save" / "tuner"
    plan = write_plan(tmp_path, target=200)
    process = start(tmp_path, plan)
    deadline = time.monotonic() + 600
    while not ledger(run):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=240)
    assert process.returncode == 130
    before = run_id(run)

    code, result = tune(tmp_path, plan)
    assert (code, result["verdict"]) == (3, "exhausted")
    assert run_id(run) == before
    assert len(ledger(run)) == 3
    assert_nothing_measured_twice(run)

    code, result = tune(tmp_path, write_plan(tmp_path, target=90))
    assert (code, result["verdict"]) == (0, "satisfied")
    assert run_id(run) != before
    assert result["reused"] >= 1
    assert (tmp_path / "save" / "quant_model" / "config.json").is_file()
    assert_nothing_left(run)
