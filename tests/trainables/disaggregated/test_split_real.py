"""A split of real vLLM engines on a CPU: the KV caches really move."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_qwen3 import write_tiny_qwen3

TOOL = Path(__file__).parents[3] / ".tools" / "vllm" / "bin" / "python"
Carried = Callable[..., dict[str, Any]]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not TOOL.exists(), reason="no vLLM; see make tools"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def options(tmp_path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The same block for real engines of a tiny model."""
    return {
        **options,
        "model": str(write_tiny_qwen3(tmp_path / "qwen3")),
        "engine": {
            "type": "vllm",
            "command": [str(TOOL)],
            "startup_timeout": 300,
            "args": {
                "max-model-len": 512,
                "block-size": 32,
                "enforce-eager": True,
                "distributed-executor-backend": "uni",
                "kv-cache-memory-bytes": "16M",
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
            "requests": 24,
            "warm_ups": 2,
            "workload": {"type": "random", "input_tokens": 96, "output_tokens": 16},
        },
    }


def test_kv_caches_move_from_prefill_to_decode(carry_out: Carried) -> None:
    report = carry_out(
        {"prefill_instances": 1, "decode_instances": 1, "prefill.max-num-seqs": 4}, seen=print
    )
    assert report["status"] == "measured", report
    measurement = report["measurement"]
    assert measurement.metrics["success_rate"] == 1.0
    assert measurement.data["transferred_tokens"]["decode-1"] > 0
    assert measurement.environment["vllm"]
    prefill, decode = (
        (report["folder"] / name / "engine.log").read_text() for name in ("prefill-1", "decode-1")
    )
    assert "'max_num_seqs': 4" in prefill
    assert "'max_num_seqs': 4" not in decode
    print(json.dumps(dict(measurement.metrics), indent=1), measurement.stages)


def test_one_instance_of_each_role_is_rated_alone(carry_out: Carried) -> None:
    prefill = carry_out({}, kind="prefill")
    decode = carry_out({}, kind="decode")
    for report in (prefill, decode):
        assert report["status"] == "measured", report.get("failure")
    rated = prefill["measurement"].metrics
    assert rated["output_tokens"] == rated["requests"] == 24
    assert rated["concurrency"] == 4
    assert "tpot_mean_s" not in rated
    found = decode["measurement"]
    assert found.data["transferred_tokens"]["decode-1"] > 0
    assert found.metrics["tpot_mean_s"] > 0
    print(json.dumps(dict(rated)), json.dumps(dict(found.metrics)))
