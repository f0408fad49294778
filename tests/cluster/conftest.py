"""Processes of tests: a run id that leaves nothing behind, and ways to start and watch programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import find_processes, sweep

PROGRAMS = Path(__file__).with_name("programs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def programs() -> Path:
    """Folder of the programs that tests start."""
    return PROGRAMS


@pytest.fixture
def run_id() -> Iterator[str]:
    """An id for a run; whatever carries it is ended after the test."""
    value = f"test-{uuid.uuid4().hex}"
    yield value
    sweep(value, grace_s=0)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait until a condition holds; fail after a generous time."""

    def wait(condition: Callable[[], object], what: str, within_s: float = 120) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {within_s} s: {what}")
            time.sleep(0.02)

    return wait


@pytest.fixture
def vanishes(until: Callable[..., None]) -> Callable[..., None]:
    """Wait until no process of a run is left."""

    def wait(run_id: str, within_s: float = 120) -> None:
        until(lambda: not find_processes(run_id), "all processes of the run are gone", within_s)

    return wait


@pytest.fixture
def program() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program with our packages on its path; it is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
