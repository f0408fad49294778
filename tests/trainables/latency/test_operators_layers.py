"""How often operators run, read from their names and a model's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from trainables.latency._operators_layers import model_blocks, runs_per_iteration
from trainables.latency._operators_moe import distinct_experts

QWEN_MOE: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 10,
    "hidden_size": 1000,
    "num_attention_heads": 8,
    "vocab_size": 5000,
    "num_experts": 16,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("embed_tokens", 1),
        ("wte", 1),
        ("rotary_embedding", 10),
        ("rotary_emb", 10),
        ("input_layernorm", 10),
        ("post_attention_layernorm", 10),
        ("rms_norm", 20),
        ("final_layernorm", 1),
        ("norm", 1),
        ("qk_norm", 10),
        ("q_norm", 10),
        ("kv_b_proj", 10),
        ("gate_proj", 3),
        ("gate_up_proj", 3),
        ("act_fn", 3),
        ("mlp", 3),
        ("gate", 7),
        ("router", 7),
        ("moe", 0),
        ("shared_expert_gate_up_proj", 7),
        ("shared_experts", 7),
        ("lm_head", 1),
    ],
)
def test_runs_of_an_operator_by_its_name(name: str, runs: int) -> None:
    """In a model of 10 blocks, 7 with experts, whose times are in a table of their own."""
    blocks = model_blocks({**QWEN_MOE, "first_k_dense_replace": 3})
    assert runs_per_iteration([name], blocks, moe_table=True, given={}) == {name: runs}


def test_a_norm_beside_the_last_one_is_of_the_blocks() -> None:
    found = runs_per_iteration(
        ["norm", "final_norm", "experts"], model_blocks(QWEN_MOE), moe_table=False, given={}
    )
    assert found == {"norm": 20, "final_norm": 1, "experts": 10}


@pytest.mark.parametrize(
    ("more", "blocks"),
    [
        ({}, 10),
        ({"decoder_sparse_step": 2}, 5),
        ({"mlp_only_layers": [0, 9]}, 8),
        ({"first_k_dense_replace": 1}, 9),
        ({"num_experts": 1}, 0),
    ],
)
def test_blocks_with_experts(more: Mapping[str, Any], blocks: int) -> None:
    assert model_blocks({**QWEN_MOE, **more}).expert_blocks == blocks
    assert model_blocks({"text_config": {**QWEN_MOE, **more}}).expert_blocks == blocks


def test_distinct_experts_of_few_and_many_tokens() -> None:
    assert distinct_experts(1, 8, 128) == pytest.approx(8)
    assert distinct_experts(2, 8, 128) == pytest.approx(15.5)
    assert distinct_experts(4096, 8, 128) == pytest.approx(128)
    draws = np.random.default_rng(0)
    routed = [
        len({int(one) for _ in range(20) for one in draws.choice(64, 4, replace=False)})
        for _ in range(2000)
    ]
    assert distinct_experts(20, 4, 64) == pytest.approx(np.mean(routed), rel=0.01)
