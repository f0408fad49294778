"""``vllm bench serve`` and AISBench, both real, beside the built-in client, on one real vLLM."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, sweep
from tests.tiny_qwen3 import write_tiny_qwen3
from trainables.benchmarks import (
    BenchmarkResult,
    Load,
    Target,
    make_benchmark,
    read_ais_bench_performance,
    read_vllm_bench_json,
)
from trainables.engines import make_engine, start_service
from trainables.engines.testing import drive, trial_in

TOOLS = Path(__file__).parents[3] / ".tools"
VLLM, AIS_BENCH = TOOLS / "vllm" / "bin", TOOLS / "aisbench" / "bin" / "ais_bench"
ENGINE = {
    "type": "vllm",
    "command": [str(VLLM / "python")],
    "startup_timeout": 300,
    "env_vars": {
        "VLLM_ENABLE_V1_MULTIPROCESSING": 0,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": 1,
        "HF_HUB_OFFLINE": 1,
    },
    "args": {
        "max-model-len": 512,
        "enforce-eager": True,
        "distributed-executor-backend": "uni",
        "kv-cache-memory-bytes": "64M",
        # So that each client's requests meet a cache as cold as those of the others.
        "no-enable-prefix-caching": True,
    },
}
INPUT, OUTPUT = 64, 24
WORKLOAD = {"type": "random", "input_tokens": INPUT, "output_tokens": OUTPUT}
BLOCKS: dict[str, dict[str, Any]] = {
    "builtin": {"type": "builtin", "workload": WORKLOAD},
    "vllm_benchmark": {
        "type": "vllm_benchmark",
        "command": [str(VLLM / "vllm")],
        "random_input_len": INPUT,
        "random_output_len": OUTPUT,
        "num_warmups": 2,
        "save_detailed": True,
    },
    "ais_bench": {"type": "ais_bench", "command": [str(AIS_BENCH)], "workload": WORKLOAD},
}
LOAD = Load(requests=48, concurrency=8)
Measure = Callable[..., BenchmarkResult]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not ((VLLM / "vllm").exists() and AIS_BENCH.exists()), reason="see make tools"
    ),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measure]:
    """Measure the one engine; the stage has the name of the block."""
    folder = tmp_path_factory.mktemp("real")
    model = write_tiny_qwen3(folder / "tiny")
    run_id = f"test-{uuid.uuid4().hex}"
    engine = trial_in(folder / "engine", run_id)
    service = drive(start_service(engine, make_engine(ENGINE), model=model), within_s=330)
    target = Target(service.base_url, service.served_name, model)

    def carry_out(block: dict[str, Any], load: Load = LOAD, seed: int = 1) -> BenchmarkResult:
        benchmark = make_benchmark(block)
        assert benchmark.problems() == []
        trial = trial_in(folder / uuid.uuid4().hex, run_id)
        steps = benchmark.run(trial, target, load, stage="bench", seed=seed, timeout=300)
        return drive(service.watch(steps), within_s=340)

    with service:
        yield carry_out
    left = find_processes(run_id)
    sweep(run_id, grace_s=0)
    assert not left


def test_each_of_three_clients_is_consistent_about_one_engine(measure: Measure) -> None:
    found = {name: measure(block) for name, block in BLOCKS.items()}
    shown = ("output_tokens_per_s", "ttft_mean_s", "tpot_mean_s", "itl_mean_s", "e2el_mean_s")
    for name, result in found.items():
        numbers = "  ".join(f"{one} {result.metrics[one]:.4g}" for one in shown)
        print(f"{name:15} {numbers}  whole stage {result.seconds:.1f} s")
    for result in found.values():
        metrics = result.metrics
        assert (metrics["requests"], metrics["success_rate"]) == (LOAD.requests, 1)
        assert metrics["output_tokens"] == LOAD.requests * OUTPUT
        assert metrics["mean_concurrency"] <= LOAD.concurrency + 0.1
        decoding = (metrics["e2el_mean_s"] - metrics["ttft_mean_s"]) / (OUTPUT - 1)
        assert decoding == pytest.approx(metrics["tpot_mean_s"], rel=0.05, abs=1e-4)
        little = metrics["mean_concurrency"] * metrics["duration_s"] / LOAD.requests
        assert little == pytest.approx(metrics["e2el_mean_s"], rel=0.02)


@pytest.mark.parametrize("name", ["vllm_benchmark", "ais_bench"])
def test_results_that_a_tool_left_are_read_as_they_were_reported(
    name: str, measure: Measure
) -> None:
    found = measure(BLOCKS[name], Load(requests=12, concurrency=4))
    if name == "vllm_benchmark":
        again = read_vllm_bench_json(found.artifacts["result"])
    else:
        again = read_ais_bench_performance(Path(found.artifacts["performance"]).parents[2])
    assert again == found.metrics
    assert found.metrics["ttft_p95_s"] > 0


def test_equal_seeds_ask_the_same_of_the_real_vllm_bench(measure: Measure) -> None:
    block = {**BLOCKS["vllm_benchmark"], "random_range_ratio": 0.5}
    lengths = []
    for seed in (1, 1, 2):
        found = measure(block, Load(requests=12, concurrency=4), seed)
        document = json.loads(Path(found.artifacts["result"]).read_text())
        lengths.append((document["input_lens"], document["output_lens"]))
    assert lengths[0] == lengths[1] != lengths[2]


@pytest.mark.parametrize(
    ("keys", "load"),
    [
        ({"workload": {**WORKLOAD, "output_tokens": 4}}, Load(requests=12, request_rate=10)),
        (
            {
                "models": "vllm_api_stream_chat",
                "max_out_len": 8,
                "datasets": "synthetic_gen_tokenid",
            },
            Load(requests=6, request_rate=20, concurrency=4),
        ),
    ],
)
def test_what_the_real_aisbench_takes(keys: dict[str, Any], load: Load, measure: Measure) -> None:
    block = {key: value for key, value in BLOCKS["ais_bench"].items() if key != "workload"}
    metrics = measure({**block, **keys}, load).metrics
    assert (metrics["requests"], metrics["success_rate"]) == (load.requests, 1)
    assert ("concurrency" in metrics) == (load.concurrency is not None)
    assert load.request_rate is not None
    if load.concurrency is None:  # with a concurrency AISBench draws the arrivals itself, unseeded
        assert metrics["duration_s"] > 0.8 * (metrics["requests"] - 1) / load.request_rate
