"""A Ray cluster of several real nodes on this machine, each in a network of its own.

Every node is a raylet started by ``ray start``, in a network namespace with its own address; all of
them meet on a bridge, whose address is the head's. So nodes really differ: they have addresses, a
connection between two of them can be cut, and one of them can be killed. That needs root and
``ip``; elsewhere nodes have loopback addresses, and tests that cut connections are skipped.

What a killed test run left behind is removed by the next one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from cluster import lease_ports

RAY = str(Path(sys.executable).with_name("ray"))
_START_S = 120.0
_OWNER = "TUNER_TEST_NODES"
"""In the environment of all processes of a cluster: the process id of the tests."""
_numbers = itertools.count(2)
"""Of networks. The kernel removes interfaces some time after the namespace that they were in, so no
name is given twice."""


def isolation() -> str | None:
    """Why nodes cannot have networks of their own here; None when they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None:
        return "network namespaces need the program ip"
    name = f"nd{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this machine permits no network namespaces"
    _ip("netns", "del", name)
    return None


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def remove_leftovers() -> None:
    """End clusters whose tests are dead, and remove their networks and files."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError, ValueError):
            owner = process.environ().get(_OWNER)
            if owner and not psutil.pid_exists(int(owner)):
                process.kill()
    for folder in Path("/tmp").glob("nodes-*-*"):
        if _abandoned(folder.name.split("-")[1]):
            shutil.rmtree(folder, ignore_errors=True)
    if isolation() is None:
        for line in _ip("netns", "list").splitlines():
            found = re.match(r"nd(\d+)-", line)
            if found and _abandoned(found[1]):
                _remove("netns", line.split()[0])
        for link in json.loads(_ip("-json", "link", "show", "type", "bridge") or "[]"):
            found = re.fullmatch(r"nd(\d+)", link.get("ifname", ""))
            if found and _abandoned(found[1]):
                _remove("link", link["ifname"])


def _remove(kind: str, name: str) -> None:
    with suppress(subprocess.CalledProcessError):  # other tests may remove it just now
        _ip(kind, "del", name)


def _abandoned(pid: str) -> bool:
    return pid.isdigit() and not psutil.pid_exists(int(pid))


class Node:
    """A raylet with everything below it. Made by :meth:`Nodes.add`.

    Attributes:
        address: Its IP address.
        namespace: Of its network; empty for the head, and where there are none.
        started_s: Seconds until it was part of the cluster.
    """

    def __init__(self, address: str, namespace: str, process: subprocess.Popen[bytes]) -> None:
        self.address = address
        self.namespace = namespace
        self.process = process
        self.started_s = 0.0
        self._family: set[psutil.Process] = set()

    def family(self) -> set[psutil.Process]:
        """All processes of the node that were ever seen, those of Ray and of trials."""
        with suppress(psutil.Error):
            me = psutil.Process(self.process.pid)
            self._family |= {me, *me.children(recursive=True)}
        return self._family

    def raylet(self) -> psutil.Process:
        return next(one for one in self.family() if one.is_running() and one.name() == "raylet")


class Networks:
    """Namespaces that meet on a bridge. Made by :func:`networks`.

    Attributes:
        address: Of the bridge, on this machine's side.
    """

    def __init__(self, subnet: str, bridge: str | None) -> None:
        self.address = f"{subnet}.1"
        self._subnet = subnet
        self._bridge = bridge
        self._namespaces: list[str] = []
        self._count = 1

    def open(self) -> None:
        assert self._bridge is not None
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def add(self) -> tuple[str, str]:
        """A network for one more node: its address and namespace, empty where there are none."""
        self._count += 1
        number = self._count
        address = f"{self._subnet}.{number}"
        if self._bridge is None:
            return address, ""
        name = next(_numbers)
        namespace = f"{self._bridge}-{name}"
        outside, inside = f"{self._bridge}o{name}", f"{self._bridge}i{name}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", namespace)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", inside)
        _ip("-n", namespace, "link", "set", inside, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        return address, namespace

    def cut(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        """Drop all between two nodes, each given as (namespace, address)."""
        if self._bridge is None:
            pytest.skip("nodes have no networks of their own here, which could be cut")
        self._route("add", one, other)

    def heal(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        """Undo :meth:`cut`."""
        self._route("del", one, other)

    def _route(self, verb: str, one: tuple[str, str], other: tuple[str, str]) -> None:
        for (namespace, _), (_, address) in ((one, other), (other, one)):
            inside = ["-n", namespace] if namespace else []
            _ip(*inside, "route", verb, "blackhole", f"{address}/32")

    def close(self) -> None:
        assert self._bridge is not None
        for namespace in self._namespaces:
            _remove("netns", namespace)
        _remove("link", self._bridge)


class Nodes:
    """The cluster. Made by :func:`nodes`.

    Attributes:
        address: For ``cluster.address``.
        environment: Variables that a driver needs: the token.
        alive: Nodes that were not killed, the head first.
    """

    def __init__(self, folder: Path, networks: Networks) -> None:
        self.folder = folder
        self.alive: list[Node] = []
        self._all: list[Node] = []
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._networks = networks
        self._lease = lease_ports(1)

    @property
    def address(self) -> str:
        return f"{self._networks.address}:{self._lease.ports[0]}"

    def start_head(self, cpus: float = 1) -> Node:
        address = self._networks.address
        port = str(self._lease.ports[0])
        place = ["--head", "--port", port, "--include-dashboard", "false"]
        return self._start(address, "", place, {"CPU": cpus}, {}, {})

    def add(
        self,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Node:
        """One more node, up when this returns.

        Args:
            resources: ``CPU`` and whatever else it offers, such as ``NPU``.
            labels: Its labels.
            environment: Further variables of its processes.
        """
        address, namespace = self._networks.add()
        place = ["--address", self.address]
        return self._start(
            address, namespace, place, resources or {"CPU": 1}, labels or {}, environment or {}
        )

    def _start(
        self,
        address: str,
        namespace: str,
        place: list[str],
        resources: Mapping[str, float],
        labels: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> Node:
        others = dict(resources)
        cpus = others.pop("CPU", 1)
        argv = [RAY, "start", "--block", *place, "--node-ip-address", address]
        argv += ["--num-cpus", f"{cpus:g}", "--resources", json.dumps(others)]
        argv += ["--object-store-memory", str(100 * 2**20), "--disable-usage-stats"]
        argv += ["--include-log-monitor", "false"]
        argv += ["--temp-dir", str(self.folder / f"ray{len(self._all)}")]
        if labels:
            argv += ["--labels", ",".join(f"{key}={value}" for key, value in labels.items())]
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **self.environment,
            **environment,
            "RAY_worker_niceness": "0",
            _OWNER: str(os.getpid()),
        }
        for _ in range(2):
            # Ray gives a node 30 s, which a loaded machine may need longer than.
            with suppress(RuntimeError):
                return self._try([*inside, *argv], address, namespace, variables)
        return self._try([*inside, *argv], address, namespace, variables)

    def _try(
        self, argv: list[str], address: str, namespace: str, variables: Mapping[str, str]
    ) -> Node:
        log = self.folder / f"node-{address}.log"
        before = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables,
                start_new_session=True,
            )
        node = Node(address, namespace, process)
        self._all.append(node)
        self._await(node, log)
        node.started_s = time.monotonic() - before
        self.alive.append(node)
        return node

    def _await(self, node: Node, log: Path) -> None:
        """``ray start`` says this line once the node is part of the cluster."""
        deadline = time.monotonic() + _START_S
        while b"Ray runtime started" not in log.read_bytes():
            if node.process.poll() is not None or time.monotonic() > deadline:
                self._end(node)
                raise RuntimeError(f"the node {node.address} did not start:\n{log.read_text()}")
            node.family()
            time.sleep(0.1)
        node.family()

    def kill(self, node: Node) -> None:
        """As when a machine loses power: all of it at once."""
        self._end(node)
        self.alive.remove(node)

    def _end(self, node: Node) -> None:
        family = node.family()
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(family), timeout=120)
        node.process.wait(120)

    def kill_raylet(self, node: Node) -> None:
        """Ray's server of the node dies; whatever it started is left to itself."""
        node.family()
        node.raylet().kill()
        node.process.wait(120)
        self.alive.remove(node)

    def cut(self, one: Node, other: Node) -> None:
        """Nothing gets from one node to the other any more, in either direction."""
        self._networks.cut((one.namespace, one.address), (other.namespace, other.address))

    def heal(self, one: Node, other: Node) -> None:
        """Undo :meth:`cut`."""
        self._networks.heal((one.namespace, one.address), (other.namespace, other.address))

    def close(self) -> None:
        """Everything ends: processes of all nodes, dead ones' too, and their networks."""
        for node in reversed(self.alive):
            node.family()
            with suppress(ProcessLookupError):
                node.process.send_signal(signal.SIGTERM)
        psutil.wait_procs([one for node in self.alive for one in node.family()], timeout=10)
        for node in self._all:
            self._end(node)
        self._lease.release()


@contextmanager
def nodes(cpus: float = 1, isolated: bool | None = None) -> Iterator[Nodes]:
    """A cluster of a head on this machine's side, with ``cpus``, to which nodes are added.

    Args:
        cpus: What the head offers; 0 keeps trials off it.
        isolated: Whether nodes have networks of their own. By default they have where this machine
            permits it; ``True`` skips the test elsewhere.
    """
    with networks(isolated) as made, ExitStack() as stack:
        # Paths of sockets are short.
        folder = Path(tempfile.mkdtemp(prefix=f"nodes-{os.getpid()}-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = Nodes(folder, made)
        stack.callback(cluster.close)
        cluster.start_head(cpus)
        yield cluster


@contextmanager
def networks(isolated: bool | None = None) -> Iterator[Networks]:
    """Networks for nodes that the caller starts. ``isolated`` as for :func:`nodes`."""
    remove_leftovers()
    why = isolation() if isolated is not False else "not wanted"
    if isolated and why is not None:
        pytest.skip(why)
    pid = os.getpid()
    if why is not None:
        yield Networks(f"127.{1 + pid % 250}.{pid // 250 % 250}", None)
        return
    # Names of interfaces have 15 characters; tests of several processes run side by side.
    made = Networks(f"10.{100 + pid % 100}.{pid // 100 % 250}", f"nd{pid}")
    try:
        made.open()
        yield made
    finally:
        made.close()
