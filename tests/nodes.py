"""A Ray cluster of several real nodes on this machine, each in a network of its own.

Every node is a raylet started by ``ray start``, in a network namespace with its own address; all of
them meet on a bridge, whose address is the head's. So nodes really differ: they have addresses, a
connection between two of them can be cut, and one of them can be killed. Needs root and ``ip``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from cluster import lease_ports

RAY = str(Path(sys.executable).with_name("ray"))
_START_S = 90.0


def isolation() -> str | None:
    """Why nodes cannot have networks of their own here; None when they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the program ip"
    name = f"probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this machine permits no network namespaces"
    _ip("netns", "del", name)
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


class Node:
    """A raylet with everything below it. Made by :meth:`Nodes.add`.

    Attributes:
        address: Its IP address.
        namespace: Of its network; empty for the head.
    """

    def __init__(self, address: str, namespace: str, process: subprocess.Popen[bytes]) -> None:
        self.address = address
        self.namespace = namespace
        self.process = process
        self._family: set[psutil.Process] = set()

    def family(self) -> set[psutil.Process]:
        """All processes of the node that were ever seen, those of Ray and of trials."""
        with suppress(psutil.Error):
            me = psutil.Process(self.process.pid)
            self._family |= {me, *me.children(recursive=True)}
        return self._family

    def raylet(self) -> psutil.Process:
        return next(one for one in self.family() if one.is_running() and one.name() == "raylet")


class Nodes:
    """The cluster. Made by :func:`nodes`.

    Attributes:
        address: For ``cluster.address``.
        environment: Variables that a driver needs: the token.
        alive: Nodes that were not removed, the head first.
    """

    def __init__(self, folder: Path, subnet: str, bridge: str) -> None:
        self.folder = folder
        self.alive: list[Node] = []
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._subnet = subnet
        self._bridge = bridge
        self._count = 0
        self._port = lease_ports(1).ports[0]

    @property
    def address(self) -> str:
        return f"{self._subnet}.1:{self._port}"

    def start_head(self, cpus: float = 1) -> Node:
        address = f"{self._subnet}.1"
        place = ["--head", "--port", str(self._port), "--temp-dir", str(self.folder / "ray")]
        place += ["--include-dashboard", "false"]
        return self._start(address, "", place, {"CPU": cpus}, {})

    def add(
        self,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Node:
        """One more node, up when this returns.

        Args:
            resources: ``CPU`` and whatever else it offers, such as ``NPU``.
            labels: Its labels.
        """
        self._count += 1
        number = self._count + 1
        address, namespace = f"{self._subnet}.{number}", f"{self._bridge}-{number}"
        outside, inside = f"{self._bridge}o{number}", f"{self._bridge}i{number}"
        _ip("netns", "add", namespace)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", namespace)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", inside)
        _ip("-n", namespace, "link", "set", inside, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        return self._start(
            address, namespace, ["--address", self.address], resources or {"CPU": 1}, labels or {}
        )

    def _start(
        self,
        address: str,
        namespace: str,
        place: list[str],
        resources: Mapping[str, float],
        labels: Mapping[str, str],
    ) -> Node:
        others = dict(resources)
        cpus = others.pop("CPU", 1)
        argv = [RAY, "start", "--block", *place, "--node-ip-address", address]
        argv += ["--num-cpus", f"{cpus:g}", "--resources", json.dumps(others)]
        argv += ["--object-store-memory", str(100 * 2**20), "--disable-usage-stats"]
        if labels:
            argv += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **self.environment,
            "RAY_worker_niceness": "0",
        }
        log = self.folder / f"node-{address}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*inside, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        node = Node(address, namespace, process)
        self.alive.append(node)
        self._await(node, log)
        return node

    def _await(self, node: Node, log: Path) -> None:
        """``ray start`` says this line once the node is part of the cluster."""
        deadline = time.monotonic() + _START_S
        while b"Ray runtime started" not in log.read_bytes():
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node {node.address} did not start:\n{log.read_text()}")
            time.sleep(0.1)
        node.family()

    def kill(self, node: Node) -> None:
        """As when a machine loses power: all of it at once."""
        family = node.family()
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(family), timeout=20)
        node.process.wait(20)
        self.alive.remove(node)

    def kill_raylet(self, node: Node) -> None:
        """Ray's server of the node dies; whatever it started is left to itself."""
        node.family()
        node.raylet().kill()
        node.process.wait(30)
        self.alive.remove(node)

    def cut(self, one: Node, other: Node) -> None:
        """Nothing gets from one node to the other any more, in either direction."""
        for here, there in ((one, other), (other, one)):
            _ip(*self._inside(here), "route", "add", "blackhole", f"{there.address}/32")

    def heal(self, one: Node, other: Node) -> None:
        """Undo :meth:`cut`."""
        for here, there in ((one, other), (other, one)):
            _ip(*self._inside(here), "route", "del", "blackhole", f"{there.address}/32")

    def _inside(self, node: Node) -> list[str]:
        return ["-n", node.namespace] if node.namespace else []

    def close(self) -> None:
        """Everything ends: processes of all nodes, dead ones' too, and their networks."""
        for node in reversed(self.alive):
            with suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGTERM)
        family = {process for node in self.alive for process in node.family()}
        psutil.wait_procs(list(family), timeout=10)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        for node in self.alive:
            node.process.wait(20)
        for number in range(2, self._count + 2):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", f"{self._bridge}-{number}")


@contextmanager
def nodes(cpus: float = 1) -> Iterator[Nodes]:
    """A cluster of a head on this machine's side, with ``cpus``, to which nodes are added.

    Skips the test where nodes cannot have networks of their own.
    """
    if (why := isolation()) is not None:
        pytest.skip(why)
    # Names of interfaces have 15 characters; several of these may be used at once.
    bridge = f"t{os.getpid() % 100_000}"
    subnet = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
    # Paths of sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        made = Nodes(folder, subnet, bridge)
        try:
            made.start_head(cpus)
            yield made
        finally:
            made.close()
    finally:
        _ip("link", "del", bridge)
        shutil.rmtree(folder, ignore_errors=True)
