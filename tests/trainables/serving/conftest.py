"""A stub engine that holds as many requests as it is told, under the built-in benchmark."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, sweep
from trainables import Measurement, TrialPump, TrialSpec

STUBS = Path(__file__).parents[2] / "stubs"
Carried = Callable[..., dict[str, Any]]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """A ``trial`` block; ``STUB_SLOTS`` in the environment is what a search would vary."""
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "stub.json").write_text(json.dumps({"ttft": 0.06, "tpot": 0.004}))
    return {
        "type": "serving",
        "model": str(model),
        "engine": {
            "type": "vllm",
            "command": [sys.executable],
            "entrypoint": "openai_engine",
            "startup_timeout": 300,
            "env_vars": {"PYTHONPATH": str(STUBS)},
        },
        "benchmark": {
            "type": "builtin",
            "requests": 48,
            "warm_ups": 0,
            "window_s": 0.2,
            "workload": {"type": "random", "input_tokens": 8, "output_tokens": 10},
        },
        "load": {"type": "operating_point", "high": 32, "precision": 0.2},
        "positions": {"STUB_SLOTS": "env"},
    }


@pytest.fixture
def carry_out(tmp_path: Path, options: dict[str, Any]) -> Iterator[Carried]:
    """Carry a trial out; its last report, with the measurement under ``measurement``."""
    run_id = f"test-{uuid.uuid4().hex}"

    def carry(
        parameters: Mapping[str, Any],
        *,
        limits: list[dict[str, Any]] | None = None,
        kind: str = "candidate",
        context: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        goal = {"maximize": ["output_tokens_per_s"], "minimize": [], "limits": limits or []}
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        spec = TrialSpec(
            run_id, uuid.uuid4().hex, str(folder), "serving", kind, dict(parameters), 0,
            {"options": options | changes, "search": None, "goal": goal},
            context=context or {},
        )  # fmt: skip
        pump = TrialPump(spec)
        try:
            while (report := pump.advance(2.0))["status"] == "running":
                pass
        finally:
            pump.close()
        return report | {"measurement": Measurement.read(folder), "folder": folder}

    yield carry
    left = find_processes(run_id)
    sweep(run_id, grace_s=0)
    assert not left
