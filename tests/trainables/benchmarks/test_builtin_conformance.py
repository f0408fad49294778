"""The built-in benchmark keeps the contract of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.benchmarks.testing import Serve, check_benchmark, check_block

SMALL = {
    "type": "random",
    "input_tokens": 20,
    "output_tokens": {"type": "uniform", "low": 4, "high": 12},
}
MATTERS: list[dict[str, Any]] = [
    {"workload": {**SMALL, "input_tokens": 21}},
    {"requests": 9},
    {"endpoint": "chat"},
    {"arrivals": "constant"},
    {"burstiness": 2},
    {"ignore_eos": False},
    {"temperature": 0.5},
    {"extra_body": {"top_k": 1}},
    {"warm_ups": 0},
    {"goodput": {"ttft_s": 1}},
]
NEUTRAL: list[dict[str, Any]] = [{"request_timeout": 5}, {"window_s": 0.5}, {"save_itl": True}]


def test_builtin_keeps_the_contract(serve: Serve, tmp_path: Path) -> None:
    check_benchmark(
        {"type": "builtin", "workload": SMALL, "window_s": 0.1},
        serve,
        folder=tmp_path / "trials",
        matters=MATTERS,
        neutral=NEUTRAL,
        patience=6,
    )


def test_the_smallest_block_is_sound() -> None:
    check_block({"type": "builtin"}, matters=MATTERS, neutral=NEUTRAL)
