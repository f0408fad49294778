"""The built-in benchmark and ``vllm bench serve`` beside what vLLM itself says of its requests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cluster import sweep
from tests.tiny_qwen3 import write_tiny_qwen3
from trainables import TrialRun
from trainables.benchmarks import Load, Target, make_benchmark
from trainables.engines import make_engine, start_service
from trainables.engines.testing import drive, trial_in

TOOL = Path(__file__).parents[3] / ".tools" / "vllm" / "bin"
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
ENGINE = {
    "type": "vllm",
    "command": [str(TOOL / "python")],
    "startup_timeout": 300,
    "env_vars": ENVIRONMENT,
    "args": {
        "max-model-len": 512,
        "enforce-eager": True,
        "distributed-executor-backend": "uni",
        "kv-cache-memory-bytes": "64M",
        "enable-prefix-caching": False,
    },
}
REQUESTS, CONCURRENCY, INPUT, OUTPUT, ROUNDS = 160, 8, 64, 32, 2
MEANS = {
    "ttft": "vllm:time_to_first_token_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
    "e2el": "vllm:e2e_request_latency_seconds",
}
"""Latency to the histogram in which vLLM keeps it itself."""
SOONEST_S = 0.001
"""What a client may seem to see before the engine had it, for the resolution of their clocks."""

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not (TOOL / "vllm").exists(), reason="no vLLM; see make tools"),
    pytest.mark.timeout(1200),
]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    model = write_tiny_qwen3(tmp_path / "tiny")
    run = trial_in(tmp_path / "engine", f"beside-{uuid.uuid4().hex}")
    try:
        with drive(start_service(run, make_engine(ENGINE), model=model), within_s=330) as service:
            yield Target(service.base_url, service.served_name, model)
    finally:
        sweep(run.spec.run_id, grace_s=5)


def own_sums(target: Target) -> dict[str, float]:
    """Sum and number of the observations of vLLM's own histograms."""
    text = httpx.get(f"{target.base_url}/metrics", trust_env=False).text
    found = re.findall(r"^(\S+?_(?:sum|count))\{.*\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def ours(target: Target, trial: TrialRun, number: int) -> dict[str, float]:
    workload = {
        "type": "random",
        "input_tokens": INPUT,
        "output_tokens": OUTPUT,
        "form": "token_ids",
    }
    block = {"type": "builtin", "workload": workload, "requests": REQUESTS, "warm_ups": 0}
    load = Load(concurrency=CONCURRENCY)
    steps = make_benchmark(block).run(
        trial, target, load, stage=f"b-{number}", seed=number, timeout=300
    )
    found = drive(steps, within_s=300)
    assert found.data["tokens_counted_by"] == "usage"
    print("client", found.data["client"]["busy"])
    return dict(found.metrics)


def theirs(target: Target, folder: Path, number: int) -> dict[str, float]:
    host, port = target.base_url.removeprefix("http://").split(":")
    subprocess.run(
        [
            *(str(TOOL / "vllm"), "bench", "serve", "--backend", "vllm"),
            *("--host", host, "--port", port, "--endpoint", "/v1/completions"),
            *("--model", target.served_name, "--tokenizer", str(target.model)),
            *("--dataset-name", "random", "--random-input-len", str(INPUT)),
            *("--random-output-len", str(OUTPUT), "--num-prompts", str(REQUESTS)),
            *("--max-concurrency", str(CONCURRENCY), "--seed", str(number)),
            *("--ignore-eos", "--temperature", "0"),
            *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"),
            *("--save-result", "--result-dir", str(folder)),
            *("--result-filename", f"{number}.json"),
        ],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        check=True,
        timeout=300,
    )
    document = json.loads((folder / f"{number}.json").read_text())
    assert document["total_output_tokens"] == REQUESTS * OUTPUT
    means = {f"{name}_mean_s": document[f"mean_{name}_ms"] / 1000 for name in MEANS}
    medians = {f"{name}_p50_s": document[f"p50_{name}_ms"] / 1000 for name in (*MEANS, "itl")}
    return {**means, **medians, "output_tokens_per_s": document["output_throughput"]}


def test_a_client_sees_all_tokens_and_none_before_the_engine_had_it(
    target: Target, trial: TrialRun, tmp_path: Path
) -> None:
    clients: dict[str, Callable[[int], dict[str, float]]] = {
        "ours": lambda number: ours(target, trial, number),
        "theirs": lambda number: theirs(target, tmp_path, number),
    }
    for number in range(ROUNDS):
        for name, client in clients.items():
            before = own_sums(target)
            found = client(number)
            after = own_sums(target)
            for latency, histogram in MEANS.items():
                gained = {
                    end: after[f"{histogram}_{end}"] - before[f"{histogram}_{end}"]
                    for end in ("sum", "count")
                }
                own = gained["sum"] / gained["count"]
                seen = found[f"{latency}_mean_s"]
                print(f"{name:8}{latency} {own:.5f} + {seen - own:.5f} ({gained['count']:g})")
                if name == "ours" and latency != "tpot":
                    assert gained["count"] == REQUESTS
                    assert seen >= own - SOONEST_S
            if name == "ours":
                assert found["output_tokens"] == REQUESTS * OUTPUT
                assert found["success_rate"] == 1
