"""A cluster of several hosts from one file: exact commands, all faults at once."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import lease_ports
from tests.nodes import Networks, networks
from tests.tuner.cluster.commands import PYTHON, User, user
from tuner.cli import main

HOSTS = """
head: {address: 10.0.0.1, ssh: root@node1, cpus: 4, labels: {role: router}}
workers:
  - address: 10.0.0.2
    ssh: [-p, "2222", root@node2]
    island: a
    labels: {role: prefill}
  - {address: 10.0.0.3, ssh: root@node3, npus: 4, interface: bond0, env: {TOKENS: 3}}
defaults:
  python: /opt/tuner/bin/python
  activate: /usr/local/Ascend/ascend-toolkit/set env.sh
  interface: eth0
  labels: {pool: a2}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TUNER_RUNTIME_DIR", str(tmp_path / "r"))
    return tmp_path


def write(folder: Path, document: str | dict[str, Any]) -> str:
    file = folder / "hosts.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(file)


def stub_ssh(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program ``ssh`` that is found first: ``$target`` is the host, ``$command`` what it runs."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\n"
        'while [[ "$1" == -* ]]; do shift 2; done\n'
        f'target=$1; shift; command="$*"\n{body}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin:/usr/sbin:/sbin")


def test_the_commands_are_shown_before_anything_runs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", "start", "--hosts", write(home, HOSTS), "--dry-run"]) == 0
    head, second, third = capsys.readouterr().out.splitlines()
    words = shlex.split(second)
    assert words[: words.index("root@node2") + 1][-3:] == ["-p", "2222", "root@node2"]
    assert "BatchMode=yes" in words
    remote = shlex.split(words[words.index("root@node2") + 1])
    assert remote[:2] == ["bash", "-c"]
    line = shlex.split(remote[2])
    assert line[:5] == [".", "/usr/local/Ascend/ascend-toolkit/set env.sh", "&&", "exec", "env"]
    assert {"HCCL_IF_IP=10.0.0.2", "HCCL_SOCKET_IFNAME=eth0", "TP_SOCKET_IFNAME=eth0"} < set(line)
    joins = " ".join(line[line.index("/opt/tuner/bin/python") :])
    assert joins.startswith("/opt/tuner/bin/python -m tuner cluster join 10.0.0.1:6379 --address")
    assert "--island a --label pool=a2 --label role=prefill --token-stdin" in joins
    assert words[-1] == "TOKEN_FILE"
    assert "cluster start --port 6379 --address 10.0.0.1 --cpus 4" in head
    assert "HCCL_SOCKET_IFNAME=bond0" in third
    assert "TOKENS=3" in third
    assert "--npus 4" in third
    assert not (home / ".ray").exists()


def test_workers_are_stopped_before_the_head(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", "stop", "--hosts", write(home, HOSTS), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("root@")[1][:5] for line in lines] == ["node2", "node3", "node1"]
    assert all("-m tuner cluster stop" in line for line in lines)


def test_all_faults_of_the_file_are_said_with_their_lines(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = (
        "head: {address: 10.0.0.1, pyhton: /opt/python}\n"
        "workers:\n"
        "  - {ssh: node2}\n"
        "  - {address: 10.0.0.3, labels: {role: '!x'}}\n"
        "  - {address: 10.0.0.4, npus: -1, env: {A-B: 1}}\n"
        "port: 99999\n"
    )
    assert main(["cluster", "start", "--hosts", write(home, faulty)]) == 2
    said = capsys.readouterr().err
    for place in (":1: head.pyhton", ":3: workers.0.address", ":4: workers.1", ":6: port"):
        assert place in said, said
    assert "workers.2.npus" in said
    assert "A-B" in said
    twice = {"head": {"address": "10.0.0.1"}, "workers": [{"address": "10.0.0.1"}]}
    assert main(["cluster", "start", "--hosts", write(home, twice)]) == 2
    assert "10.0.0.1" in capsys.readouterr().err


def test_a_host_that_fails_keeps_no_other_from_joining_and_all_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub_ssh(
        home,
        f'echo "$target" >> {home}/seen; echo "$command" > {home}/command; cat > {home}/$target\n'
        'case $target in root@node2) echo "Permission denied (publickey)." >&2; exit 255;;\n'
        'root@node3) echo "No module named tuner" >&2; exit 1;; esac',
        monkeypatch,
    )
    assert main(["cluster", "start", "--hosts", write(home, HOSTS)]) == 1
    out, err = capsys.readouterr()
    assert (home / "seen").read_text().split() == ["root@node1", "root@node2", "root@node3"]
    assert "10.0.0.2: exit code 255: Permission denied (publickey). ssh must get in" in err
    assert "10.0.0.3: exit code 1: No module named tuner. Name the interpreter" in err
    assert "1 of 3 hosts started" in out
    token = (home / ".ray" / "auth_token").read_text()
    assert (home / "root@node3").read_text() == token
    assert token not in (home / "command").read_text()


def test_without_the_head_no_worker_is_tried(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub_ssh(home, f'echo "$target" >> {home}/seen; cat > /dev/null; exit 255', monkeypatch)
    assert main(["cluster", "start", "--json", "--hosts", write(home, HOSTS)]) == 1
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert (home / "seen").read_text().split() == ["root@node1"]
    assert set(failed) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert "the head did not start" in failed["10.0.0.3"]


@pytest.fixture
def network() -> Iterator[Networks]:
    with networks(isolated=True) as made:
        yield made


@pytest.mark.ray
@pytest.mark.slow
def test_a_file_starts_a_cluster_of_hosts_and_stops_it(
    network: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hosts are network namespaces; ssh goes there instead."""
    first, second = network.add(), network.add()
    stub_ssh(tmp_path, 'exec ip netns exec "$target" sh -c "$command"', monkeypatch)
    with user() as me, user(first[1]) as one, user(second[1]) as other:
        port = lease_ports().ports[0]
        file = write(tmp_path, _hosts(network, port, {first: one, second: other}))
        done = me.run("cluster", "start", "--hosts", file)
        assert done.returncode == 0, done.stderr
        assert "3 of 3 hosts started" in done.stdout
        assert me.token.read_text() == other.token.read_text()
        nodes = json.loads(me.run("cluster", "status", "--json").stdout)["nodes"]
        assert [node["address"] for node in nodes] == [network.address, first[0], second[0]]
        assert [node["labels"].get("role") for node in nodes] == [None, "prefill", "decode"]
        assert nodes[2]["total"]["NPU"] == 2
        done = me.run("cluster", "stop", "--hosts", file)
        assert "3 of 3 hosts stopped" in done.stdout
        for someone in (me, one, other):
            assert someone.run("cluster", "stop", "--json").stdout == "[]\n"
        with pytest.raises(OSError):
            socket.create_connection((network.address, port), timeout=5)


def _hosts(network: Networks, port: int, workers: dict[tuple[str, str], User]) -> dict[str, Any]:
    return {
        "port": port,
        "head": {"address": network.address, "cpus": 1},
        "workers": [
            {
                "address": address,
                "ssh": namespace,
                "python": PYTHON,
                "cpus": 1,
                "npus": 2,
                "labels": {"role": role},
                "env": someone.variables,
            }
            for role, ((address, namespace), someone) in zip(
                ("prefill", "decode"), workers.items(), strict=True
            )
        ],
    }
