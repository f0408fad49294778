"""``cluster``: a machine is tagged with what it has, and only what we started is stopped."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster import lease_ports
from tests.nodes import RAY, Networks, networks
from tests.tuner.cluster.commands import User, user
from tests.tuner.runs import write_experiment
from tuner.cli import main

CHIPS = """
| 0     910B4               | OK            | 88.9        39                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          2858 / 65536         |
| 1     910B4               | OK            | 86.0        41                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          2801 / 65536         |
"""
SMALL = ("--cpus", "1", "--object-store-memory", "100000000")


Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process with a home and a runtime folder of its own, as short as sockets need."""
    with tempfile.TemporaryDirectory(prefix="u", dir="/tmp") as folder:
        for name in list(os.environ):
            if name.startswith(("RAY_", "ASCEND_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", folder)
        monkeypatch.setenv("TUNER_RUNTIME_DIR", f"{folder}/r")
        yield Path(folder)


@pytest.fixture
def command(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Main:
    """``cluster``: its exit code and what it prints."""

    def run(*words: str, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        try:
            code = main(["cluster", *words])
        except SystemExit as end:
            code = int(str(end.code))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def npus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine seems to have two NPUs: stand-ins of its driver's program, and of acl."""
    (tmp_path / "output").write_text(CHIPS)
    program = tmp_path / "npu-smi"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/output\n")
    program.chmod(0o755)
    (tmp_path / "acl.py").write_text(
        "class rt:\n    get_device_count = staticmethod(lambda: (2, 0))\n"
        "get_soc_name = lambda: 'Ascend910B4'\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("acl", None)


def flags(output: str) -> dict[str, str]:
    words = shlex.split(output)
    return {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}


def dry(command: Main, *words: str) -> dict[str, str]:
    code, out, err = command(*words, "--dry-run")
    assert code == 0, err
    return flags(out)


@pytest.mark.usefixtures("npus")
def test_a_machine_is_tagged_with_its_chips(command: Main) -> None:
    found = dry(command, "join", "10.0.0.1:6379", "--label", "role=prefill", "--island", "a")
    assert found["--address"] == "10.0.0.1:6379"
    assert json.loads(found["--resources"]) == {"npu_910b": 2}
    labels = set(found["--labels"].split(","))
    assert labels == {"chip=npu_910b", "hbm=64", "island=a", "role=prefill"}


@pytest.mark.usefixtures("npus")
def test_visible_devices_and_the_user_decide_how_many(
    command: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = dry(command, "start", "--npus", "1", "--resource", "bench=2")
    assert json.loads(named["--resources"]) == {"NPU": 1, "npu_910b": 1, "bench": 2}
    none = dry(command, "start", "--npus", "0")
    assert json.loads(none["--resources"]) == {"NPU": 0}
    assert "--labels" not in none
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1")
    one = dry(command, "start")
    assert json.loads(one["--resources"]) == {"npu_910b": 1}
    code, _, err = command("start", "--npus", "2")
    assert code == 1
    assert "more than ASCEND_RT_VISIBLE_DEVICES=1" in err


def test_a_machine_without_npus_has_no_such_tags(command: Main) -> None:
    found = dry(command, "start", "--address", "127.0.0.1", "--port", "7001", "--dashboard")
    assert not {"--resources", "--labels"} & set(found)
    assert found["--port"] == "7001"
    assert found["--dashboard-host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("start", "--address", "203.0.113.1"), 1, "no address of this host"),
        (("join", "127.0.0.1:1"), 1, "Start the head first"),
        (("join", "here"), 1, "no address such as"),
        (("start", "--resource", "NPU=many"), 1, "'many' is no number"),
        (("start", "--resource", "cpu=2"), 1, "say how many with cpus"),
        (("start", "--label", "role=a b"), 1, "'a b' is not a selector"),
        (("start", "--label", "role=!a"), 1, "is no value of a label"),
        (("start", "--label", "role"), 2, "is not NAME=VALUE"),
        (("start", "--temp-dir", "/tmp/" + "long/" * 9), 1, "shorter --temp-dir"),
    ],
)
def test_bad_usage_starts_nothing(
    command: Main, words: tuple[str, ...], code: int, said: str
) -> None:
    found, _, err = command(*words)
    assert (found, said in err) == (code, True), err
    assert command("stop", "--json")[1] == "[]\n"


def test_a_token_that_others_may_read_is_refused(command: Main, home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("a" * 64)
    token.chmod(0o644)
    assert f"chmod 600 {token}" in command("start", "--address", "127.0.0.1")[2]


def test_a_token_from_another_host_is_kept_but_replaces_none(command: Main, home: Path) -> None:
    token = home / ".ray" / "auth_token"
    words = ("join", "127.0.0.1:1", "--token-stdin")
    assert "is no token" in command(*words, given="short")[2]
    assert not token.exists()
    command(*words, given="a" * 64 + "\n")
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("a" * 64, 0o600)
    assert "the token of another cluster" in command(*words, given="b" * 64)[2]
    assert token.read_text() == "a" * 64


DRIVER = """
import sys, time, cluster, ray
from ray.util.placement_group import placement_group

class Trial:
    def __repr__(self):
        return "Trial(candidate 7)"
    def there(self):
        return ray.util.get_node_ip_address()

with cluster.connect("auto", name="my-run") as connection:
    group = placement_group([{"CPU": 0.5, "NPU": 2}], bundle_label_selector=[{"role": "prefill"}])
    one = ray.remote(num_cpus=0)(Trial).options(placement_group=group).remote()
    print(ray.get(one.there.remote()), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def network() -> Iterator[Networks]:
    with networks(isolated=True) as made:
        yield made


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_starts_grows_tells_who_uses_it_and_stops_alone(network: Networks) -> None:
    """Another Ray of the same user runs beside it, which must stay."""
    address, namespace = network.add()
    with lease_ports(2) as lease, user() as head, user(namespace) as worker, user() as other:
        here, port = map(str, lease.ports)
        done = other.run("cluster", "start", "--address", "127.0.0.1", "--port", here, *SMALL)
        assert done.returncode == 0, done.stderr
        strangers = _of(other)
        where = ("--address", network.address, "--port", port)
        done = head.run("cluster", "start", *where, "--json", *SMALL)
        assert done.returncode == 0, done.stderr
        cluster = json.loads(done.stdout)["cluster"]
        assert cluster == f"{network.address}:{port}"
        assert head.token.stat().st_mode & 0o777 == 0o600

        refused = worker.run("cluster", "join", cluster, "--address", address, *SMALL)
        assert refused.returncode == 1
        assert "the token of" in refused.stderr
        tags = ("--npus", "2", "--label", "role=prefill", "--token-stdin")
        done = worker.run(
            "cluster",
            "join",
            cluster,
            "--address",
            address,
            *tags,
            *SMALL,
            given=head.token.read_text(),
        )
        assert done.returncode == 0, done.stderr

        _see_a_run(head, address)
        family = [*_of(head), *_of(worker)]
        assert len(family) > 5
        for one in (worker, head):
            (stopped,) = json.loads(one.run("cluster", "stop", "--json").stdout)
            assert stopped["was_alive"]
            assert stopped["killed"] == []
        assert _living(family) == []
        assert _living(strangers) == strangers


def _of(someone: User) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TUNER_RUNTIME_DIR") == someone.variables["TUNER_RUNTIME_DIR"]:
                found.append(process)
    return found


def _living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended. An orphan is a zombie until the init process finds time for it."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _see_a_run(head: User, address: str) -> None:
    """``auto`` finds the cluster and its token by itself; the status says who has what."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, **head.variables, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() == address
        deadline = time.monotonic() + 240
        while True:
            said = json.loads(head.run("cluster", "status", "--json").stdout)
            first, second = said["nodes"]
            # Ray tells what is free about once a second.
            if second["free"].get("NPU", 0) == 0 or time.monotonic() > deadline:
                break
        assert first["head"]
        assert second["address"] == address
        assert (second["total"]["NPU"], second["free"].get("NPU", 0)) == (2, 0)
        assert second["labels"] == {"role": "prefill"}
        expected = {"run": "my-run", "trial": "Trial(candidate 7)"}
        assert second["uses"] == [{**expected, "resources": {"CPU": 0.5, "NPU": 2}}]
        table = head.run("cluster", "status").stdout
        assert "my-run" in table
    finally:
        driver.communicate("")


@pytest.mark.ray
@pytest.mark.slow
def test_what_a_killed_node_left_is_stopped_too() -> None:
    with lease_ports() as lease, user() as someone:
        _kill_and_stop(someone, str(lease.ports[0]))


def _kill_and_stop(someone: User, port: str) -> None:
    words = ("start", "--address", "127.0.0.1", "--port", port, "--json", *SMALL)
    node = json.loads(someone.run("cluster", *words).stdout)
    again = someone.run("cluster", *words)
    assert "runs already" in again.stderr
    family = _of(someone)
    psutil.Process(node["pid"]).kill()
    (stopped,) = json.loads(someone.run("cluster", "stop", "--json").stdout)
    assert not stopped["was_alive"]
    assert _living(family) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_an_experiment_that_runs_without_its_terminal(tmp_path: Path) -> None:
    """As the guide says it; Ray's own command finds the token where `cluster start` put it."""
    pytest.importorskip("aiohttp_cors", reason="the dashboard's packages are not installed")
    file = write_experiment(tmp_path)
    with user() as someone, lease_ports(2) as lease:
        port, dashboard = map(str, lease.ports)
        words = ("--dashboard", "--dashboard-port", dashboard, *SMALL)
        done = someone.run("cluster", "start", "--address", "127.0.0.1", "--port", port, *words)
        assert done.returncode == 0, done.stderr
        run = [sys.executable, "-m", "tuner", "run", str(file), "--resume"]
        url = f"http://127.0.0.1:{dashboard}"
        submit = [RAY, "job", "submit", "--address", url, "--"]
        job = subprocess.run(
            [*submit, *run, "--set", "cluster.address=auto"],
            env={**os.environ, **someone.variables, "RAY_AUTH_MODE": "token"},
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert job.returncode == 0, job.stdout + job.stderr
        assert "satisfied: 5 of 16 layers fall back" in job.stdout
        assert (tmp_path / "demo" / "best" / "result.json").exists()
