"""Latency composed from operator tables: every answer below can be added up by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.latency.operator_tables import (
    DENSE,
    LLAMA,
    MLP,
    QWEN_MOE,
    TOKENS,
    attention_us,
    dense_us,
    model,
    rows_us,
    write_degree,
    write_lines,
    write_skew,
    write_table,
)
from trainables.latency._model import LatencyError
from trainables.latency._operators_attention import as_one_chunk
from trainables.latency._operators_moe import distinct_experts
from trainables.simulation import Batch, Chunk


def test_a_decode_iteration_is_the_sum_of_its_operators(folder: Path) -> None:
    batch = Batch((), 20, 20 * 700, 700, 700)
    expected = dense_us(20) + rows_us(20) + 10 * attention_us(0, 0, 20, 700)
    assert model(folder).seconds(batch) == pytest.approx(expected * 1e-6, rel=1e-9)


@pytest.mark.parametrize("chunk", [Chunk(1), Chunk(16), Chunk(100, 3000), Chunk(3000, 9000)])
@pytest.mark.parametrize("decodes", [0, 1, 3, 50])
def test_a_mixed_iteration_is_found_between_and_beyond_the_grid(
    folder: Path, chunk: Chunk, decodes: int
) -> None:
    context = 5000 * bool(decodes)
    batch = Batch((chunk,), decodes, decodes * context, context, context)
    tokens = chunk.tokens + decodes
    sequences = 1 + decodes
    least = max(chunk.tokens, 16) if not decodes else chunk.tokens
    attention = attention_us(least, chunk.context, decodes, context)
    expected = dense_us(tokens) + rows_us(sequences) + 10 * attention
    assert model(folder).seconds(batch) == pytest.approx(expected * 1e-6, rel=1e-9)


def test_prompts_in_one_batch_attend_only_to_themselves(folder: Path) -> None:
    chunks = (Chunk(300), Chunk(400), Chunk(500))
    tokens, context = as_one_chunk(chunks)
    assert context == 0
    assert tokens**2 == pytest.approx(300**2 + 400**2 + 500**2)
    tokens, context = as_one_chunk((Chunk(100, 4000), Chunk(50, 1000)))
    assert tokens == 150
    assert tokens * (context + tokens / 2) == pytest.approx(100 * 4050 + 50 * 1025)
    together = model(folder).seconds(Batch(chunks))
    assert together < model(folder).seconds(Batch((Chunk(1200),)))
    assert together > model(folder).seconds(Batch((Chunk(500),)))


def test_a_batch_is_padded_to_the_next_captured_graph_but_not_its_attention(folder: Path) -> None:
    captured = model(folder, eager=False)
    expected = dense_us(40) + rows_us(33) + 10 * attention_us(0, 0, 33, 100)
    got = captured.seconds(Batch((), 33, 3300, 100, 100))
    assert got == pytest.approx(expected * 1e-6, rel=1e-9)
    given = model(folder, eager=False, graph_sizes=(1, 50))
    expected = dense_us(50) + rows_us(33) + 10 * attention_us(0, 0, 33, 100)
    got = given.seconds(Batch((), 33, 3300, 100, 100))
    assert got == pytest.approx(expected * 1e-6, rel=1e-9)
    largest = Batch((Chunk(1000),))
    assert captured.seconds(largest) == model(folder).seconds(largest)


def test_decode_iterations_at_once_are_those_one_by_one(folder: Path) -> None:
    write_skew(folder)
    latency = model(folder, eager=False)
    batch = Batch((), 33, 33 * 900, 1020, 3)
    one_by_one = [latency.seconds(batch.after(step)) for step in range(2000)]
    np.testing.assert_allclose(latency.decode_seconds(batch, 2000), one_by_one, rtol=1e-12)


def test_operators_run_where_the_model_has_them(folder: Path) -> None:
    """Four norms in a block of Gemma 2, and a count that is given wins."""
    batch = Batch((), 8, 80, 10, 10)
    norm = 2.0 + 0.02 * 8
    more = model(folder, {**LLAMA, "model_type": "gemma2"}).seconds(batch)
    assert more - model(folder).seconds(batch) == pytest.approx(20 * norm * 1e-6)
    none = model(folder, options={"runs": {"layernorm": 0}}).seconds(batch)
    assert model(folder).seconds(batch) - none == pytest.approx(20 * norm * 1e-6)


def test_runs_of_an_operator_that_the_tables_do_not_have_are_refused(folder: Path) -> None:
    with pytest.raises(LatencyError, match=r"names layer_norm, .* they have embedding, layernorm"):
        model(folder, options={"runs": {"layer_norm": 3}})


def test_a_kernel_gap_is_added_for_each_kernel(folder: Path) -> None:
    batch = Batch((), 8, 80, 10, 10)
    slower = model(folder, options={"kernel_gap_us": 1.5}).seconds(batch)
    kernels = 2 + 20 + 6 * 10 + 10
    assert slower - model(folder).seconds(batch) == pytest.approx(1.5 * kernels * 1e-6)


def test_matrix_products_take_whole_tiles(folder: Path) -> None:
    """257 tokens take as long as 320, not a sixteenth more than 256."""
    tiled = {
        name: [(name, x, b * math.ceil(x / 64) * 64) for x in range(16, 513, 16)]
        for name, (_, b) in DENSE.items()
    }
    rows = [row for points in tiled.values() for row in points]
    write_table(folder / "tp1" / "dense.csv", "layer,tokens,time_us", list(rows))
    latency = model(folder)
    attention = [10 * attention_us(tokens, 0, 0, 0) * 1e-6 for tokens in (256, 257, 320)]
    at_256, at_257, at_320 = (
        latency.seconds(Batch((Chunk(tokens),))) - part
        for tokens, part in zip((256, 257, 320), attention, strict=True)
    )
    assert at_257 == pytest.approx(at_320)
    assert at_257 > at_256 * 1.05


@pytest.mark.parametrize(
    ("batch", "alpha"),
    [
        (Batch((), 32, 32 * 100, 1000, 10), 0.5),
        (Batch((), 33, 33 * 800, 1000, 10), 0.25),
        (Batch((), 129, 129 * 3800, 4000, 10), 0.0),
        (Batch((), 64, 64 * 800, 1000, 10), 0.25),
        (Batch((), 96, 96 * 800, 1000, 10), 0.25 + 0.5 * math.log2(1.5)),
        (Batch((), 32, 32 * 800, 1000, 10), 0.125),
        (Batch((), 4, 4 * 800, 800, 800), 0.0),
        (Batch((Chunk(300, 500),), 10, 10 * 800, 1000, 10), 1.0),
        (Batch((Chunk(2000, 500),), 10, 10 * 800, 1000, 10), 1.0),
        (Batch((Chunk(300, 5000),), 10, 10 * 800, 1000, 10), 0.125),
    ],
)
def test_unequal_contexts_cost_what_their_bucket_says(
    folder: Path, batch: Batch, alpha: float
) -> None:
    plain = model(folder).seconds(batch)
    write_skew(folder)
    mean = batch.context / batch.decodes
    gap = 2e-3 * batch.decodes * (batch.context_max - mean) * 10 * 1e-6
    assert model(folder).seconds(batch) - plain == pytest.approx(alpha * gap, abs=1e-12)
    assert model(folder, options={"skew": False}).seconds(batch) == plain


MOE_LAW = (40.0, 0.2, 6.0)


def moe_us(tokens: float, experts: float) -> float:
    base, per_token, per_expert = MOE_LAW
    return base + per_token * tokens + per_expert * experts


@pytest.fixture
def experts(folder: Path) -> Path:
    """Blocks of experts in place of the MLP, each number of tokens with what it can reach."""
    dense = {name: law for name, law in DENSE.items() if name not in MLP}
    write_lines(folder / "tp1" / "dense.csv", "tokens", dense)
    rows = [
        (tokens, count, moe_us(tokens, count))
        for tokens in TOKENS
        for count in (2, 4, 8, 16)
        if count <= 2 * tokens
    ]
    write_table(folder / "tp1" / "moe.csv", "tokens,activated_experts,time_us", list(rows))
    return folder


def test_a_block_of_experts_takes_the_place_of_the_mlp(experts: Path) -> None:
    for tokens in (3, 100, 1500):
        batch = Batch((Chunk(tokens),))
        reached = distinct_experts(tokens, 2, 16)
        expected = dense_us(tokens, lambda name: 0.0 if name in MLP else 10.0) + rows_us(1)
        expected += 10 * (attention_us(max(tokens, 16), 0, 0, 0) + moe_us(tokens, reached))
        got = model(experts, QWEN_MOE).seconds(batch)
        assert got == pytest.approx(expected * 1e-6, rel=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_share_the_experts_work(experts: Path, ranks: int) -> None:
    """Whether they share the experts or slice each: one in two tokens, one in two experts."""
    write_degree(experts, 2, lambda name: name not in MLP)
    options = {"interconnect": {"gb_per_s": 1e9, "latency_us": 0}}
    batch = Batch((Chunk(512),))
    alone = model(experts, QWEN_MOE, options=options).seconds(batch)
    shared = model(
        experts, QWEN_MOE, options=options, tensor_parallel=2, expert_parallel=ranks
    ).seconds(batch)
    saved = 10 * (moe_us(512, 16) - moe_us(256, 8))
    assert alone - shared == pytest.approx(saved * 1e-6, rel=1e-4)


def test_dense_blocks_of_a_mixture_of_experts_have_their_mlp(experts: Path) -> None:
    write_lines(experts / "tp1" / "dense.csv", "tokens", DENSE)
    config = {**QWEN_MOE, "first_k_dense_replace": 3}
    batch = Batch((Chunk(64),))
    mlp = sum(a + b * 64 for a, b in (DENSE[name] for name in MLP))
    moe = moe_us(64, distinct_experts(64, 2, 16))
    all_experts = model(experts, QWEN_MOE).seconds(batch)
    some = model(experts, config).seconds(batch)
    assert some - all_experts == pytest.approx(3 * (mlp - moe) * 1e-6)
