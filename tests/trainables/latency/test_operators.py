"""Latency composed from operator tables: every answer below can be added up by hand."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trainables.latency import make_latency_model
from trainables.latency._model import LatencyError, Served
from trainables.latency._operators_attention import as_one_chunk, work
from trainables.latency._operators_moe import distinct_experts
from trainables.simulation import Batch, Chunk, LatencyModel

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 10,
    "hidden_size": 1000,
    "num_attention_heads": 8,
    "vocab_size": 5000,
}
QWEN_MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 16, "num_experts_per_tok": 2}
DENSE = {
    "embedding": (3.0, 0.01),
    "layernorm": (2.0, 0.02),
    "qkv_proj": (30.0, 0.1),
    "rotary_emb": (1.0, 0.01),
    "o_proj": (20.0, 0.05),
    "gate_up_proj": (90.0, 0.3),
    "act_fn": (2.0, 0.03),
    "down_proj": (50.0, 0.2),
    "final_layernorm": (2.5, 0.02),
}
MLP = ("gate_up_proj", "act_fn", "down_proj")
ROWS = {"lm_head": (400.0, 0.5), "sampler": (20.0, 1.0)}
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
CHUNKS = (0, 16, 64, 256, 1024)
CONTEXTS = (0, 16, 256, 1024, 4096)
COUNTS = (0, 1, 2, 8, 32, 64)


def attention_us(chunk: float, before: float, decodes: float, context: float) -> float:
    return 5.0 + 1e-3 * work(chunk, before) + 2e-3 * decodes * (context + 10.0)


def possible(chunk: int, before: int, decodes: int, context: int) -> bool:
    """Shapes that a profiler measures: no context without those that have it, no empty batch, and
    not the largest batches together."""
    return (
        bool(chunk or decodes)
        and bool(chunk or not before)
        and bool(decodes) == bool(context)
        and not (chunk and decodes == 64)
    )


def write_table(path: Path, columns: str, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [columns, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_lines(path: Path, column: str, laws: Mapping[str, tuple[float, float]]) -> None:
    rows = [(name, x, a + b * x) for name, (a, b) in laws.items() for x in TOKENS]
    write_table(path, f"layer,{column},time_us", list(rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tables in which every operator takes a + b tokens."""
    tables = tmp_path / "ops"
    write_lines(tables / "tp1" / "dense.csv", "tokens", DENSE)
    write_lines(tables / "tp1" / "per_sequence.csv", "sequences", ROWS)
    points = [
        (c, b, n, k, attention_us(c, b, n, k))
        for c in CHUNKS
        for b in CONTEXTS
        for n in COUNTS
        for k in CONTEXTS
        if possible(c, b, n, k)
    ]
    columns = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    write_table(tables / "tp1" / "attention.csv", columns, list(points))
    return tables


def model(
    folder: Path, config: Mapping[str, Any] = LLAMA, *, options: Any = None, **served: Any
) -> LatencyModel:
    block = {"type": "operators", "path": str(folder), "kernel_gap_us": 0, **(options or {})}
    source = make_latency_model(block)
    return source.model(Served(config, **{"eager": True, **served}))


def dense_us(tokens: float, runs: Callable[[str], float] = lambda name: 10.0) -> float:
    once = {"embedding", "final_layernorm"}
    times = {"layernorm": 20.0}
    return sum(
        (1.0 if name in once else times.get(name, runs(name))) * (a + b * tokens)
        for name, (a, b) in DENSE.items()
    )


def rows_us(sequences: int) -> float:
    return sum(a + b * sequences for a, b in ROWS.values())


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


def write_skew(folder: Path) -> None:
    rows = [
        (0, "n<=32", "sr<=15%", "kvB<=1k", "kp=0", 0.5, 4),
        (0, "n<=64", "sr>70%", "kvB<=1k", "kp=0", 0.25, 4),
        (0, "n<=128", "sr>70%", "kvB<=1k", "kp=0", 0.75, 4),
        (0, "n>128", "sr>70%", "kvB>1k", "kp=0", -700.0, 4),
        (256, "n<=32", "sr>70%", "kvB<=1k", "kp<=512", 7.0, 4),
    ]
    columns = "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples"
    write_table(folder / "tp1" / "skew_fit.csv", columns, list(rows))
    meta = {"skew_fit": {"per_tp": {1: {"alpha_default": 0.125}}}}
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")


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


def write_degree(folder: Path, degree: int, keep: Callable[[str], bool]) -> None:
    part = folder / f"tp{degree}"
    shutil.copytree(folder / "tp1", part)
    dense = {name: law for name, law in DENSE.items() if keep(name)}
    write_lines(part / "dense.csv", "tokens", dense)
    write_lines(part / "per_sequence.csv", "sequences", {"lm_head": ROWS["lm_head"]})


def test_ranks_reduce_after_attention_and_mlp(folder: Path) -> None:
    """10 blocks: 21 all-reduces with the embedding's, and the logits gathered."""
    write_degree(folder, 2, lambda name: "norm" not in name)
    options = {"interconnect": {"gb_per_s": 10, "latency_us": 7}}
    batch = Batch((), 8, 80, 10, 10)
    one = model(folder, options=options).seconds(batch)
    two = model(folder, options=options, tensor_parallel=2).seconds(batch)
    row = 1000 * 2
    reduce = 7 + 8 * row / 10e3
    gather = 7 + 0.5 * 8 * 5000 * 2 / 10e3
    assert two - one == pytest.approx((21 * reduce + gather) * 1e-6)


def test_pipeline_stages_send_their_activations(folder: Path) -> None:
    options = {"interconnect": {"gb_per_s": 10, "latency_us": 7}}
    batch = Batch((), 8, 80, 10, 10)
    one = model(folder, options=options).seconds(batch)
    three = model(folder, options=options, pipeline_parallel=3).seconds(batch)
    assert three - one == pytest.approx(2 * (7 + 8 * 1000 * 2 / 10e3) * 1e-6)


def test_what_connects_ranks_has_to_be_known(folder: Path) -> None:
    write_degree(folder, 2, lambda name: True)
    with pytest.raises(LatencyError, match=r"latency\.interconnect is needed"):
        model(folder, tensor_parallel=2)
    meta = {"gpu": "NVIDIA GeForce RTX 4090"}
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    assert model(folder, tensor_parallel=2).seconds(Batch((Chunk(8),))) > 0


def test_a_degree_without_tables_is_refused_with_those_there_are(folder: Path) -> None:
    write_degree(folder, 2, lambda name: True)
    with pytest.raises(LatencyError, match="tensor parallel 4, it has: 1, 2"):
        model(folder, tensor_parallel=4)


def test_what_ranks_share_is_not_taken_from_a_single_rank(folder: Path) -> None:
    write_degree(folder, 2, lambda name: name != "o_proj")
    with pytest.raises(LatencyError, match="lacks o_proj"):
        model(folder, tensor_parallel=2)


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


def test_a_table_that_does_not_cover_the_model_is_refused(folder: Path) -> None:
    with pytest.raises(LatencyError, match=r"16 experts, but .* has no moe\.csv"):
        model(folder, QWEN_MOE)
    meta = {
        "model": "other/Model",
        "tp_degrees": [1, 2],
        "engine_effective": {"hf_overrides": {"num_attention_heads": 16}},
    }
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    with pytest.raises(LatencyError, match="other/Model"):
        model(folder)
    with pytest.raises(LatencyError, match="no num_hidden_layers"):
        model(folder, {"hidden_size": 8})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,2\nqkv_proj,x,3\n", "dense.csv:3"),
        ("dense.csv", "layer,tokens\nqkv_proj,1\n", "no column 'time_us'"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,-4\n", "dense.csv:2"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,nan\n", "dense.csv:2"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1\n", "dense.csv:2"),
        ("per_sequence.csv", "layer,sequences,time_us\n", "no rows"),
        ("skew_fit.csv", "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n"
         "0,few,sr<=5%,kvB<=1k,kp=0,0.1,2\n", "'few' is no bucket"),
        ("skew_fit.csv", "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples\n"
         "0,n<=2,kvB<=1k,sr<=5%,kp=0,0.1,2\n", "skew_fit.csv:2"),
        ("attention.csv", "\x00", "attention.csv"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_with_its_line(
    folder: Path, name: str, text: str, message: str
) -> None:
    (folder / "tp1" / name).write_text(text, encoding="utf-8")
    with pytest.raises(LatencyError, match=message):
        model(folder)


@pytest.mark.parametrize("name", ["dense.csv", "per_sequence.csv", "attention.csv"])
def test_a_missing_table_is_named(folder: Path, name: str) -> None:
    (folder / "tp1" / name).unlink()
    with pytest.raises(LatencyError, match=name):
        model(folder)


def test_a_folder_that_is_none_is_a_problem_before_anything_runs(tmp_path: Path) -> None:
    source = make_latency_model({"type": "operators", "path": str(tmp_path / "none")})
    assert source.problems()[0][0] == "path"
    with pytest.raises(LatencyError, match="no folder"):
        source.model(Served(LLAMA))
    (tmp_path / "empty").mkdir()
    source = make_latency_model({"type": "operators", "path": str(tmp_path / "empty")})
    assert "tp<N>" in source.problems()[0][1]


def test_identity_is_of_the_contents_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    def identity(path: Path) -> object:
        return make_latency_model({"type": "operators", "path": str(path)}).identity()

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert identity(copy) == identity(folder)
    write_skew(copy)
    assert identity(copy) != identity(folder)
