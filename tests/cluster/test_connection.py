"""A cluster that cannot be started or reached is said plainly, soon, and leaves nothing."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import ClusterError, connect, lease_ports


@pytest.mark.parametrize("address", ["", "here", "host:port", "10.0.0.1", "ray://10.0.0.1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="no address of a cluster"):
        connect(address, name="test")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_said_at_once(scheme: str) -> None:
    with lease_ports() as lease:
        address = f"{scheme}127.0.0.1:{lease.ports[0]}"
        with pytest.raises(ClusterError, match=f"nothing answers at {address}"):
            connect(address, name="test")


def test_the_cluster_of_this_machine_may_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with lease_ports() as lease:
        address = f"127.0.0.1:{lease.ports[0]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=f"nothing answers at {address}"):
            connect("auto", name="test")


def test_a_joined_cluster_takes_no_resources() -> None:
    with pytest.raises(ClusterError, match="ray start"):
        connect("127.0.0.1:6379", name="test", resources={"NPU": 8})


def test_a_path_too_long_for_sockets_is_said(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 10)
    with pytest.raises(ClusterError, match="Choose a shorter one"):
        connect("local", name="test", temp_dir=folder)


def test_a_private_cluster_must_not_hang_on_a_passing_thread() -> None:
    errors: list[str] = []

    def attempt() -> None:
        try:
            connect("local", name="test")
        except ClusterError as error:
            errors.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(120)
    assert errors == ["a private cluster must be started from the main thread"]


@pytest.mark.ray
def test_an_option_ray_refuses_is_said_and_nothing_is_left() -> None:
    before = dict(os.environ)
    with pytest.raises(ClusterError, match="refuses these settings"):
        connect("local", name="test", resources={"CPU": 1})
    assert {k: v for k, v in os.environ.items() if k.startswith("RAY_AUTH")} == {
        k: v for k, v in before.items() if k.startswith("RAY_AUTH")
    }
    assert psutil.Process().children() == []


def ray_processes() -> dict[psutil.Process, str]:
    """All processes below this one, by their names."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[process] = process.name()
    return found


@pytest.mark.ray
def test_a_failed_start_is_cleaned_up_and_tried_again_and_a_hanging_ray_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import services

    first: dict[psutil.Process, str] = {}
    get_node = services.get_node

    def lose_the_first_raylet(*arguments: Any) -> Any:
        if first:
            return get_node(*arguments)
        first.update(ray_processes())
        for process, name in first.items():
            if name == "raylet":
                process.kill()
        raise RuntimeError("the node is not there yet")

    monkeypatch.setattr(services, "get_node", lose_the_first_raylet)
    monkeypatch.setattr("cluster._private_cluster._SHUTDOWN_BOUND_S", 2.0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with connect("local", name="test", num_cpus=1, temp_dir=Path(folder)) as connection:
            assert {"raylet", "gcs_server"} <= set(first.values())
            assert [process for process in first if process.is_running()] == []
            assert len(connection.nodes()) == 1
            (own,) = Path(folder).iterdir()
            assert own.stat().st_mode & 0o077 == 0
            second = ray_processes()
            assert not any("ray::IDLE" in name for name in second.values())
            for process, name in second.items():
                if name in ("raylet", "gcs_server"):
                    process.send_signal(signal.SIGSTOP)
    assert [process for process in second if process.is_running()] == []
