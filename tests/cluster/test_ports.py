"""Two trials never get one port, foreign servers are respected, and death frees a lease."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cluster import PortUnavailableError, lease_ports, port_owners

Program = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of the tests are apart from those of runs on this machine."""
    monkeypatch.setenv("TUNER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def pair() -> tuple[int, ...]:
    """Two neighbouring ports nobody has."""
    with lease_ports(2, consecutive=True) as lease:
        return lease.ports


@pytest.fixture
def port(pair: tuple[int, ...]) -> int:
    """A port nobody has."""
    return pair[0]


def read_ports(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(port) for port in process.stdout.readline().split()]


def bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    return server


def test_leased_ports_can_be_bound_and_are_not_handed_to_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with lease_ports(5) as lease:
        assert len(set(lease.ports)) == 5
        for port in lease.ports:
            assert not low <= port <= high
            bound(socket.AF_INET, "0.0.0.0", port).close()


def test_consecutive_ports_are_neighbours() -> None:
    with lease_ports(8, consecutive=True) as lease:
        assert lease.ports == tuple(range(lease.ports[0], lease.ports[0] + 8))


def test_processes_that_lease_at_once_share_nothing(program: Program, programs: Path) -> None:
    lessees = [program(programs / "lessee.py", 200) for _ in range(4)]
    ports = [port for lessee in lessees for port in read_ports(lessee)]
    assert len(ports) == len(set(ports)) == 800


def test_a_leased_port_is_refused_with_its_holder_until_that_is_killed(
    program: Program, programs: Path, port: int
) -> None:
    lessee = program(programs / "lessee.py", 1, port)
    assert read_ports(lessee) == [port]
    with pytest.raises(PortUnavailableError, match=rf"{port} .*{lessee.pid}.*lessee\.py") as error:
        lease_ports(ports=[port])
    assert error.value.ports == (port,)
    lessee.kill()
    lessee.wait()
    with lease_ports(ports=[port]) as lease:
        assert lease.ports == (port,)


def test_release_frees_all_ports_also_after_one_was_refused(
    pair: tuple[int, ...],
) -> None:
    port, free = pair
    with lease_ports(ports=[port]):
        with pytest.raises(PortUnavailableError):
            lease_ports(ports=[free, port])
        lease_ports(ports=[free]).release()
    lease_ports(ports=[free, port]).release()


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
)
def test_a_foreign_server_is_named_and_never_given_away(
    family: socket.AddressFamily, address: str, port: int
) -> None:
    try:
        server = bound(family, address, port)
    except OSError:
        pytest.skip("no IPv6 on this host")
    with closing(server):
        server.listen()
        assert port_owners(port) == {os.getpid()}
        with pytest.raises(PortUnavailableError, match=str(os.getpid())):
            lease_ports(ports=[port])
    assert port_owners(port) == set()
    lease_ports(ports=[port]).release()


def test_a_server_that_has_bound_but_not_listened_yet_is_respected(port: int) -> None:
    with (
        closing(bound(socket.AF_INET, "127.0.0.1", port)),
        pytest.raises(PortUnavailableError, match="does not listen yet"),
    ):
        lease_ports(ports=[port])


def test_connections_that_linger_after_a_server_do_not_block_its_port(port: int) -> None:
    with closing(bound(socket.AF_INET, "127.0.0.1", port)) as server:
        server.listen()
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        assert client.recv(1) == b""
        client.close()
    with pytest.raises(OSError, match="in use"), closing(socket.socket()) as strict:
        strict.bind(("127.0.0.1", port))
    lease_ports(ports=[port]).release()


def test_chosen_ports_avoid_a_foreign_server(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[int, ...]
) -> None:
    port, free = pair
    monkeypatch.setattr("cluster._ports._candidates", lambda: [port, free])
    with closing(bound(socket.AF_INET, "127.0.0.1", port)) as server:
        server.listen()
        with lease_ports() as lease:
            assert lease.ports == (free,)
            with pytest.raises(PortUnavailableError, match="fewer than 1"):
                lease_ports()


@pytest.mark.parametrize("ports", [[0], [65536], [8000, 8000]])
def test_impossible_demands_are_refused(ports: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        lease_ports(ports=ports)


def test_a_runtime_folder_open_to_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o755)
    with pytest.raises(PermissionError, match="mode 700"):
        lease_ports()
    with suppress(OSError):
        tmp_path.chmod(0o700)
