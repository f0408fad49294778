"""Real servers and evaluations, in trials that leave nothing behind."""

from __future__ import annotations

import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, lease_ports, sweep
from trainables import Measurement, TrialPump, TrialSpec
from trainables.script._options import ScriptTrialOptions
from trainables.script._trial import ScriptTrial

PROGRAMS = Path(__file__).parent / "programs"
Make = Callable[..., TrialSpec]
Carried = Callable[..., dict[str, Any]]


@pytest.fixture
def block() -> dict[str, Any]:
    """A ``trial`` block."""
    return {
        "type": "script",
        "start": {
            "command": [sys.executable, "server.py", "--size", "$SIZE"],
            "cwd": str(PROGRAMS),
        },
        "ready": {"timeout": 300},
        "evaluate": {"command": [sys.executable, "evaluate.py", "$BASE_URL"], "timeout": 300},
        "metrics": {
            "accuracy": {"pattern": r"Accuracy \(RougeL-F1 mean, RAW\):\s*([0-9.]+)"},
            "total_tps": {"pattern": r"\(prompt\+answer\)_tokens/s=([0-9.]+)"},
        },
        "constants": {"SIZE": 4},
        "stop_grace": 2,
    }


@pytest.fixture
def spec(tmp_path: Path, block: dict[str, Any]) -> Iterator[Make]:
    """Make a trial's spec; keywords are merged into the block. At the end of the test no process
    of such a trial may be left."""
    run_id = f"test-{uuid.uuid4().hex}"
    made = 0

    def make(parameters: Mapping[str, Any] | None = None, **changes: Any) -> TrialSpec:
        nonlocal made
        made += 1
        options = ScriptTrialOptions.model_validate(merged(block, changes))
        spec = TrialSpec(
            run_id, "cafe0123", "", "script", "candidate", parameters or {}, 0, {}, context={}
        )
        folder = tmp_path / f"trial-{made}"
        return replace(spec, folder=str(folder), settings=ScriptTrial(options).settings())

    yield make
    left = find_processes(run_id)
    sweep(run_id, grace_s=0)
    assert not left, [str(process) for process in left]


@pytest.fixture
def carry_out(spec: Make) -> Carried:
    """Carry a trial out; its last report, with ``measurement`` and ``folder``."""

    def carry(parameters: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        made = spec(parameters, **changes)
        report = finished(TrialPump(made))
        assert not find_processes(made.run_id)
        folder = Path(made.folder)
        return {**report, "folder": folder, "measurement": Measurement.read(folder)}

    return carry


def finished(pump: TrialPump) -> dict[str, Any]:
    """The last report of a trial."""
    while (report := pump.advance(2.0))["status"] == "running":
        pass
    return report


def merged(block: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(block)
    for key, value in changes.items():
        mine = found.get(key)
        both = isinstance(mine, dict) and isinstance(value, dict)
        found[key] = {**mine, **value} if both else value
    return found


def free_port() -> int:
    with lease_ports() as lease:
        return lease.ports[0]


@contextmanager
def foreign_server(port: int, *, shared: bool = False) -> Iterator[list[str]]:
    """Somebody else's server, which answers 200 to everything; yields what it was asked."""
    asked: list[str] = []
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", port), reuse_port=shared) as server:
        server.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                try:
                    client, _ = server.accept()
                except TimeoutError:
                    continue
                with client:
                    asked.append(client.recv(4096).decode())
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            ended.set()
            thread.join()
