"""Unequal contexts on GPUs where attention is FlashAttention-2."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.trainables.latency.operator_tables import LLAMA, attention_us, model, write_skew
from trainables.latency._operators_flash import Spread, alone
from trainables.simulation import Batch, Chunk

GROUPED = {**LLAMA, "num_key_value_heads": 4}
LAYERS = 10
TOKEN_US = 2e-3
"""What the tables' law takes for a token of context of one sequence."""


def measured_on(folder: Path, gpu: str, **more: Any) -> None:
    (folder / "meta.yaml").write_text(yaml.safe_dump({"gpu": gpu, **more}), encoding="utf-8")


def late_us(folder: Path, batch: Batch, config: Any = GROUPED, **served: Any) -> float:
    """What unequal contexts add, in microseconds of a layer."""
    corrected = model(folder, config, **served).seconds(batch)
    plain = model(folder, config, options={"skew": False}, **served).seconds(batch)
    return (corrected - plain) * 1e6 / LAYERS


def test_the_longest_sequence_ends_what_the_others_have_left_of_it(folder: Path) -> None:
    """64 sequences with 4 KV heads on 128 multiprocessors: its last thread block starts 160 of
    them before the end, and has done 160 / 128 mean contexts when the others are through."""
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    batch = Batch((), 64, 64 * 100, 1000, 10)
    assert late_us(folder, batch) == pytest.approx(TOKEN_US * (1000 - 100 * 160 / 128))
    assert late_us(folder, Batch((), 64, 64 * 900, 1000, 10)) == 0
    assert late_us(folder, Batch((), 64, 64 * 900, 900, 900)) == 0


def test_what_equal_contexts_lose_is_not_lost_a_second_time(folder: Path) -> None:
    """Measured with equal contexts, a batch waits 3 us for itself, once it is not of the shortest;
    only what the longest sequence takes beyond that is added."""
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    path = folder / "tp1" / "attention.csv"
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").split()]
    for row in rows[1:]:
        row[4] = str(float(row[4]) + 3.0 * (row[0] == "0" and int(row[3]) > 16))
    path.write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    hidden = Batch((), 64, 64 * 300, 1800, 10)
    assert late_us(folder, hidden) == 0
    seen = Batch((), 64, 64 * 300, 3000, 10)
    assert late_us(folder, seen) == pytest.approx(TOKEN_US * (3000 - 300 * 160 / 128) - 3.0)


def test_few_sequences_are_split_and_nobody_waits(folder: Path) -> None:
    """4 KV heads each: 51 sequences are less than 1.6 thread blocks for a multiprocessor."""
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    assert late_us(folder, Batch((), 51, 51 * 100, 1000, 10)) == 0
    assert late_us(folder, Batch((), 52, 52 * 100, 1000, 10)) > 0


def test_a_captured_graph_is_split_or_not_by_its_own_size(folder: Path) -> None:
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    assert late_us(folder, Batch((), 48, 48 * 100, 1000, 10), eager=False) == 0
    assert late_us(folder, Batch((), 49, 49 * 100, 1000, 10), eager=False) > 0


def test_ranks_share_the_heads(folder: Path) -> None:
    """Half of the thread blocks on each of two ranks: what one rank does not split, they do."""
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    (folder / "tp1").rename(folder / "tp2")
    assert late_us(folder, Batch((), 64, 64 * 100, 1000, 10), tensor_parallel=2) == 0
    assert late_us(folder, Batch((), 103, 103 * 100, 1000, 10), tensor_parallel=2) > 0


def test_a_model_with_as_many_kv_heads_as_query_heads_is_never_split(folder: Path) -> None:
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    late = late_us(folder, Batch((), 2, 2 * 500, 900, 100), LLAMA)
    assert late == pytest.approx(TOKEN_US * (900 - 500))


def test_beside_a_prompt_nothing_is_split(folder: Path) -> None:
    """10 sequences with 8 query heads all run at once."""
    measured_on(folder, "NVIDIA GeForce RTX 4090")
    batch = Batch((Chunk(300, 500),), 10, 10 * 800, 1000, 10)
    assert late_us(folder, batch) == pytest.approx(TOKEN_US * (1000 - 800))


@pytest.mark.parametrize(
    ("gpu", "config", "served"),
    [
        ("NVIDIA H100 80GB HBM3", GROUPED, {}),
        ("Ascend 910B3", GROUPED, {}),
        ("a GPU of tomorrow", GROUPED, {}),
        ("NVIDIA GeForce RTX 4090", {**GROUPED, "kv_lora_rank": 512}, {}),
        ("NVIDIA GeForce RTX 4090", GROUPED, {"kv_dtype": "fp8"}),
    ],
)
def test_other_kernels_are_corrected_as_was_fitted(
    folder: Path, gpu: str, config: Any, served: Any
) -> None:
    write_skew(folder)
    measured_on(folder, gpu)
    batch = Batch((), 64, 64 * 800, 1000, 10)
    gap = attention_us(0, 0, 64, 1000) - attention_us(0, 0, 64, 800)
    assert late_us(folder, batch, config, **served) == pytest.approx(0.25 * gap)


def test_a_correction_that_the_tables_call_disabled_is_not_made(folder: Path) -> None:
    measured_on(folder, "NVIDIA GeForce RTX 4090", skew_fit={"enabled": False})
    batch = Batch((), 64, 64 * 100, 1000, 10)
    assert late_us(folder, batch) == 0
    wanted = model(folder, GROUPED, options={"skew": True}).seconds(batch)
    assert wanted > model(folder, GROUPED).seconds(batch)


def test_tables_without_decodes_beside_a_prompt_tell_no_time_of_one_thread_block() -> None:
    points = {(0, 0, 1, 16): 5.0, (0, 0, 1, 64): 6.0, (16, 0, 0, 0): 7.0}
    assert alone(points) is None
    assert alone({**points, (16, 0, 1, 16): 7.0}) is None
    assert alone({**points, (16, 0, 1, 16): 7.0, (16, 0, 1, 1016): 9.0}) == pytest.approx(2e-3)


@pytest.mark.parametrize("sequences", [12, 33, 64, 128])
def test_the_tail_is_that_of_thread_blocks_started_one_after_the_other(sequences: int) -> None:
    """A GPU played block by block, the longest of the sequences at random places."""
    spread = Spread(multiprocessors=188, slots=188, heads=32, kv_heads=8, token_us=0.022)
    random = np.random.default_rng(sequences)
    contexts = random.integers(600, 1800, sequences)
    contexts[0] = 9000
    ends = []
    for _ in range(20):
        random.shuffle(contexts)
        ends.append(_played(np.tile(contexts, 32) * spread.token_us, spread.slots))
    work = contexts.sum() * 32 / spread.slots * spread.token_us
    tail = spread.mixed_tail(sequences, float(contexts.mean()), 9000.0)
    assert work + tail == pytest.approx(np.mean(ends), rel=0.05)


def _played(blocks: np.ndarray[Any, np.dtype[np.float64]], slots: int) -> float:
    free = [0.0] * slots
    for block in blocks:
        heapq.heappush(free, heapq.heappop(free) + float(block))
    return max(free)
