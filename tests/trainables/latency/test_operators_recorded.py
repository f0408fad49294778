"""Tables recorded on real devices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trainables.latency import make_latency_model
from trainables.latency._model import Served
from trainables.latency._operators_tables import degrees, read_tables
from trainables.simulation import Batch, Chunk

DATA = Path(os.environ.get("TUNER_DATA", Path(__file__).parents[4] / "shared" / "data"))
LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "vocab_size": 128256,
}


def recorded() -> list[Path]:
    return sorted(DATA.glob("vllm_profiles/*-Llama-3.1-8B/ops"))


@pytest.mark.skipif(not recorded(), reason=f"no recorded tables in {DATA}")
@pytest.mark.parametrize("path", recorded(), ids=lambda path: path.parent.name)
def test_recorded_tables_are_reproduced_on_their_grid(path: Path) -> None:
    """A batch that was measured takes what was measured, operator by operator."""
    for degree in degrees(path):
        tables = read_tables(path / f"tp{degree}")
        options = {"interconnect": {"gb_per_s": 1e9, "latency_us": 0}, "kernel_gap_us": 0}
        source = make_latency_model({"type": "operators", "path": str(path), **options})
        latency = source.model(Served(LLAMA_8B, tensor_parallel=degree))
        for chunk, before, decodes, context in (
            (0, 0, 128, 512),
            (2048, 0, 0, 0),
            (512, 1024, 0, 0),
        ):
            tokens = chunk + decodes
            sequences = decodes or 1
            expected = 32 * tables.attention[chunk, before, decodes, context]
            for name, points in tables.dense.items():
                runs = {"embedding": 1, "final_layernorm": 1, "layernorm": 64}.get(name, 32)
                expected += runs * points[tokens]
            expected += sum(points[sequences] for points in tables.per_sequence.values())
            chunks = (Chunk(chunk, before),) if chunk else ()
            batch = Batch(chunks, decodes, decodes * context, context, context)
            assert latency.seconds(batch) == pytest.approx(expected * 1e-6, rel=1e-6)
