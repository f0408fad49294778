"""The simulator plays just what the benchmarks would send."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_qwen3 import write_tiny_qwen3
from tests.trainables.serving.simulated import write_config
from trainables import StageError
from trainables.benchmarks import Load, make_benchmark
from trainables.benchmarks._builtin_options import BuiltinOptions
from trainables.benchmarks._builtin_run import due_times
from trainables.benchmarks._workload import make_workload
from trainables.benchmarks._workload_vocabulary import vocabulary_of
from trainables.serving._simulated_load import Play, play
from trainables.simulation import Request

VLLM = Path(__file__).parents[3] / ".tools" / "vllm" / "bin" / "python"
UNIFORM = {"type": "uniform", "low": 4, "high": 90}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a byte-level tokenizer in ``vocab.json``, and a configuration."""
    return write_tiny_qwen3(tmp_path_factory.mktemp("model") / "tiny", hidden=64, head_dim=16)


def played(block: dict[str, Any], load: Load, model: Path, seed: int = 3) -> Play:
    return play(make_benchmark(block), load, seed, model)


def lengths(requests: Sequence[Request]) -> list[tuple[int, int]]:
    return [(one.input_tokens, one.output_tokens) for one in requests]


def trace(folder: Path) -> Path:
    rows = [
        {"timestamp": 0, "input_length": 1200, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 500, "input_length": 1200, "output_length": 6, "hash_ids": [1, 2, 4]},
        {"timestamp": 900, "input_length": 300, "output_length": 7, "hash_ids": [9]},
    ]
    file = folder / "trace.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.mark.parametrize(
    "workload",
    [
        {"type": "random", "input_tokens": UNIFORM, "output_tokens": UNIFORM},
        {"type": "random", "input_tokens": UNIFORM, "prefix_tokens": 50, "prefixes": 3},
        {"type": "random", "input_tokens": {"type": "lognormal", "median": 40, "sigma": 1.0}},
        {"type": "trace"},
        {"type": "sharegpt"},
        {"type": "text"},
    ],
    ids=lambda workload: "-".join(map(str, workload)),
)
@pytest.mark.parametrize(
    "load", [Load(40, 8), Load(40, None, 5.0), Load(40, 8, 5.0), Load(40)], ids=str
)
def test_the_builtin_benchmark_would_send_the_same(
    workload: dict[str, Any], load: Load, model: Path, tmp_path: Path
) -> None:
    if workload["type"] == "trace":
        workload = workload | {"path": str(trace(tmp_path))}
    if workload["type"] in ("sharegpt", "text"):
        rows = [{"prompt": "word " * (n + 4), "output_tokens": n + 5} for n in range(30)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        workload = workload | {"path": str(tmp_path / "rows.jsonl")}
    block = {"type": "builtin", "workload": workload, "arrivals": "poisson", "burstiness": 0.5}
    options = BuiltinOptions.model_validate(block)
    asks = make_workload(options.workload).asks(40, 3, vocabulary_of(model))
    found = played(block, load, model).load
    assert lengths(found.requests) == [(one.input_tokens, one.output_tokens) for one in asks]
    due = due_times(asks, options, load, 3)
    assert [one.arrival for one in found.requests] == (due or [None] * len(asks))
    assert found.concurrency == load.concurrency


def test_prompts_share_what_their_texts_would_share(model: Path, tmp_path: Path) -> None:
    workload = {"type": "random", "input_tokens": 200, "prefix_tokens": 64, "prefixes": 2}
    found = played({"type": "builtin", "workload": workload}, Load(20), model).load.requests
    assert {one.prefix_block for one in found} == {64}
    assert {len(one.prefix) for one in found} == {1}
    assert len({one.prefix for one in found}) == 2
    block = {"type": "builtin", "workload": {"type": "trace", "path": str(trace(tmp_path))}}
    first, second, third = played(block, Load(3), model).load.requests
    assert first.prefix_block == 512
    assert first.prefix[:2] == second.prefix[:2]
    assert first.prefix[2] != second.prefix[2]
    assert not set(third.prefix) & set(first.prefix)
    plain = {"type": "builtin", "workload": {"type": "random", "input_tokens": 200}}
    assert {one.prefix for one in played(plain, Load(5), model).load.requests} == {()}


def test_a_text_that_comes_again_is_the_same_prompt(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": text} for text in ("one one one", "two two")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    workload = {"type": "text", "path": str(tmp_path / "rows.jsonl"), "shuffle": False}
    found = played({"type": "builtin", "workload": workload}, Load(4), model).load.requests
    assert found[0].prefix == found[2].prefix != found[1].prefix == found[3].prefix


def test_lengths_of_texts_are_estimates_where_there_is_no_tokenizer(tmp_path: Path) -> None:
    bare = write_config(tmp_path / "bare")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "x" * 400}))
    texts = {"type": "text", "path": str(tmp_path / "rows.jsonl")}
    found = played({"type": "builtin", "workload": texts}, Load(1), bare)
    assert found.load.requests[0].input_tokens == 100
    assert "estimated" in found.notes[0]
    random = {"type": "builtin", "workload": {"type": "random", "input_tokens": 10}}
    assert played(random, Load(1), bare).notes == ()


def test_texts_that_the_benchmark_cannot_count_are_said_to_differ(
    model: Path, tmp_path: Path
) -> None:
    workload = {"type": "random", "input_tokens": 40, "output_tokens": 4}
    block = {"type": "builtin", "workload": workload}
    (said,) = played(block, Load(4), model).notes
    assert "real prompts may have other lengths" in said
    alone = write_config(tmp_path / "configuration alone")
    exact = {"type": "builtin", "workload": workload | {"form": "token_ids"}}
    assert not played(block, Load(4), alone).notes
    assert not played(exact, Load(4), model).notes


def test_what_ends_answers_early_is_said(model: Path) -> None:
    block = {"type": "builtin", "ignore_eos": False}
    assert "ignore_eos" in played(block, Load(1), model).notes[-1]


def test_ais_bench_sends_its_workload_at_its_times(model: Path, tmp_path: Path) -> None:
    workload = {"type": "random", "input_tokens": UNIFORM, "output_tokens": 9}
    block = {"type": "ais_bench", "workload": workload}
    builtin = played({"type": "builtin", "workload": workload}, Load(30, None, 4.0), model).load
    found = played(block, Load(30, None, 4.0), model).load
    assert found.requests == builtin.requests
    limited = played(block, Load(30, 5, 4.0), model)
    assert limited.load.requests == builtin.requests
    assert "without a seed" in limited.notes[-1]
    file = tmp_path / "custom.jsonl"
    file.write_text("\n".join(json.dumps({"question": "word " * n}) for n in range(1, 4)))
    custom = {"type": "ais_bench", "custom_dataset_path": str(file), "max_out_len": 11}
    found = played(custom, Load(50), model).load
    assert [one.output_tokens for one in found.requests] == [11, 11, 11]


def test_vllm_bench_lasts_as_long_as_its_rate_says(model: Path) -> None:
    block = {"type": "vllm_benchmark", "dataset_name": "random", "args": {"burstiness": 0.5}}
    found = played(block, Load(50, None, 10.0), model).load.requests
    arrivals = [one.arrival or 0.0 for one in found]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(5.0)
    assert lengths(found) == [(1024, 128)] * 50
    repeated = {
        "type": "vllm_benchmark",
        "dataset_name": "prefix_repetition",
        "args": {"prefix-repetition-num-prefixes": 5, "prefix-repetition-prefix-len": 64},
    }
    found = played(repeated, Load(22), model).load.requests
    assert len(found) == 20
    assert len({one.prefix for one in found}) == 5
    assert lengths(found) == [(320, 128)] * 20


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "vllm_benchmark", "dataset_name": "sonnet"}, "dataset sonnet"),
        ({"type": "vllm_benchmark", "dataset_name": "hf"}, "dataset hf"),
        ({"type": "ais_bench", "datasets": "gsm8k"}, "dataset gsm8k"),
        (
            {"type": "builtin", "workload": {"type": "text", "path": "/no/such/file"}},
            "No such file",
        ),
    ],
)
def test_what_cannot_be_known_is_no_guess(block: dict[str, Any], said: str, model: Path) -> None:
    with pytest.raises(StageError, match=said):
        played(block, Load(3), model)


THEIRS = """
import json, sys, random
import numpy as np
from vllm.benchmarks.datasets.utils import get_sampling_params
class Tokenizer:
    vocab_size = 1000
    def num_special_tokens_to_add(self): return 0
inputs, outputs, _ = get_sampling_params(np.random.default_rng(3), 40, 0.5, 100, 30, Tokenizer())
import asyncio
from vllm.benchmarks import serve
times = []
class Clock:
    @staticmethod
    def time(): return 0.0
async def sleep(seconds): times.append(seconds)
serve.time = Clock
serve.asyncio = type("A", (), {"sleep": staticmethod(sleep)})
random.seed(3); np.random.seed(3)
async def collect():
    async for _ in serve.get_request(list(range(40)), 5.0, 0.7): pass
asyncio.run(collect())
print(json.dumps([inputs.tolist(), outputs.tolist(), times]))
"""


@pytest.mark.engine
@pytest.mark.skipif(not VLLM.exists(), reason="no vLLM; see make tools")
def test_vllm_bench_itself_draws_the_same(model: Path) -> None:
    said = subprocess.run([VLLM, "-c", THEIRS], capture_output=True, text=True, check=True)
    inputs, outputs, times = json.loads(said.stdout.splitlines()[-1])
    block = {
        "type": "vllm_benchmark",
        "random_input_len": 100,
        "random_output_len": 30,
        "random_range_ratio": 0.5,
        "args": {"burstiness": 0.7},
    }
    found = played(block, Load(40, None, 5.0), model).load.requests
    assert lengths(found) == list(zip(inputs, outputs, strict=True))
    assert [one.arrival for one in found] == pytest.approx(times)
