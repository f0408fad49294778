"""MindIE on Kubernetes, over a stub of the cluster; neither a real one nor an NPU was there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster import find_processes, sweep
from tests.mindie_k8s import K8sWorld
from trainables import TrialFailure, TrialRun
from trainables.engines import Service, make_engine, start_service
from trainables.engines._mindie_k8s_request import Records
from trainables.engines.testing import check_engine, drive

Model = Callable[..., Path]
Start = Callable[..., Service]

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


def start_of(world: K8sWorld, trial: TrialRun, **keys: Any) -> Service:
    engine = make_engine(world.block(**keys))
    return drive(start_service(trial, engine, model=world.model))


def failed_start(world: K8sWorld, trial: TrialRun, **keys: Any) -> TrialFailure:
    """The failure of a start, after which nothing is deployed and the files are as before."""
    with pytest.raises(TrialFailure) as caught:
        start_of(world, trial, **keys)
    assert_clean(world)
    return caught.value


def assert_clean(world: K8sWorld) -> None:
    assert world.cluster.mindie() == []
    assert world.files() == world.originals
    assert Records(world.scripts).read() is None


def steps(count: int) -> Any:
    for _ in range(count):
        time.sleep(0.02)
        yield type("Progress", (), {"stage": "benchmark"})()
    return count


@pytest.mark.slow
def test_it_keeps_the_contract(world: K8sWorld, tmp_path: Path, trial: TrialRun) -> None:
    changed: list[dict[str, Any]] = [
        {"config": {f"{SCHEDULE}.maxBatchSize": 5}},
        {"config": {"ms_controller.default_p_rate": 2}},
        {"deploy_arguments": ["800i_a3"]},
        {"env_vars": {"A": "1"}},
    ]
    block = world.block()
    # The suite kills the program that would have deleted the deployment.
    with pytest.warns(RuntimeWarning, match="The next trial deletes it first"):
        check_engine(block, model=world.model, folder=tmp_path / "trials", matters=changed)
    assert world.files() == world.originals
    with start_of(world, trial):
        pass
    assert_clean(world)


def test_tuned_entries_reach_the_pods_and_the_files_are_put_back(
    start: Start, world: K8sWorld, trial: TrialRun
) -> None:
    engine = make_engine(world.block())
    tuned = {f"{SCHEDULE}.maxBatchSize": 64, f"{SCHEDULE}.maxPrefillBatchSize": 0}
    tuned["ms_controller.default_p_rate"] = 2
    service = start(engine, world.model, config=tuned, options={"default_d_rate": 2})
    controller, config = world.deployed("ms_controller.json"), world.deployed("config.json")
    assert (controller["default_p_rate"], controller["default_d_rate"]) == (2, 2)
    assert controller["deploy_mode"] == "pd_disaggregation_single_container"
    schedule = config["BackendConfig"]["ScheduleConfig"]
    assert (schedule["maxBatchSize"], schedule["maxPrefillBatchSize"]) == (64, 1)
    assert config["ServerConfig"]["httpsEnabled"] is True
    assert config["备注"] == "手工配置 ±"
    assert service.base_url == f"http://127.0.0.1:{world.port}"
    answer = httpx.post(
        f"{service.base_url}/v1/completions",
        json={"model": "tiny", "prompt": "1+1=", "max_tokens": 4},
        trust_env=False,
    )
    assert answer.status_code == 200
    (pod,) = world.cluster.mindie()
    assert pod.annotations == {"npu-tuner/run-id": trial.spec.run_id}
    assert engine.configured([f"{SCHEDULE}.maxBatchSize", "ms_controller.default_p_rate"]) == {
        f"{SCHEDULE}.maxBatchSize": 200,
        "ms_controller.default_p_rate": 1,
    }
    assert drive(service.watch(steps(5))) == 5
    service.stop()
    assert_clean(world)
    assert "MindIE-MS coordinator is ready!!!\n" in service.log.read_text()


def test_a_coordinator_that_needs_six_seconds_is_waited_for(
    world: K8sWorld, trial: TrialRun
) -> None:
    world.cluster.conduct.ready_after = 6
    with start_of(world, trial) as service:
        assert service.seconds["deploy"] >= 6


@pytest.mark.slow
def test_a_service_that_answers_needs_no_line_in_the_log(world: K8sWorld, trial: TrialRun) -> None:
    world.cluster.conduct.says_ready = False
    with start_of(world, trial) as service:
        assert "is ready" not in service.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("status", "said"), [(0, "timed out"), (500, "answers 500: ")])
def test_a_ready_coordinator_that_does_not_answer_is_not_waited_for_in_vain(
    world: K8sWorld, trial: TrialRun, status: int, said: str
) -> None:
    world.cluster.conduct.answers = status
    failure = failed_start(world, trial, answer_timeout=1)
    assert failure.failure == "startup"
    assert "the coordinator says that it is ready, but after 1 s still POST" in str(failure)
    assert said in str(failure)


@pytest.mark.slow
def test_a_coordinator_that_is_never_ready(world: K8sWorld, trial: TrialRun) -> None:
    world.cluster.conduct.ready_after = 3600
    failure = failed_start(world, trial, startup_timeout=12)
    assert failure.failure == "timeout"
    assert "answers 503" in str(failure)


@pytest.mark.parametrize(
    ("conduct", "failure", "said"),
    [
        pytest.param({"waiting": "ImagePullBackOff"}, "input", "ImagePullBackOff", id="image"),
        pytest.param({"dies": "Error"}, "startup", r"ended with exit code 1 \(Error\)", id="dies"),
        pytest.param(
            {"dies": "Error", "dies_saying": "RuntimeError: NPU out of memory. Tried"},
            "out_of_memory",
            "NPU out of memory",
            id="npu-memory",
        ),
        pytest.param(
            {"unschedulable": "0/1 nodes: Insufficient huawei.com/Ascend910"},
            "startup",
            "no node takes it: Unschedulable: 0/1 nodes: Insufficient huawei.com/Ascend910",
            id="no-node",
        ),
        pytest.param(
            {"waiting": "CreateContainerConfigError"},
            "input",
            "CreateContainerConfigError",
            id="config",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"dies": "OOMKilled"},
            "out_of_memory",
            "OOMKilled",
            id="oom-killed",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"starts_after": 3600},
            "timeout",
            "did not run in time: .*Pending, ContainerCreating",
            id="creating",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_pods_that_do_not_come_up_are_explained(
    world: K8sWorld, trial: TrialRun, conduct: dict[str, Any], failure: str, said: str
) -> None:
    vars(world.cluster.conduct).update(conduct)
    limits = {"schedule_timeout": 0.5} if "unschedulable" in conduct else {}
    limits |= {"startup_timeout": 12} if failure == "timeout" else {}
    found = failed_start(world, trial, **limits)
    assert found.failure == failure
    assert found.stage == "deploy"
    assert re.search(said, str(found)), str(found)
    assert "Events:" in (trial.folder / "engine.log").read_text()


@pytest.mark.parametrize(
    ("what", "failure", "said"),
    [
        pytest.param(
            *(lambda cluster: cluster.restart("OOMKilled"), "out_of_memory", "OOMKilled"),
            id="killed-for-memory",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda cluster: cluster.restart(), "tool", "ended with exit code 1", id="restarted"
        ),
        pytest.param(lambda cluster: cluster.evict(), "lost", "it is gone", id="replaced"),
    ],
)
def test_what_befalls_the_pods_during_the_benchmark_is_a_failure(
    world: K8sWorld, trial: TrialRun, what: Callable[[Any], None], failure: str, said: str
) -> None:
    service = start_of(world, trial)
    what(world.cluster)
    with pytest.raises(TrialFailure, match=said) as caught:
        drive(service.watch(steps(10**6)))
    assert caught.value.failure == failure
    service.stop()
    assert_clean(world)


def test_a_restart_after_the_last_look_is_found_at_the_end(
    world: K8sWorld, trial: TrialRun
) -> None:
    service = start_of(world, trial, poll_interval=3600)

    def last_step() -> Any:
        yield from steps(1)
        world.cluster.restart()

    with pytest.raises(TrialFailure, match="ended with exit code 1"):
        drive(service.watch(last_step()))
    service.stop()
    assert_clean(world)


def test_a_deployment_of_somebody_else_is_only_deleted_where_that_is_wanted(
    world: K8sWorld, trial: TrialRun
) -> None:
    theirs = world.cluster.add("mindie-server-theirs")
    with pytest.raises(TrialFailure, match="somebody else uses the namespace mindie") as caught:
        start_of(world, trial)
    assert caught.value.failure == "input"
    assert "engine.replace: true" in str(caught.value)
    assert world.cluster.mindie() == [theirs]
    assert not [call for call in world.cluster.calls if call[0] in ("delete", "apply")]
    with start_of(world, trial, replace=True):
        assert theirs not in world.cluster.mindie()
    assert_clean(world)


@pytest.mark.slow
def test_pods_of_another_application_in_the_namespace_are_left_alone(
    world: K8sWorld, trial: TrialRun
) -> None:
    other = world.cluster.add("chat-ui", app="chat-ui")
    elsewhere = world.cluster.add("mindie-server-x", namespace="other")
    with pytest.raises(TrialFailure, match="chat-ui"):
        start_of(world, trial)
    with start_of(world, trial, replace=True):
        assert elsewhere.annotations == other.annotations == {}
    assert {pod.name for pod in world.cluster.pods} == {"chat-ui", "mindie-server-x"}


@pytest.mark.slow
def test_a_deletion_that_hangs_is_told_and_made_up_for_by_the_next_start(
    world: K8sWorld, trial: TrialRun
) -> None:
    service = start_of(world, trial, delete_timeout=6)
    world.cluster.conduct.delete_takes = None
    with pytest.warns(RuntimeWarning, match="MindIE is still deployed"):
        service.stop()
    assert "LEFT BEHIND: the deployment is not gone 6 s after" in service.log.read_text()
    assert world.files() == world.originals
    left = Records(world.scripts).read()
    assert left is not None
    assert left.run_id == trial.spec.run_id
    with (
        pytest.warns(RuntimeWarning, match="still deployed"),
        pytest.raises(
            TrialFailure, match=r"is not gone 6 s after delete\.sh: mindie-server"
        ) as caught,
    ):
        start_of(world, trial, delete_timeout=6)
    assert caught.value.failure == "timeout"
    world.cluster.conduct.delete_takes = 0.2
    with start_of(world, trial) as again:
        assert f"left behind (run {trial.spec.run_id}" in again.log.read_text()
    assert_clean(world)


def killed_worker(world: K8sWorld, folder: Path, run_id: str) -> None:
    """A trial that serves, whose process is killed."""
    told = json.dumps([world.block(), str(world.model), str(folder), run_id])
    argv = [sys.executable, "-c", WORKER, told]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "serves\n"
        finally:
            worker.send_signal(signal.SIGKILL)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_the_death_of_its_owner_ends_the_deployment(world: K8sWorld, tmp_path: Path) -> None:
    # Longer than what is left of a dead owner usually has.
    world.cluster.conduct.delete_takes = 4
    run_id = f"test-{uuid.uuid4().hex}"
    killed_worker(world, tmp_path / "killed", run_id)
    until(lambda: not find_processes(run_id))
    assert_clean(world)


@pytest.mark.slow
def test_the_next_start_deletes_what_the_death_of_all_has_left(
    world: K8sWorld, tmp_path: Path, trial: TrialRun
) -> None:
    world.cluster.conduct.delete_takes = None
    run_id = f"test-{uuid.uuid4().hex}"
    killed_worker(world, tmp_path / "killed", run_id)
    for found in find_processes(run_id):
        psutil.Process(found.pid).kill()
    sweep(run_id, grace_s=0)
    assert len(world.cluster.mindie()) == 1
    assert world.files() != world.originals
    world.cluster.conduct.delete_takes = 0.2
    with start_of(world, trial) as service:
        log = service.log.read_text()
        assert f"left behind (run {run_id}" in log
        assert "the original is back" in log
    assert_clean(world)


@pytest.mark.slow
def test_what_is_deployed_after_a_death_by_somebody_else_is_not_taken_for_ours(
    world: K8sWorld, trial: TrialRun
) -> None:
    with start_of(world, trial):
        record = Records(world.scripts).read()
    assert record is not None
    assert record.owners
    Records(world.scripts).write(record)
    theirs = world.cluster.add("mindie-server-theirs")
    with pytest.warns(RuntimeWarning), pytest.raises(TrialFailure, match="somebody else"):
        start_of(world, trial)
    assert world.cluster.mindie() == [theirs]


def test_one_deployment_at_a_time(world: K8sWorld, trial: TrialRun) -> None:
    with start_of(world, trial):
        engine = make_engine(world.block())
        with pytest.raises(TrialFailure, match=f"{world.scripts} is in use by process"):
            drive(start_service(trial, engine, model=world.model, prefix="other-"))
        assert len(world.cluster.mindie()) == 1


def test_kubectl_that_does_not_answer_is_not_waited_for(world: K8sWorld, trial: TrialRun) -> None:
    world.cluster.conduct.deaf = True
    failure = failed_start(world, trial, kubectl_timeout=0.7)
    assert failure.failure == "network"
    assert "kubectl get pods has not answered within 0.7 s" in str(failure)
    world.cluster.conduct.deaf = False


@pytest.mark.slow
def test_pods_that_may_not_be_annotated_are_used_all_the_same(
    world: K8sWorld, trial: TrialRun
) -> None:
    world.cluster.conduct.forbids = ("annotate",)
    with start_of(world, trial) as service:
        assert "Forbidden" in service.log.read_text()
    assert_clean(world)


def test_a_script_that_fails_is_told(world: K8sWorld, trial: TrialRun) -> None:
    (world.scripts / "deploy.sh").write_text("echo no such image >&2\nexit 3\n")
    failure = failed_start(world, trial)
    assert failure.failure == "startup"
    assert "deploy.sh ended with exit code 3" in str(failure)
    assert "no such image" in (trial.folder / "engine.log").read_text()
