"""A serving search with the real vLLM on a CPU: what it finds and what it refuses to start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endtoend.adder import TOOLS
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import assert_nothing_left, assert_nothing_measured_twice, ledger

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

ENOUGH, TOO_LITTLE = "16M", "256K"


def experiment(folder: Path, **changes: Any) -> Path:
    """Few and many sequences at once, with a KV cache that suffices and one that cannot."""
    model = write_tiny_qwen3(folder / "tiny")
    document: dict[str, Any] = {
        "name": "demo",
        "trial": {
            "type": "serving",
            "model": str(model),
            "engine": {
                "type": "vllm",
                "command": [str(TOOLS / "vllm" / "bin" / "python")],
                "args": {
                    "max-model-len": 512,
                    "block-size": 32,
                    "enforce-eager": True,
                    "distributed-executor-backend": "uni",
                },
                "env_vars": {
                    "VLLM_ENABLE_V1_MULTIPROCESSING": 0,
                    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                    "OMP_NUM_THREADS": 1,
                    "HF_HUB_OFFLINE": 1,
                },
            },
            "benchmark": {
                "type": "builtin",
                "requests": 96,
                "workload": {"type": "random", "input_tokens": 48, "output_tokens": 24},
            },
            "load": {"type": "operating_point", "high": 16, "precision": 0.3, "probes": 4},
            "baseline": {"max-num-seqs": 1, "kv-cache-memory-bytes": ENOUGH},
        },
        "search": {
            "type": "grid",
            "space": {
                "max-num-seqs": {"type": "enum", "values": [1, 16]},
                "kv-cache-memory-bytes": {"type": "enum", "values": [ENOUGH, TOO_LITTLE]},
            },
        },
        "objective": {
            "maximize": "output_tokens_per_s",
            "limits": [
                {"metric": "tpot_mean_s", "max": 2.0},
                {"metric": "success_rate", "min": 1.0},
            ],
        },
        "cluster": {"dashboard": False, "resources": {"CPU": 1}},
        "budget": {"concurrent": 1},
        "storage": str(folder),
    }
    document["trial"] |= changes
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def run(file: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "run", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    print(done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_many_sequences_at_once_win_and_what_cannot_start_is_not_started(tmp_path: Path) -> None:
    result = run(experiment(tmp_path))
    folder = tmp_path / "demo"
    assert result["verdict"] == "satisfied"
    assert result["best"] == {"max-num-seqs": 16, "kv-cache-memory-bytes": ENOUGH}
    assert any("output_tokens_per_s" in note for note in result["notes"])

    rows = ledger(folder)
    refused = [row for row in rows if row["data"].get("real_evaluation") is False]
    assert len(refused) == 2
    assert {row["parameters"]["kv-cache-memory-bytes"] for row in refused} == {TOO_LITTLE}
    assert all(row["data"]["stopped"]["by"] == "kv_memory" for row in refused)
    folders = [folder / "trials" / row["identity"][:16] for row in refused]
    assert all(each.is_dir() and not (each / "engine.log").exists() for each in folders)

    script = (folder / "best" / "serve.sh").read_text()
    assert "--max-num-seqs 16" in script
    point = json.loads((folder / "best" / "operating_point.json").read_text())
    assert point["load"]["concurrency"] > 1
    assert_nothing_measured_twice(folder)
    assert_nothing_left(folder)


def test_vllm_itself_refuses_what_the_arithmetic_refuses(tmp_path: Path) -> None:
    file = experiment(tmp_path, baseline=None, early_rejection={"memory": False})
    result = run(file)
    assert result["failed"] == 2
    assert result["best"]["kv-cache-memory-bytes"] == ENOUGH
    assert_nothing_left(tmp_path / "demo")
