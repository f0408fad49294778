"""Operators of instances whose ranks share the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.trainables.latency.operator_tables import (
    model,
    write_degree,
)
from trainables.latency._model import LatencyError
from trainables.simulation import Batch, Chunk


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
