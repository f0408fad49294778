"""What the adapter for MindIE on Kubernetes says before anything is deployed, and delivers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mindie_k8s import K8sWorld, k8s_world
from trainables import StageError
from trainables.engines import Deployment, make_engine

SCHEDULE = "BackendConfig.ScheduleConfig"


def test_the_model_is_the_one_that_the_pods_see(tmp_path: Path, model: Callable[..., Path]) -> None:
    folder = model()
    with k8s_world(tmp_path / "k8s", folder, inside="/mnt/mindie-service/ms/model") as world:
        engine = make_engine(world.block())
        deployment = Deployment(folder, "tiny", "localhost", 20001)
        assert engine.launch(deployment).argv[-1].endswith("deployment-20001.json")
        with pytest.raises(StageError, match=f"the pods serve {folder} .as /mnt/mindie-service"):
            engine.launch(Deployment(tmp_path, "tiny", "localhost", 20001))


def test_rates_that_the_manifest_overrules_are_not_searched(world: K8sWorld) -> None:
    text = world.manifest.read_text().replace("MINDIE_LOG_TO_STDOUT", "MINDIE_MS_P_RATE")
    world.manifest.write_text(text)
    engine = make_engine(world.block())
    deployment = Deployment(world.model, "tiny", "localhost", 20001)
    engine.launch(deployment)
    tuned = Deployment(world.model, "tiny", "localhost", 1, options={"default_p_rate": 2})
    with pytest.raises(StageError, match="sets MINDIE_MS_P_RATE, which goes before"):
        engine.launch(tuned)
    with pytest.raises(StageError, match="max_num_seqs: MindIE takes no arguments"):
        engine.launch(Deployment(world.model, "t", "localhost", 1, options={"max_num_seqs": 2}))


def test_all_problems_are_said_at_once(world: K8sWorld, tmp_path: Path) -> None:
    empty = dict(make_engine(world.block(folder=str(tmp_path), kubectl=["/no/kubectl"])).problems())
    assert set(empty) == {"folder", "kubectl"}
    world.write("ms_coordinator.json", {"tls_config": {"request_server_tls_enable": True}})
    world.file("ms_controller.json").write_text("{")
    block = world.block(namespace="elsewhere")
    found = dict(make_engine(block).problems())
    assert "ms_controller.json: is no JSON" in found["config"]
    assert "is for the namespace mindie, not elsewhere" in found["manifest"]
    assert "plain HTTP" in found["folder"]


def test_what_is_delivered_deploys_without_us(world: K8sWorld, tmp_path: Path) -> None:
    engine = make_engine(world.block())
    config = {f"{SCHEDULE}.maxBatchSize": 7, "ms_controller.default_p_rate": 3}
    files = engine.deliverables(Deployment(world.model, "tiny", "localhost", 1, config=config))
    assert set(files) == {"serve.sh", "config.json", "ms_controller.json"}
    best = tmp_path / "best"
    best.mkdir()
    for name, text in files.items():
        (best / name).write_text(text, "utf-8")
    environment = {**os.environ, **world.environment}
    argv = ["sh", str(best / "serve.sh")]
    subprocess.run(argv, check=True, timeout=60, env=environment)
    assert len(world.cluster.mindie()) == 1
    assert world.deployed("ms_controller.json")["default_p_rate"] == 3
    assert world.deployed("config.json")["BackendConfig"]["ScheduleConfig"]["maxBatchSize"] == 7
    (kept,) = world.scripts.glob("conf-before-*")
    assert (kept / "config.json").read_bytes() == world.originals["config.json"][0]
