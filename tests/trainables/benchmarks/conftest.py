"""A stub engine under load, in trials that leave nothing behind."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster import ProcessTree, child_environment, find_processes, lease_ports, sweep
from trainables import TrialRun
from trainables.benchmarks import Target
from trainables.benchmarks.testing import (
    FAILURES,
    LIVES_FOR,
    SPARED,
    Condition,
    Serve,
    Served,
)
from trainables.engines.testing import trial_in

STUB = Path(__file__).parents[2] / "stubs" / "openai_engine.py"
_CONDITIONS: Mapping[Condition, Mapping[str, Any]] = {
    "healthy": {},
    "some_fail": {"fail_after": SPARED, "fail_count": FAILURES},
    "all_fail": {"status": 500},
    "dies": {"die_after": LIVES_FOR},
    "hangs": {"hang": True},
}
Stub = Callable[..., Served]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """Start a stub engine whose behaviour is given by keywords; it ends with the test."""
    with _stubs(tmp_path / "stubs") as start:
        yield start


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """What the conformance suite starts its services with."""

    @contextmanager
    def started(condition: Condition) -> Iterator[Served]:
        with _stubs(tmp_path / "services") as start:
            yield start(ttft=0.01, tpot=0.001, **_CONDITIONS[condition])

    return started


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[TrialRun]:
    """A trial; at the end of the test no process of its run may be left."""
    run = trial_in(tmp_path / "trial", f"test-{uuid.uuid4().hex}")
    yield run
    left = find_processes(run.spec.run_id)
    sweep(run.spec.run_id, grace_s=0)
    assert not left


@contextmanager
def _stubs(folder: Path) -> Iterator[Stub]:
    run_id = f"stubs-{uuid.uuid4().hex}"

    def start(model: Path | None = None, **behaviour: Any) -> Served:
        model = model or folder / uuid.uuid4().hex
        model.mkdir(parents=True, exist_ok=True)
        record = model / "requests.jsonl"
        (model / "stub.json").write_text(json.dumps({**behaviour, "record": str(record)}))
        port = started.enter_context(lease_ports()).ports[0]
        argv = [sys.executable, STUB, "serve", model, "--host", "127.0.0.1"]
        tree = started.enter_context(
            ProcessTree.start(
                [*map(os.fspath, argv), "--port", str(port), "--served-model-name", "tiny"],
                env=child_environment(run_id, "stub"),
                log=model / "engine.log",
                run_id=run_id,
                label="stub",
            )
        )
        url = f"http://127.0.0.1:{port}"
        _await(url, tree)
        return Served(Target(url, "tiny", model), lambda: _recorded(record))

    with ExitStack() as started:
        yield start


def _await(url: str, tree: ProcessTree) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/health", trust_env=False)
            return
        except httpx.HTTPError:
            assert tree.wait(0.05) is None, tree.log_tail()
    raise AssertionError("the stub does not listen")


def _recorded(file: Path) -> list[Any]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
