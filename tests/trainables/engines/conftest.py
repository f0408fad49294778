"""A stub engine behind the real adapter, in trials that leave nothing behind."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, sweep
from trainables import TrialRun
from trainables.engines import Engine, Service, start_service
from trainables.engines.testing import drive, trial_in

STUBS = Path(__file__).parents[2] / "stubs"


@pytest.fixture
def block() -> Callable[..., dict[str, Any]]:
    """Make an ``engine`` block that starts the stub; keywords override its keys."""

    def make(**keys: Any) -> dict[str, Any]:
        variables = {"PYTHONPATH": str(STUBS), **keys.pop("env_vars", {})}
        stub = {"type": "vllm", "command": [sys.executable], "entrypoint": "openai_engine"}
        return {**stub, "startup_timeout": 30, "env_vars": variables, **keys}

    return make


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Make a model's folder that decides how the stub behaves."""

    def make(**behaviour: Any) -> Path:
        folder = tmp_path / "tiny-model"
        folder.mkdir(exist_ok=True)
        (folder / "stub.json").write_text(json.dumps(behaviour))
        return folder

    return make


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[TrialRun]:
    """A trial; at the end of the test no process of its run may be left."""
    run = trial_in(tmp_path / "trial", f"test-{uuid.uuid4().hex}")
    yield run
    left = find_processes(run.spec.run_id)
    sweep(run.spec.run_id, grace_s=0)
    assert not left


@pytest.fixture
def start(trial: TrialRun) -> Iterator[Callable[..., Service]]:
    """Start an engine; it is stopped after the test."""
    started: list[Service] = []

    def begin(engine: Engine, model: Path, **how: Any) -> Service:
        started.append(drive(start_service(trial, engine, model=model, **how)))
        return started[-1]

    yield begin
    for service in started:
        service.stop()
