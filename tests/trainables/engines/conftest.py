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
from tests.later import Later, later
from tests.mindie_k8s import K8sWorld, k8s_world
from trainables import TrialRun
from trainables.engines import Engine, Service, start_service
from trainables.engines.testing import drive, trial_in

STUBS = Path(__file__).parents[2] / "stubs"
MINDIE_CONFIG = """{
    "Version" : "1.0.0",
    "备注" : "手工配置 ±",
    "ServerConfig" : {
        "ipAddress" : "127.0.0.1", "managementIpAddress" : "127.0.0.2",
        "port" : 1025, "managementPort" : 1026, "metricsPort" : 1027,
        "httpsEnabled" : false, "tlsCaPath" : "security/ca/"
    },
    "BackendConfig" : {
        "npuDeviceIds" : [[0, 1]],
        "ModelDeployConfig" : {
            "maxSeqLen" : 2560,
            "ModelConfig" : [
                {"modelName" : "llama_65b", "modelWeightPath" : "/data/llama", "worldSize" : 2,
                 "cpuMemSize" : 0, "npuMemSize" : -1}
            ]
        },
        "ScheduleConfig" : {
            "maxPrefillBatchSize" : 50, "prefillTimeMsPerReq" : 150, "decodeTimeMsPerReq" : 50,
            "maxBatchSize" : 200, "maxPreemptCount" : 0, "supportSelectBatch" : false
        }
    },
    "LogConfig" : {"dynamicLogLevel" : ""}
}
"""


@pytest.fixture
def block() -> Callable[..., dict[str, Any]]:
    """Make an ``engine`` block that starts the stub; keywords override its keys."""

    def make(**keys: Any) -> dict[str, Any]:
        variables = {"PYTHONPATH": str(STUBS), **keys.pop("env_vars", {})}
        stub = {"type": "vllm", "command": [sys.executable], "entrypoint": "openai_engine"}
        return {**stub, "startup_timeout": 300, "env_vars": variables, **keys}

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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Later:
    """By which an engine is late."""
    return later(monkeypatch, "trainables.engines._service")


@pytest.fixture
def mindie_home(tmp_path: Path) -> Path:
    """An installation of MindIE: the stub in ``bin`` and a config.json that somebody wrote."""
    home = tmp_path / "mindie-service"
    (home / "bin").mkdir(parents=True)
    daemon = home / "bin" / "mindieservice_daemon"
    stub = STUBS / "mindieservice_daemon.py"
    daemon.write_text(f'#!/bin/sh\nPYTHONPATH={STUBS} exec {sys.executable} {stub} "$@"\n')
    daemon.chmod(0o550)
    config = home / "conf" / "config.json"
    config.parent.mkdir()
    config.write_text(MINDIE_CONFIG, encoding="utf-8")
    config.chmod(0o640)
    return home


@pytest.fixture
def mindie(mindie_home: Path) -> Callable[..., dict[str, Any]]:
    """Make an ``engine`` block for that installation; keywords override its keys."""

    def make(**keys: Any) -> dict[str, Any]:
        variables = {"MIES_INSTALL_PATH": str(mindie_home), **keys.pop("env_vars", {})}
        return {"type": "mindie", "startup_timeout": 300, "env_vars": variables, **keys}

    return make


@pytest.fixture
def world(tmp_path: Path, model: Callable[..., Path]) -> Iterator[K8sWorld]:
    """A cluster of Kubernetes, and MindIE's scripts for it."""
    with k8s_world(tmp_path / "k8s", model()) as made:
        yield made
