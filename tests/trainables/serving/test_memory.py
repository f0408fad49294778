"""KV-cache arithmetic against models and numbers that are known."""

from __future__ import annotations

import pytest

from trainables._sizes import size
from trainables.serving._memory import MemoryPlan, ModelShape, kv_bytes_per_token, room
from trainables.serving._vllm_memory import vllm_plan

LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 8192,
}
QWEN3_32B = {
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 5120,
    "max_position_embeddings": 40960,
    "sliding_window": None,
    "use_sliding_window": False,
}
DEEPSEEK = {
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 4096,
}
GIB = 2**30


def shape(config: dict[str, object], billions: float = 8) -> ModelShape:
    found = ModelShape.of(config, int(billions * 1e9), int(billions * 2e9))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("config", "parallel", "bytes_per_token"),
    [
        (LLAMA_8B, 1, 131072),  # 128 KiB, as every sizing guide has it
        (LLAMA_8B, 4, 32768),
        (LLAMA_8B, 16, 16384),  # eight KV heads are not shared out over sixteen ranks
        (QWEN3_32B, 1, 262144),
        (DEEPSEEK, 8, 70272),  # 61 layers of 576 elements of two bytes, on every rank
    ],
)
def test_bytes_of_a_token(config: dict[str, object], parallel: int, bytes_per_token: int) -> None:
    plan = MemoryPlan(tensor_parallel=parallel)
    assert kv_bytes_per_token(shape(config), plan) == bytes_per_token


def test_an_8b_model_has_room_on_64_gib_and_none_on_16() -> None:
    big = room(shape(LLAMA_8B), MemoryPlan(device_bytes=64 * GIB))
    small = room(shape(LLAMA_8B), MemoryPlan(device_bytes=16 * GIB))
    assert big is not None
    assert small is not None
    assert big.enough
    assert big.tokens == pytest.approx((64 * GIB * 0.9 - 16e9) / 131072, rel=0.001)
    assert not small.enough


def test_a_shorter_context_makes_room() -> None:
    plan = MemoryPlan(device_bytes=int(17.5 * GIB))
    tight = room(shape(LLAMA_8B), plan)
    assert tight is not None
    assert not tight.enough
    shorter = room(shape(LLAMA_8B), MemoryPlan(device_bytes=plan.device_bytes, longest=2048))
    assert shorter is not None
    assert shorter.enough


def test_a_cache_given_in_bytes_needs_no_device() -> None:
    found = room(shape(LLAMA_8B), MemoryPlan(kv_bytes=131072 * 1000, block_size=128))
    assert found is not None
    assert (found.tokens, found.needed) == (896, 8192)


@pytest.mark.parametrize(
    "config",
    [
        LLAMA_8B | {"sliding_window": 4096},
        LLAMA_8B | {"layer_types": ["full_attention", "linear_attention"]},
        LLAMA_8B | {"mamba_d_state": 128},
        {"hidden_size": 4096},
    ],
)
def test_a_model_that_keeps_something_else_is_not_judged(config: dict[str, object]) -> None:
    assert ModelShape.of(config, 1, 1) is None


def test_without_a_size_nothing_is_claimed() -> None:
    assert room(shape(LLAMA_8B), MemoryPlan()) is None


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("16M", 16 << 20), ("16m", 16_000_000), ("1.5Gi", 3 << 29), ("64GiB", 64 << 30), ("7", 7)],
)
def test_sizes_as_vllm_reads_them(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


def test_a_command_line_is_understood_as_vllm_does() -> None:
    line = "vllm serve M --max-model-len 4k -tp 2 --block_size=32 --kv-cache-memory-bytes 1G"
    plan = vllm_plan(line.split(), {"torch_dtype": "bfloat16"}, None)
    assert plan == MemoryPlan(
        kv_bytes=1 << 30,
        utilization=0.92,
        tensor_parallel=2,
        element_bytes=2,
        block_size=32,
        longest=4000,
    )


@pytest.mark.parametrize(
    "line", ["--num-gpu-blocks-override 10", "--max-model-len many", "--tensor-parallel-size x"]
)
def test_what_cannot_be_understood_is_not_judged(line: str) -> None:
    assert vllm_plan(["vllm", "serve", "M", *line.split()], {}, None) is None
