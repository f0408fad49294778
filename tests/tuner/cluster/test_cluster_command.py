"""``cluster``: a machine is tagged with what it has, and only what we started is stopped."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.nodes import Networks, networks
from tests.tuner.cluster.commands import User, user

CHIPS = """
| 0     910B4               | OK            | 88.9        39                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          2858 / 65536         |
| 1     910B4               | OK            | 86.0        41                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          2801 / 65536         |
"""
SMALL = ("--cpus", "1", "--object-store-memory", "100000000")


@pytest.fixture
def someone() -> Iterator[User]:
    with user() as made:
        yield made


@pytest.fixture
def npus(tmp_path: Path) -> dict[str, str]:
    """Variables with which this machine seems to have two NPUs: its driver's program and acl."""
    (tmp_path / "output").write_text(CHIPS)
    program = tmp_path / "npu-smi"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/output\n")
    program.chmod(0o755)
    (tmp_path / "acl.py").write_text(
        "class rt:\n    get_device_count = staticmethod(lambda: (2, 0))\n"
        "get_soc_name = lambda: 'Ascend910B4'\n"
    )
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def flags(output: str) -> dict[str, str]:
    words = shlex.split(output)
    return {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}


def dry(someone: User, *words: str, **variables: str) -> dict[str, str]:
    done = someone.run("cluster", *words, "--dry-run", variables=variables)
    assert done.returncode == 0, done.stderr
    return flags(done.stdout)


def test_a_machine_is_tagged_with_its_chips(someone: User, npus: dict[str, str]) -> None:
    found = dry(
        someone, "join", "10.0.0.1:6379", "--label", "role=prefill", "--island", "a", **npus
    )
    assert found["--address"] == "10.0.0.1:6379"
    assert json.loads(found["--resources"]) == {"npu_910b": 2}
    labels = set(found["--labels"].split(","))
    assert labels == {"npu=910b", "hbm=64", "island=a", "role=prefill"}


def test_visible_devices_and_the_user_decide_how_many(someone: User, npus: dict[str, str]) -> None:
    one = dry(someone, "start", ASCEND_RT_VISIBLE_DEVICES="1", **npus)
    assert json.loads(one["--resources"]) == {"npu_910b": 1}
    named = dry(someone, "start", "--npus", "1", "--resource", "bench=2", **npus)
    assert json.loads(named["--resources"]) == {"NPU": 1, "npu_910b": 1, "bench": 2}
    none = dry(someone, "start", "--npus", "0", **npus)
    assert json.loads(none["--resources"]) == {"NPU": 0}
    assert "--labels" not in none


def test_a_machine_without_npus_has_no_such_tags(someone: User) -> None:
    found = dry(someone, "start", "--address", "127.0.0.1", "--port", "7001", "--dashboard")
    assert not {"--resources", "--labels"} & set(found)
    assert found["--port"] == "7001"
    assert found["--dashboard-host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start", "--address", "203.0.113.1"), "no address of this host"),
        (("join", "127.0.0.1:1"), "Start the head first"),
        (("join", "here"), "no address such as"),
        (("start", "--resource", "NPU=many"), "'many' is no number"),
        (("start", "--label", "role=a b"), "'a b' is not a selector"),
        (("start", "--label", "role=!a"), "is no value of a label"),
        (("start", "--label", "role"), "is not NAME=VALUE"),
        (("start", "--temp-dir", "/tmp/" + "long/" * 9), "shorter --temp-dir"),
    ],
)
def test_bad_usage_starts_nothing(someone: User, words: tuple[str, ...], said: str) -> None:
    done = someone.run("cluster", *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert someone.run("cluster", "stop", "--json").stdout == "[]\n"


def test_more_npus_than_are_visible_are_refused(someone: User) -> None:
    done = someone.run(
        "cluster", "start", "--npus", "4", variables={"ASCEND_RT_VISIBLE_DEVICES": "0,1"}
    )
    assert "more than ASCEND_RT_VISIBLE_DEVICES=0,1" in done.stderr


def test_a_token_that_others_may_read_is_refused(someone: User) -> None:
    someone.token.parent.mkdir()
    someone.token.write_text("a" * 64)
    someone.token.chmod(0o644)
    done = someone.run("cluster", "start", "--address", "127.0.0.1")
    assert f"chmod 600 {someone.token}" in done.stderr


def test_a_token_from_another_host_is_kept_but_replaces_none(someone: User) -> None:
    words = ("cluster", "start", "--address", "127.0.0.1", "--token-stdin", "--port", "0")
    someone.run(*words, given="short")
    assert not someone.token.exists()
    someone.token.parent.mkdir()
    someone.token.write_text("a" * 64)
    someone.token.chmod(0o600)
    done = someone.run(*words, given="b" * 64)
    assert "holds the token of another cluster" in done.stderr
    assert someone.token.read_text() == "a" * 64


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
    with user() as head, user(namespace) as worker, user() as other:
        done = other.run("cluster", "start", "--address", "127.0.0.1", "--port", "7301", *SMALL)
        assert done.returncode == 0, done.stderr
        strangers = _of(other)
        where = ("--address", network.address, "--port", "7302")
        done = head.run("cluster", "start", *where, "--json", *SMALL)
        assert done.returncode == 0, done.stderr
        cluster = json.loads(done.stdout)["cluster"]
        assert cluster == f"{network.address}:7302"
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
        assert not [process for process in family if process.is_running()]
        assert all(process.is_running() for process in strangers)


def _of(someone: User) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TUNER_RUNTIME_DIR") == someone.variables["TUNER_RUNTIME_DIR"]:
                found.append(process)
        except psutil.Error:
            continue
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
        deadline = time.monotonic() + 30
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
def test_what_a_killed_node_left_is_stopped_too(someone: User) -> None:
    words = ("start", "--address", "127.0.0.1", "--port", "7303", "--json", *SMALL)
    node = json.loads(someone.run("cluster", *words).stdout)
    again = someone.run("cluster", *words)
    assert "runs already" in again.stderr
    family = _of(someone)
    psutil.Process(node["pid"]).kill()
    (stopped,) = json.loads(someone.run("cluster", "stop", "--json").stdout)
    assert not stopped["was_alive"]
    assert not [process for process in family if process.is_running()]
