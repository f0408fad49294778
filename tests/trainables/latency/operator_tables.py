"""Tables in which every operator takes a + b tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainables.latency import make_latency_model
from trainables.latency._model import Served
from trainables.latency._operators_attention import work
from trainables.simulation import LatencyModel

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


def write_degree(folder: Path, degree: int, keep: Callable[[str], bool]) -> None:
    part = folder / f"tp{degree}"
    shutil.copytree(folder / "tp1", part)
    dense = {name: law for name, law in DENSE.items() if keep(name)}
    write_lines(part / "dense.csv", "tokens", dense)
    write_lines(part / "per_sequence.csv", "sequences", {"lm_head": ROWS["lm_head"]})
