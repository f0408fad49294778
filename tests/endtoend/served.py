"""Serving experiments with the real vLLM on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.endtoend.adder import TOOLS
from tests.tiny_qwen3 import write_tiny_qwen3

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
