"""Splits of stub engines whose KV caches move, on one node, in this process."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, parse_bundle, sweep
from trainables import CANCEL, Measurement, TrialPump, TrialSpec, trial_type
from trainables._crew import LocalMember

STUBS = Path(__file__).parents[2] / "stubs"
Carried = Callable[..., dict[str, Any]]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """A ``trial`` block; ``STUB_SLOTS`` in the environment is what a search would vary."""
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "stub.json").write_text(json.dumps({"ttft": 0.01, "tpot": 0.002}))
    (model / "config.json").write_text(json.dumps({"model_type": "stub"}))
    return {
        "type": "disaggregated",
        "model": str(model),
        "engine": {
            "type": "vllm",
            "command": [sys.executable],
            "entrypoint": "split_engine",
            "startup_timeout": 300,
            "env_vars": {"PYTHONPATH": str(STUBS)},
        },
        "benchmark": {
            "type": "builtin",
            "requests": 24,
            "warm_ups": 0,
            "window_s": 0.2,
            "workload": {"type": "random", "input_tokens": 8, "output_tokens": 6},
        },
        "load": {"type": "fixed", "concurrency": 4},
        "positions": {"STUB_SLOTS": "env", "STUB_DIE_FILE": "env", "STUB_DIE_AT_START": "env"},
    }


@pytest.fixture
def run_id() -> Iterator[str]:
    """The id of a run that leaves no process behind."""
    value = f"test-{uuid.uuid4().hex}"
    yield value
    left = find_processes(value)
    sweep(value, grace_s=0)
    assert not left


@pytest.fixture
def carry_out(tmp_path: Path, options: dict[str, Any], run_id: str) -> Carried:
    """Carry a trial out; its last report, with the measurement under ``measurement``."""

    def carry(
        parameters: Mapping[str, Any],
        *,
        limits: list[dict[str, Any]] | None = None,
        kind: str = "candidate",
        seen: Callable[[dict[str, Any]], None] = lambda report: None,
        cancel_at: str = "never",
        context: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        goal = {"maximize": ["output_tokens_per_s"], "minimize": [], "limits": limits or []}
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        settings = {"options": options | changes, "search": None, "goal": goal}
        spec = TrialSpec(
            run_id, uuid.uuid4().hex, str(folder), "disaggregated", kind, dict(parameters), 0,
            settings, context=context or {},
        )  # fmt: skip
        one = parse_bundle({"CPU": 1})
        twin = trial_type("disaggregated").from_settings(settings)
        bundles = twin.placement(parameters, kind, one).bundles
        crew = [LocalMember(f"node-{number}") for number in range(1, len(bundles))]
        pump = TrialPump(spec, crew)
        try:
            while (report := pump.advance(2.0))["status"] == "running":
                seen(report)
                if report["stage"].startswith(cancel_at):
                    (folder / CANCEL).touch()
        finally:
            pump.close()
            for member in crew:
                member.close()
        return report | {"measurement": Measurement.read(folder), "folder": folder}

    return carry
