"""MindIE's adapter over a stub of its daemon; the real one was not there to be run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import find_processes, lease_ports, sweep
from trainables import StageError, TrialFailure, TrialRun
from trainables.engines import Deployment, Service, make_engine, start_service
from trainables.engines.testing import check_engine, drive

Block = Callable[..., dict[str, Any]]
Model = Callable[..., Path]

SCHEDULE = "BackendConfig.ScheduleConfig"
WORKER = """
import json, sys, time
from pathlib import Path
from trainables.engines import make_engine, start_service
from trainables.engines.testing import drive, trial_in
block, model, folder, run_id = json.loads(sys.argv[1])
trial = trial_in(Path(folder), run_id)
service = drive(start_service(trial, make_engine(block), model=Path(model)))
print("serves", flush=True)
time.sleep(600)
"""


def config_of(home: Path) -> Path:
    return home / "conf" / "config.json"


def deployed(model: Path, **more: Any) -> Deployment:
    return Deployment(model, "m", "localhost", 20001, folder=Path("/trial/engine"), **more)


@pytest.mark.parametrize("edit", ["copy", "in_place"])
def test_mindie_keeps_the_contract(
    mindie: Block, mindie_home: Path, model: Model, tmp_path: Path, edit: str
) -> None:
    before = config_of(mindie_home).read_bytes()
    changed: list[dict[str, Any]] = [
        {"config": {f"{SCHEDULE}.maxBatchSize": 5}},
        {"env_vars": {"A": "1"}},
    ]
    block = mindie(edit=edit)
    check_engine(block, model=model(), folder=tmp_path / "trials", matters=changed)
    assert config_of(mindie_home).read_bytes() == before
    assert config_of(mindie_home).stat().st_mode & 0o777 == 0o640


def test_tuned_entries_reach_the_daemon_and_are_corrected(
    start: Callable[..., Service], mindie: Block, mindie_home: Path, model: Model, trial: TrialRun
) -> None:
    before = config_of(mindie_home).read_bytes()
    config = {
        f"{SCHEDULE}.maxBatchSize": 64,
        f"{SCHEDULE}.maxPrefillBatchSize": 0,
        f"{SCHEDULE}.supportSelectBatch": False,
        f"{SCHEDULE}.decodeTimeMsPerReq": None,
    }
    engine = make_engine(mindie(config={f"{SCHEDULE}.maxIterTimes": 512}))
    service = start(engine, model(), config=config, env={"CONCURRENCY": 10})
    log = service.log.read_text()
    told = json.loads(log.split("schedule: ")[1].split("\n")[0])
    assert told == {
        **json.loads(before)["BackendConfig"]["ScheduleConfig"],
        "maxBatchSize": 64,
        "maxPrefillBatchSize": 1,
        "maxIterTimes": 512,
        "prefillTimeMsPerReq": 0,
        "decodeTimeMsPerReq": 0,
    }
    assert "log to stdout: 1" in log
    assert len(service.notes) == 2
    assert all(f"=== {note}\n" in log for note in service.notes)
    written = trial.folder / "engine" / f"config-{service.deployment.port}.json"
    document = json.loads(written.read_text("utf-8"))
    assert document["备注"] == "手工配置 ±"
    assert "手工配置" in written.read_text("utf-8")
    assert written.stat().st_mode & 0o777 == 0o640
    assert config_of(mindie_home).read_bytes() == before


def test_several_instances_run_at_once(
    start: Callable[..., Service], mindie: Block, model: Model
) -> None:
    engine = make_engine(mindie())
    one = start(engine, model(), prefix="prefill-0-")
    two = start(engine, model(), prefix="decode-0-")
    assert one.base_url != two.base_url
    one.check()
    two.check()


def test_the_installed_file_is_edited_for_one_instance_at_a_time(
    start: Callable[..., Service], mindie: Block, mindie_home: Path, model: Model, trial: TrialRun
) -> None:
    before = config_of(mindie_home).read_bytes()
    engine = make_engine(mindie(edit="in_place"))
    service = start(engine, model())
    during = json.loads(config_of(mindie_home).read_text("utf-8"))
    assert during["ServerConfig"]["port"] == service.deployment.port
    assert engine.configured(["ServerConfig.port"]) == {"ServerConfig.port": 1025}
    with pytest.raises(TrialFailure, match=f"edited by process {os.getpid()}") as caught:
        drive(start_service(trial, engine, model=model(), prefix="other-"))
    assert (caught.value.failure, caught.value.stage) == ("startup", "other-deploy")
    service.stop()
    assert config_of(mindie_home).read_bytes() == before


def test_a_failed_start_leaves_the_file_as_it_was(
    mindie: Block, mindie_home: Path, model: Model, trial: TrialRun
) -> None:
    before = config_of(mindie_home).read_bytes()
    engine = make_engine(mindie(edit="in_place"))
    folder = model(die_at_start="RuntimeError: NPU out of memory. Tried to allocate 2 GiB")
    with pytest.raises(TrialFailure, match="NPU out of memory") as caught:
        drive(start_service(trial, engine, model=folder))
    assert caught.value.failure == "out_of_memory"
    assert "maxPrefillTokens" in caught.value.suggestion
    assert config_of(mindie_home).read_bytes() == before


def test_the_next_start_repairs_what_a_killed_worker_left(
    start: Callable[..., Service], mindie: Block, mindie_home: Path, model: Model, tmp_path: Path
) -> None:
    before = config_of(mindie_home).read_bytes()
    block, run_id = mindie(edit="in_place"), f"test-{uuid.uuid4().hex}"
    told = json.dumps([block, str(model()), str(tmp_path / "killed"), run_id])
    argv = [sys.executable, "-c", WORKER, told]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "serves\n"
        finally:
            worker.send_signal(signal.SIGKILL)
    sweep(run_id, grace_s=0)
    assert not find_processes(run_id)
    assert config_of(mindie_home).read_bytes() != before
    service = start(make_engine(block), model())
    assert any(run_id in note for note in service.notes)
    service.stop()
    assert config_of(mindie_home).read_bytes() == before


def test_its_own_kill_is_not_taken_for_the_kernels(
    mindie: Block, model: Model, trial: TrialRun
) -> None:
    with pytest.raises(TrialFailure, match="ended itself with SIGKILL") as caught:
        drive(start_service(trial, make_engine(mindie()), model=model(die_at_start="no reason")))
    assert caught.value.failure == "startup"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({f"{SCHEDULE}.maxPreemptCount": 3}, "cpuMemSize can not be 0"),
        ({f"{SCHEDULE}.maxPrefillBatchSize": -1}, r"maxPrefillBatchSize \[-1\] is less than"),
        ({"ServerConfig.port": 1}, "the deployment decides"),
        ({"BackendConfig.npuDeviceIds.5": 1}, "no index of a list"),
        ({"ServerConfig.httpsEnabled": True}, "httpsEnabled is true"),
    ],
)
def test_configurations_that_fail_again_however_often_they_are_tried(
    mindie: Block, model: Model, trial: TrialRun, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrialFailure, match=said) as caught:
        drive(start_service(trial, make_engine(mindie()), model=model(), config=config))
    assert (caught.value.failure, caught.value.stage) == ("input", "deploy")


def test_what_mindie_cannot_be_told(mindie: Block, model: Model) -> None:
    engine = make_engine(mindie())
    with pytest.raises(StageError, match="max-num-seqs: MindIE takes no arguments"):
        engine.launch(deployed(model(), options={"max-num-seqs": 1, "left-out": ""}))
    with pytest.raises(StageError, match="no model name like 'a model'"):
        engine.configuration(Deployment(model(), "a model", "localhost", 20001))
    deep = Path("/", "x" * 250, "engine")
    with (
        pytest.raises(StageError, match="more than 256"),
        engine.prepared(Deployment(model(), "m", "localhost", 20001, folder=deep)),
    ):
        pass


def test_the_command_and_the_file_are_found_by_the_installation(
    mindie: Block, mindie_home: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIES_CONTAINER_IP", "10.0.0.9")
    launch = make_engine(mindie()).launch(deployed(model(), env={"N": 1}))
    assert launch.argv == (str(mindie_home / "bin" / "mindieservice_daemon"),)
    assert launch.env["MIES_CONFIG_JSON_PATH"] == "/trial/engine/config-20001.json"
    assert launch.env["N"] == "1"
    assert "MIES_CONTAINER_IP" in launch.unset
    in_place = make_engine(mindie(edit="in_place")).launch(deployed(model()))
    assert in_place.env["MIES_CONFIG_JSON_PATH"] == str(config_of(mindie_home))
    elsewhere = make_engine({"type": "mindie", "command": ["/opt/d", "--x", "$N"]})
    assert elsewhere.launch(deployed(model(), env={"N": 1})).argv == ("/opt/d", "--x", "1")
    bare = make_engine(mindie(env_vars={"MIES_INSTALL_PATH": "/nowhere"}))
    assert bare.launch(deployed(model())).argv == ("mindie_llm_server",)


def test_the_file_of_an_older_layout_is_found(mindie: Block, mindie_home: Path) -> None:
    old = mindie_home.parent / "mindie_llm" / "conf" / "config.json"
    old.parent.mkdir(parents=True)
    config_of(mindie_home).rename(old)
    paths = [f"{SCHEDULE}.maxBatchSize", "BackendConfig.ModelDeployConfig.ModelConfig.0.modelName"]
    found = make_engine(mindie()).configured([*paths, "no.such"])
    assert list(found.values()) == [200, "llama_65b"]


def test_the_address_of_the_file_can_be_kept(
    start: Callable[..., Service], mindie: Block, mindie_home: Path, model: Model
) -> None:
    with lease_ports() as lease:
        port = lease.ports[0]
    text = config_of(mindie_home).read_text("utf-8").replace("1025", str(port))
    config_of(mindie_home).write_text(text, "utf-8")
    service = start(make_engine(mindie(keep_address=True)), model())
    assert service.base_url == f"http://127.0.0.1:{port}"


def test_an_address_that_others_reach_is_not_kept(
    mindie: Block, mindie_home: Path, model: Model, trial: TrialRun
) -> None:
    text = config_of(mindie_home).read_text("utf-8").replace("127.0.0.1", "0.0.0.0")
    config_of(mindie_home).write_text(text, "utf-8")
    engine = make_engine(mindie(keep_address=True))
    assert "0.0.0.0 can be reached from outside" in dict(engine.problems())["config_path"]
    with pytest.raises(TrialFailure, match="can be reached from outside"):
        drive(start_service(trial, engine, model=model()))
    assert make_engine(mindie()).problems() == []


def test_a_port_that_is_taken_after_all(mindie: Block, model: Model, trial: TrialRun) -> None:
    said = "Management or Business or Metrics Http server listen port is occupied"
    with pytest.raises(TrialFailure, match=said) as caught:
        drive(start_service(trial, make_engine(mindie()), model=model(die_at_start=said)))
    assert caught.value.failure == "startup"
    assert "port" in caught.value.suggestion


def test_all_problems_are_said_at_once(mindie: Block, mindie_home: Path) -> None:
    config_of(mindie_home).write_text("{nonsense")
    found = dict(
        make_engine(
            mindie(
                command=["/no/such/daemon"],
                served_model_name="-m",
                config={"ServerConfig.port": 1},
            )
        ).problems()
    )
    assert list(found) == [
        "config.ServerConfig.port",
        "command",
        "served_model_name",
        "config_path",
    ]
    assert "is no JSON" in found["config_path"]
    assert "/no/such/daemon" in found["command"]


def test_encrypted_endpoints_are_a_problem_that_the_block_can_solve(
    mindie: Block, mindie_home: Path
) -> None:
    text = config_of(mindie_home).read_text("utf-8")
    config_of(mindie_home).write_text(text.replace('"httpsEnabled" : false', '"httpsEnabled":true'))
    assert "plain HTTP" in dict(make_engine(mindie()).problems())["config"]
    assert make_engine(mindie(config={"ServerConfig.httpsEnabled": False})).problems() == []


def test_the_configuration_is_in_the_identity_but_not_addresses_and_logs(
    mindie: Block, mindie_home: Path
) -> None:
    identity = make_engine(mindie()).identity()
    json.dumps(identity, allow_nan=False)
    file = config_of(mindie_home)
    text = file.read_text("utf-8")
    unimportant = {"1025": "1099", "llama_65b": "other", "security/ca/": "/ca", '" : ""': '" : "x"'}
    for old, new in unimportant.items():
        file.write_text(text.replace(old, new), "utf-8")
        assert make_engine(mindie()).identity() == identity
    file.write_text(text.replace("2560", "4096"), "utf-8")
    assert make_engine(mindie()).identity() != identity
    file.unlink()
    json.dumps(make_engine(mindie()).identity())


def test_what_is_delivered_runs_without_us(
    mindie: Block, mindie_home: Path, model: Model, tmp_path: Path
) -> None:
    engine = make_engine(mindie())
    config = {f"{SCHEDULE}.maxBatchSize": 7}
    files = engine.deliverables(deployed(model(die_at_start="far enough"), config=config))
    folder = tmp_path / "best"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    run = subprocess.run(
        ["sh", str(folder / "serve.sh")], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"Load Config from {folder}/config.json" in run.stdout
    assert '"maxBatchSize": 7' in run.stdout
    assert "far enough" in run.stdout
