"""A roofline from a data sheet and a configuration."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables.latency import make_latency_model
from trainables.latency._analytic_model import peak, weight_bits
from trainables.latency._analytic_shapes import model_shapes
from trainables.latency._devices import Device, find_device, known_devices
from trainables.latency._model import LatencyError, Served
from trainables.simulation import Batch, Chunk, LatencyModel

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
QWEN3_30B_A3B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "vocab_size": 151936,
}
DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
MODELS = (LLAMA_8B, QWEN3_30B_A3B, DEEPSEEK_V3)
SIMPLE = {"tflops": {"bf16": 100}, "memory_gb_per_s": 1000, "memory_gb": 80, "kernel_us": 0}
EXACT = {**SIMPLE, "compute_efficiency": 1, "attention_efficiency": 1, "memory_efficiency": 1}


def model(config: dict[str, Any], options: dict[str, Any], **served: Any) -> LatencyModel:
    source = make_latency_model({"type": "analytic", **options})
    return source.model(Served(config, **{"eager": True, **served}))


@pytest.mark.parametrize(
    ("config", "billions"), [(LLAMA_8B, 7.5), (QWEN3_30B_A3B, 30.2), (DEEPSEEK_V3, 670.1)]
)
def test_shapes_count_a_models_published_parameters(
    config: dict[str, Any], billions: float
) -> None:
    """Without the input embedding."""
    assert model_shapes(config, 1).weights / 1e9 == pytest.approx(billions, rel=0.01)


def test_the_kv_cache_of_a_token_is_what_the_models_say() -> None:
    """128 KiB for Llama 3.1 8B; 70 KB for DeepSeek-V3, which its report states."""
    assert model_shapes(LLAMA_8B, 1).kv_values * 2 * 32 == 128 * 1024
    assert model_shapes(DEEPSEEK_V3, 1).kv_values * 2 * 61 == pytest.approx(70.3e3, rel=0.01)
    assert model_shapes(DEEPSEEK_V3, 8).kv_values == model_shapes(DEEPSEEK_V3, 1).kv_values
    assert model_shapes(LLAMA_8B, 2).kv_values * 2 == model_shapes(LLAMA_8B, 1).kv_values


def test_one_token_takes_the_time_to_read_the_weights() -> None:
    read = model_shapes(LLAMA_8B, 1).weights * 2 / 1000e9
    got = model(LLAMA_8B, EXACT).seconds(Batch((), 1, 1, 1, 1))
    assert got == pytest.approx(read, rel=0.01)


def test_a_long_prompt_takes_the_time_to_compute_it() -> None:
    shapes = model_shapes(LLAMA_8B, 1)
    body = shapes.weights - shapes.head_weights
    operations = 2 * 2048 * body + 32 * shapes.prefill_operations * 2048 * 1024
    got = model(LLAMA_8B, EXACT).seconds(Batch((Chunk(2048),)))
    assert got == pytest.approx(operations / 100e12, rel=0.1)


def test_few_tokens_read_few_experts() -> None:
    shapes = model_shapes(QWEN3_30B_A3B, 1)
    one = model(QWEN3_30B_A3B, EXACT).seconds(Batch((), 1, 1, 1, 1))
    many = model(QWEN3_30B_A3B, EXACT).seconds(Batch((), 128, 128, 1, 1))
    unread = 48 * (128 - 8) * shapes.expert_weights * 2 / 1000e9
    assert many - one == pytest.approx(unread, rel=0.05)


def test_smaller_weights_take_less_time() -> None:
    batch = Batch((), 1, 1, 1, 1)
    plain = model(LLAMA_8B, EXACT).seconds(batch)
    half = model(LLAMA_8B, EXACT, dtype="w8a8").seconds(batch)
    assert half == pytest.approx(plain / 2, rel=0.02)
    measured = model(LLAMA_8B, EXACT, weight_bytes=16_060_000_000).seconds(batch)
    assert measured == pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("bfloat16", 16), ("float16", 16), ("w8a8", 8), ("fp8", 8), ("w4a16", 4), ("float32", 32)],
)
def test_bits_of_a_weight(dtype: str, bits: int) -> None:
    assert weight_bits(dtype) == bits


def test_peak_is_of_the_type_or_of_the_next_one_there_is() -> None:
    card = known_devices()["ascend-310p"]
    assert peak(card, "w8a8") == 140e12
    assert peak(card, "bfloat16") == 70e12
    assert peak(card, "w8a16") == 70e12
    assert peak(known_devices()["h100"], "fp8") == 1979e12


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config["model_type"])
@pytest.mark.parametrize("name", sorted(known_devices()))
def test_every_device_and_model_gives_times(name: str, config: dict[str, Any]) -> None:
    latency = model(config, {"device": name}, tensor_parallel=8, eager=False)
    decode = Batch((), 32, 32 * 1000, 3000, 10)
    assert 0 < latency.seconds(decode) < latency.seconds(Batch((Chunk(2048),), 32, 32000, 3000, 10))
    assert latency.seconds(decode) < 10
    one_by_one = [latency.seconds(decode.after(step)) for step in range(50)]
    np.testing.assert_allclose(latency.decode_seconds(decode, 50), one_by_one, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 2000),
    st.integers(1, 10**5),
    st.integers(1, 10**4),
)
def test_more_work_never_takes_less(
    config: dict[str, Any], tokens: int, context: int, decodes: int, length: int, more: int
) -> None:
    latency = model(config, {"device": "ascend-910b"})

    def seconds(tokens: int, context: int, length: int) -> float:
        rest = (decodes, decodes * length, length, length) if decodes else ()
        return latency.seconds(Batch((Chunk(tokens, context),), *rest))

    base = seconds(tokens, context, length)
    assert 0 < base < math.inf
    assert seconds(tokens + more, context, length) >= base
    assert seconds(tokens, context + more, length) >= base
    assert seconds(tokens, context, length + more) >= base


def test_ranks_share_the_work_and_communicate() -> None:
    fast = {**EXACT, "link_gb_per_s": 1e9, "link_latency_us": 0}
    batch = Batch((Chunk(4096),))
    one, four = (model(LLAMA_8B, fast, tensor_parallel=ranks).seconds(batch) for ranks in (1, 4))
    assert four == pytest.approx(one / 4, rel=0.1)
    slow = {**EXACT, "link_gb_per_s": 10, "link_latency_us": 20}
    linked = model(LLAMA_8B, slow, tensor_parallel=4).seconds(batch)
    reduced = 65 * (20e-6 + 1.5 * 4096 * 4096 * 2 / 10e9)
    assert linked - four == pytest.approx(reduced, rel=0.01)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("RTXPRO6000", "rtx-pro-6000"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("Ascend910B4-1", "atlas-800-a2-280t"),
        ("Ascend910B4", "atlas-800-a2-280t-32g"),
        ("Ascend910B3", "atlas-800-a2-313t"),
        ("ascend-910b", "atlas-800-a2-313t"),
        ("Ascend910_9392", "atlas-800-a3-752t"),
        ("Ascend310P3", "ascend-310p"),
    ],
)
def test_devices_are_known_by_what_drivers_call_them(said: str, name: str) -> None:
    found = find_device(said)
    assert found is not None
    assert found.name == name


def test_no_device_is_guessed() -> None:
    assert find_device(None, "", "Radeon", "my-gpu-server") is None


def test_given_numbers_win_over_known_ones() -> None:
    source = make_latency_model({"type": "analytic", "device": "h100", "memory_gb": 94})
    assert source.memory_bytes() == 94e9
    other = make_latency_model({"type": "analytic", "device": "h100"})
    assert source.identity() != other.identity()
    assert isinstance(known_devices()["h100"], Device)


def test_an_unknown_device_is_a_problem_that_lists_the_known_ones() -> None:
    source = make_latency_model({"type": "analytic", "device": "tpu"})
    ((path, message),) = source.problems()
    assert path == "device"
    assert "atlas-800-a2-313t" in message
    with pytest.raises(LatencyError, match="tpu"):
        source.model(Served(LLAMA_8B))
    missing = make_latency_model({"type": "analytic", "memory_gb": 3}).problems()
    assert [path for path, _ in missing] == ["tflops", "memory_gb_per_s"]


def test_options_that_make_no_sense_are_refused() -> None:
    for wrong in ({"memory_gb": 0}, {"tflops": {"bf16": 0}}, {"tflops": {}}, {"tflop": {}}):
        with pytest.raises(ValidationError):
            make_latency_model({"type": "analytic", **SIMPLE, **wrong})


DATA = Path(os.environ.get("TUNER_DATA", Path(__file__).parents[4] / "shared" / "data"))
RECORDED = [
    ("rtx-4090", "RTX4090-Llama-3.1-8B", 1),
    ("rtx-pro-6000", "RTXPRO6000-Llama-3.1-8B", 1),
    ("rtx-pro-6000", "RTXPRO6000-Llama-3.1-8B", 2),
]


@pytest.mark.skipif(not (DATA / "vllm_profiles").is_dir(), reason=f"no recorded tables in {DATA}")
@pytest.mark.parametrize(("device", "folder", "ranks"), RECORDED)
def test_a_first_guess_is_near_what_recorded_tables_compose(
    device: str, folder: str, ranks: int
) -> None:
    """Median error: decodes alone within a tenth, with prompts within a quarter."""
    block = {"type": "operators", "path": str(DATA / "vllm_profiles" / folder / "ops")}
    served = Served(LLAMA_8B, tensor_parallel=ranks, max_num_seqs=128)
    composed = make_latency_model(block).model(served)
    guess = make_latency_model({"type": "analytic", "device": device}).model(served)
    random = np.random.default_rng(1)
    errors: dict[bool, list[float]] = {False: [], True: []}
    for number in range(200):
        count = int(random.integers(1, 128))
        contexts = random.integers(20, 4000, size=count)
        chunks = tuple(
            Chunk(int(random.integers(16, 1200)), int(random.choice([0, 512, 2048])))
            for _ in range(number % 3)
        )
        spread = int(contexts.sum()), int(contexts.max()), int(contexts.min())
        batch = Batch(chunks, count, *spread)
        errors[bool(chunks)].append(abs(guess.seconds(batch) / composed.seconds(batch) - 1))
    assert np.median(errors[False]) < 0.1
    assert np.median(errors[True]) < 0.25
