"""A private Ray is ours alone, and no death in it leaves a process of a trial behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster import (
    ClusterError,
    Connection,
    RunLock,
    child_environment,
    connect,
    find_processes,
    selects,
)

pytestmark = pytest.mark.ray

Wait = Callable[..., None]


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """A private cluster of this process, started although the environment names another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "192.0.2.9:6379")
        started = connect(
            "local",
            name="test",
            dashboard=True,
            num_cpus=2,
            resources={"NPU": 4},
            labels={"pool": "910b"},
        )
        with started:
            yield started
        assert os.environ["RAY_ADDRESS"] == "192.0.2.9:6379"
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ


class Driver:
    """``programs/driver.py``, restarted when a test has ended it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, str(self._programs / "driver.py"), str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(self._programs.parents[2])},
            )
        return self._process

    def ask(self, *command: object) -> str:
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        print(*command, file=process.stdin, flush=True)
        return process.stdout.readline().strip()

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Driver]:
    started = Driver(tmp_path_factory.mktemp("driver"), programs)
    yield started
    started.end()


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended. An orphan is a zombie until the init process finds time for it."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def names(processes: list[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.add(process.name())
    return found


@pytest.fixture
def worker(driver: Driver, run_id: str, tmp_path: Path) -> int:
    """Process id of a Ray worker that owns a family."""
    pid = int(driver.ask("own", run_id, tmp_path))
    assert len(find_processes(run_id)) == 4
    return pid


def test_a_private_cluster_has_the_node_that_was_asked_for(connection: Connection) -> None:
    (node,) = connection.nodes()
    assert connection.is_local
    assert node.alive
    assert {name: node.resources[name] for name in ("CPU", "NPU")} == {"CPU": 2, "NPU": 4}
    assert node.labels["pool"] == "910b"


def test_ray_selects_labels_as_we_do(connection: Connection) -> None:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    selectors = ["910b", "!910b", "in(910b,x)", "in(910b, x)", "!in(910b)", "x", "!x", "!in(x)"]
    groups = {
        (key, selector): placement_group([{"CPU": 0.01}], bundle_label_selector=[{key: selector}])
        for key in ("pool", "absent")
        for selector in selectors
    }
    expected = {
        (key, selector)
        for key, selector in groups
        if selects(selector, connection.nodes()[0].labels.get(key))
    }
    try:
        ray.get([groups[chosen].ready() for chosen in expected], timeout=240)
        refused = [group.ready() for chosen, group in groups.items() if chosen not in expected]
        ready, _ = ray.wait(refused, num_returns=len(refused), timeout=2)
        assert ready == []
    finally:
        for group in groups.values():
            remove_placement_group(group)


def test_programs_of_trials_get_neither_rays_environment_nor_its_niceness(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("TUNER_RUN_ID", "another")

    @ray.remote(num_cpus=1)
    def worker() -> tuple[dict[str, str], dict[str, str], int]:
        return dict(os.environ), child_environment("run", "engine"), os.nice(0)

    carried, passed_on, niceness = ray.get(worker.remote())
    assert {"RAY_JOB_ID", "RAY_AUTH_TOKEN_PATH", "PYTHONBREAKPOINT"} <= set(carried)
    added_by_ray = set(carried) - set(psutil.Process().environ()) - set(os.environ)
    assert set(passed_on) & added_by_ray <= {"SPT_NOENV"}
    assert not any(name.startswith("RAY_") for name in passed_on)
    assert passed_on["TUNER_RUN_ID"] == "run"
    assert passed_on.get("OMP_NUM_THREADS") == psutil.Process().environ().get("OMP_NUM_THREADS")
    assert niceness == os.nice(0)


def test_the_dashboard_comes_up_behind_and_demands_the_token(
    connection: Connection, until: Wait
) -> None:
    until(lambda: connection.dashboard_url, "the dashboard answers", within_s=240)
    assert connection.dashboard_url is not None
    assert connection.token_file is not None
    request = urllib.request.Request(f"{connection.dashboard_url}/nodes?view=summary")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=120)
    request.add_header("Authorization", f"Bearer {connection.token_file.read_text()}")
    assert urllib.request.urlopen(request, timeout=120).status == 200


def test_other_users_can_neither_read_the_token_nor_reach_the_sockets(
    connection: Connection,
) -> None:
    import ray

    assert connection.token_file is not None
    assert connection.token_file.stat().st_mode & 0o777 == 0o600
    socket = Path(ray._private.worker.global_worker.node.raylet_socket_name)
    assert any(folder.stat().st_mode & 0o077 == 0 for folder in socket.parents)


JOIN = """
import sys, cluster
try:
    with cluster.connect(sys.argv[1], name="guest") as guest:
        print("joined", guest.is_local, len(guest.nodes()))
except cluster.ClusterError as error:
    print("refused", error)
"""


def test_only_who_has_the_token_may_join_and_leaving_stops_nothing(
    connection: Connection, program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    guest = program("-c", JOIN, connection.address)
    soon = {"RAY_gcs_server_request_timeout_seconds": "3", "RAY_NUM_REDIS_GET_RETRIES": "2"}
    strangers = [
        program("-c", JOIN, connection.address, RAY_AUTH_TOKEN_PATH=str(wrong), **soon),
        program("-c", JOIN, connection.address, RAY_AUTH_MODE="disabled", **soon),
    ]
    assert guest.communicate(timeout=240)[0] == "joined False 1\n"
    for stranger in strangers:
        assert "InvalidAuthToken" in stranger.communicate(timeout=240)[0]
    assert len(connection.nodes()) == 1


def test_looking_for_a_cluster_never_finds_a_private_one(
    connection: Connection, program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    guest = program("-c", JOIN, "auto", RAY_ADDRESS="", RAY_TMPDIR=str(tmp_path))
    assert guest.communicate(timeout=240)[0].startswith("refused no Ray cluster runs")


def test_a_process_has_one_connection(connection: Connection) -> None:
    with pytest.raises(ClusterError, match="already"):
        connect("local", name="second")


@pytest.mark.parametrize("way", ["ray.kill", "SIGKILL", "SIGTERM", "os._exit"])
def test_family_ends_with_the_actor_that_owns_it(
    way: str, driver: Driver, worker: int, run_id: str, vanishes: Wait, until: Wait
) -> None:
    actor = psutil.Process(worker)
    if way == "ray.kill":
        driver.ask("kill")
    elif way == "os._exit":
        driver.ask("leave")
    else:
        os.kill(worker, signal.Signals[way])
    vanishes(run_id)
    until(lambda: not living([actor]), "the actor ends as well")


def test_closing_ends_the_family_and_all_of_this_ray_but_no_other(
    driver: Driver, worker: int, connection: Connection, run_id: str, vanishes: Wait
) -> None:
    import ray

    processes = psutil.Process(driver.process.pid).children(recursive=True)
    assert {"raylet", "gcs_server"} <= names(processes)
    assert driver.ask("close") == "done"
    vanishes(run_id)
    assert living(processes) == []
    assert ray.get(ray.remote(num_cpus=1)(lambda: "lives").remote(), timeout=240) == "lives"
    assert connection.nodes()[0].alive
    assert connection.lost is None
    driver.end()


def test_family_ends_with_the_driver_and_its_run_may_start_again_at_once(
    driver: Driver, worker: int, run_id: str, vanishes: Wait
) -> None:
    driver.process.kill()
    driver.process.wait()
    with RunLock(driver.folder):
        pass
    vanishes(run_id)


def test_family_ends_with_the_raylet_and_the_driver_can_still_leave(
    driver: Driver, worker: int, run_id: str, vanishes: Wait, until: Wait
) -> None:
    processes = psutil.Process(driver.process.pid).children(recursive=True)
    assert driver.ask("lost") == "None"
    os.kill(int(driver.ask("raylet")), signal.SIGKILL)
    vanishes(run_id)
    said = "Ray's process raylet ended unexpectedly"
    until(lambda: driver.ask("lost").startswith(said), "the connection says so")
    assert driver.ask("close") == "done"
    assert living(processes) == []
