"""Whole runs over a stub of vLLM whose search a simulator guides."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import Run, assert_nothing_measured_twice, ledger, run
from tuner._status import describe_status, read_status

pytestmark = pytest.mark.ray

STUB = Path(__file__).parents[1] / "stubs" / "openai_engine.py"
SPEED = "output_tokens_per_s"


def write(folder: Path) -> Path:
    """An engine that is faster the more sequences it may serve, and a simulator of it."""
    model = write_tiny_qwen3(folder / "model", hidden=64, head_dim=16)
    (model / "stub.json").write_text(json.dumps({"ttft": 0.02, "tpot": 0.002}))
    program = folder / "vllm"
    stub = f'exec {sys.executable} {STUB} "$@"'
    program.write_text(f"#!/bin/sh\nexport STUB_SLOTS=$MAX_NUM_SEQS\n{stub}\n")
    program.chmod(0o755)
    document: dict[str, Any] = {
        "name": "guided",
        "trial": {
            "type": "serving",
            "model": str(model),
            "engine": {
                "type": "vllm",
                "command": [str(program)],
                "args": {"max-num-seqs": "$MAX_NUM_SEQS", "max-model-len": 512},
            },
            "positions": {"MAX_NUM_SEQS": "env", "idle": "none"},
            "baseline": None,
            "benchmark": {
                "type": "builtin",
                "requests": 32,
                "workload": {"type": "random", "input_tokens": 16, "output_tokens": 4},
            },
            "load": {"type": "fixed", "concurrency": 16},
        },
        "search": {
            "type": "auto",
            "trials": 4,
            "space": {
                "MAX_NUM_SEQS": {"type": "enum", "values": [1, 2, 4, 8, 16]},
                "idle": {"type": "bool"},
            },
            "prior": {
                "simulator": {
                    "latency": {"type": "analytic", "device": "ascend-910b"},
                    "device_memory": "64GiB",
                    "trials": 10,
                }
            },
        },
        "objective": {"maximize": SPEED},
        "cluster": {"dashboard": False, "resources": {"CPU": 0.5}},
        "budget": {"concurrent": 1},
        "storage": str(folder),
    }
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_simulator_guides_a_real_search_and_is_held_against_it(tmp_path: Path) -> None:
    first = Run("run", write(tmp_path), storage=tmp_path, name="guided")
    first.until(lambda one: one.measured())
    first.signal(signal.SIGINT)
    assert first.wait() == 130, first.said()
    assert "simulated 10 points" in first.said()
    played = (first.folder / "prior.jsonl").read_text()
    assert "the simulator" in describe_status(read_status(first.folder))

    again = run("resume", first.folder, storage=tmp_path)
    assert again.process.returncode == 0, again.said()
    assert (first.folder / "prior.jsonl").read_text() == played
    assert_nothing_measured_twice(first.folder)
    items = ledger(first.folder)
    assert all(item["data"].get("real_evaluation", True) for item in items)
    tried = [item["parameters"]["MAX_NUM_SEQS"] for item in items if item["kind"] == "candidate"]
    assert tried[0] == 16
    status = read_status(first.folder)
    assert status["prior"]["points"] == 4
    assert status["prior"]["error"] > 0
    assert 0 <= status["prior"]["weight"] <= 1
    note = next(note for note in status["result"]["notes"] if "simulator was" in note)
    assert "median of 4 points" in note
    assert note in describe_status(status)
    assert note in " ".join(again.stdout.split())
