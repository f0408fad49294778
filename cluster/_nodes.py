"""Nodes of a cluster on this host: ``ray start`` with the right settings, and the way back.

``ray stop`` ends every Ray of the machine. Here each node is known by a mark in the environment of
all its processes and by a record in the user's runtime folder, and nothing else is ever touched.
A node is one ``ray start --block``, which watches Ray's servers and ends them all when one dies.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from cluster._files import write_json
from cluster._locks import FileLock, private_folder, runtime_folder
from cluster._nodes_token import node_token
from cluster._orphans import find_marked, sweep_marked
from cluster._ports import lease_ports
from cluster._private_cluster import ClusterError

_MARK = "TUNER_NODE"
"""In the environment of everything that runs on a node, programs of trials included."""
_FROM_OTHERS = ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_GCS_SERVER_PORT", "RAY_AUTH_TOKEN")
_SETTINGS = {
    # By default workers run at nice 15, and so would every engine they start.
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_AGENT_PORT = 52365
"""Ray's default for the agent of a node, which another Ray on this host may have."""
_STARTED = b"Ray runtime started"
_START_BOUND_S = 120.0
_STOP_GRACE_S = 20.0
_SESSIONS_KEPT = 3
_LONGEST_TEMP_DIR = 44
"""Ray puts ``session_<date>_<pid>/sockets/plasma_store`` below it; a socket path holds 107."""


@dataclass(frozen=True)
class NodeOptions:
    """A node to start.

    Attributes:
        join: ``host:port`` of the cluster to join; None starts a new one.
        address: IP address of this host that other nodes reach; None leaves it to Ray.
        port: Of a new cluster.
        cpus: CPUs it offers; None: all there are.
        resources: Further resources. NPUs and GPUs are found by Ray where they are not named.
        labels: Its labels.
        temp_dir: Where Ray's logs and sockets go; by default the user's runtime folder.
        dashboard: Address that Ray's dashboard listens on; None: no dashboard.
        dashboard_port: Its port.
        object_store_memory: Bytes of shared memory; None leaves it to Ray, 30 % of the machine.
        token_file: Ray's token; None: ``RAY_AUTH_TOKEN_PATH`` or ``~/.ray/auth_token``.
        token: Whether whoever joins or connects must have the token.
    """

    join: str | None = None
    address: str | None = None
    port: int = 6379
    cpus: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    temp_dir: Path | None = None
    dashboard: str | None = None
    dashboard_port: int = 8265
    object_store_memory: int | None = None
    token_file: Path | None = None
    token: bool = True


@dataclass(frozen=True)
class LocalNode:
    """A node on this host that :func:`start_node` started.

    Attributes:
        id: The mark of its processes.
        pid: Of its ``ray start``.
        created: When that process was created, seconds since the epoch: a pid may come again.
        cluster: ``host:port`` of the cluster.
        head: Whether the cluster began, and ends, with it.
        folder: Of Ray's logs and sockets.
        token_file: The cluster's token; empty where it wants none.
        dashboard: URL of the dashboard; empty without one.
    """

    id: str
    pid: int
    created: float
    cluster: str
    head: bool
    folder: str
    token_file: str
    dashboard: str = ""

    @property
    def alive(self) -> bool:
        """Whether its ``ray start`` lives."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.created) < 1
                and process.status() != psutil.STATUS_ZOMBIE
            )
        return False


def start_command(options: NodeOptions, folder: Path) -> list[str]:
    """The ``ray start`` of a node whose files go to ``folder``."""
    argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    if options.join is None:
        argv += ["--head", "--port", str(options.port)]
        argv += ["--include-dashboard", "true" if options.dashboard else "false"]
        if options.dashboard:
            argv += ["--dashboard-host", options.dashboard]
            argv += ["--dashboard-port", str(options.dashboard_port)]
    else:
        argv += ["--address", options.join]
    if options.address:
        argv += ["--node-ip-address", options.address]
    if not _free(_AGENT_PORT, options.address):
        # Without its port the agent takes no jobs, and says so only in its log.
        argv += ["--dashboard-agent-listen-port", str(lease_ports().ports[0])]
    argv += ["--temp-dir", str(folder), "--disable-usage-stats"]
    if options.cpus is not None:
        argv += ["--num-cpus", f"{options.cpus:g}"]
    others = dict(options.resources)
    if (gpus := others.pop("GPU", None)) is not None:
        argv += ["--num-gpus", f"{gpus:g}"]
    if others:
        argv += ["--resources", json.dumps(others)]
    if options.labels:
        argv += ["--labels", ",".join(f"{key}={value}" for key, value in options.labels.items())]
    if options.object_store_memory is not None:
        argv += ["--object-store-memory", str(options.object_store_memory)]
    return argv


def _free(port: int, address: str | None) -> bool:
    """Whether a server of the node may listen on ``port``, at its address and on loopback."""
    try:
        for host in ("127.0.0.1", address or "0.0.0.0"):
            socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def start_node(options: NodeOptions) -> LocalNode:
    """Start a node on this host and return once it is part of its cluster.

    Raises:
        ClusterError: Its address is not of this host, the token is missing, a path is too long, or
            Ray did not start; what it left is gone then.
    """
    _check(options)
    try:
        # Ray gives a node 30 s, which two that start at once may both exceed.
        lock = FileLock(_records() / "lock")
    except BlockingIOError as error:
        raise ClusterError("another node is just being started here; wait for it") from error
    try:
        token_file = node_token(options.token_file, joins=options.join) if options.token else None
        folder = _folder(options.temp_dir)
        node_id = uuid.uuid4().hex
        environment = _environment(node_id, token_file)
        process, log = _spawn(start_command(options, folder), folder, environment)
        try:
            _await(process, log, folder)
            node = LocalNode(
                id=node_id,
                pid=process.pid,
                created=psutil.Process(process.pid).create_time(),
                cluster=options.join or f"{_own_address(options, log)}:{options.port}",
                head=options.join is None,
                folder=str(folder),
                token_file=str(token_file or ""),
                dashboard=_dashboard(options),
            )
            write_json(_records() / f"{node_id}.json", asdict(node))
        except BaseException:
            with suppress(ProcessLookupError):
                process.terminate()
            sweep_marked(_MARK, node_id, grace_s=5)
            raise
        return node
    finally:
        lock.close()


def _check(options: NodeOptions) -> None:
    if options.address is not None:
        try:
            with socket.create_server((options.address, 0)):
                pass
        except OSError as error:
            raise ClusterError(
                f"{options.address} is no address of this host: {os.strerror(error.errno or 0)}. "
                "Give the one that the other nodes reach"
            ) from error
    if options.join is None:
        living = [node for node in local_nodes() if node.head and node.alive]
        if any(node.cluster.endswith(f":{options.port}") for node in living):
            raise ClusterError(
                f"a cluster started here runs already at {living[0].cluster}; stop it with "
                "`python -m tuner cluster stop`, or give another port"
            )
        return
    host, _, port = options.join.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except ValueError as error:
        raise ClusterError(f"{options.join!r} is no address such as 10.0.0.1:6379") from error
    except OSError as error:
        raise ClusterError(
            f"nothing answers at {options.join}: {error}. Start the head first, with "
            "`python -m tuner cluster start --address` and its address in the nodes' network"
        ) from error


def _records() -> Path:
    return private_folder(runtime_folder() / "nodes")


def local_nodes() -> list[LocalNode]:
    """Nodes that were started on this host by this user and not stopped, dead ones included."""
    found = []
    for file in sorted(_records().glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            found.append(LocalNode(**json.loads(file.read_bytes())))
    return found


def _folder(temp_dir: Path | None) -> Path:
    """A folder for Ray that no other node of this host uses; old sessions are pruned."""
    parent = temp_dir / f"tuner-{os.getuid()}" if temp_dir else runtime_folder() / "ray"
    base = private_folder(parent.absolute())
    used = {node.folder for node in local_nodes() if node.alive or find_marked(_MARK, node.id)}
    folder = next(
        path for path in (base / f"node{number}" for number in range(1000)) if str(path) not in used
    )
    if len(str(folder)) > _LONGEST_TEMP_DIR:
        raise ClusterError(
            f"the folder for Ray, {folder}, has a path of more than {_LONGEST_TEMP_DIR} "
            "characters, too long for the sockets Ray makes in it. Choose a shorter --temp-dir"
        )
    folder.mkdir(mode=0o700, exist_ok=True)
    for session in sorted(folder.glob("session_2*"), reverse=True)[_SESSIONS_KEPT - 1 :]:
        shutil.rmtree(session, ignore_errors=True)
    return folder


def _environment(node_id: str, token_file: Path | None) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in _FROM_OTHERS}
    for key, value in _SETTINGS.items():
        environment.setdefault(key, value)
    environment[_MARK] = node_id
    if token_file is None:
        return {**environment, "RAY_AUTH_MODE": "disabled"}
    return {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}


def _spawn(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Path]:
    log = folder / "start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
        )
    return process, log


def _await(process: subprocess.Popen[bytes], log: Path, folder: Path) -> None:
    deadline = time.monotonic() + _START_BOUND_S
    while _STARTED not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise ClusterError(
                "Ray did not start: " + " / ".join(lines[-4:]) + f". All it said is in {log}, its "
                f"logs in {folder}/session_latest/logs"
            )
        time.sleep(0.1)


def _own_address(options: NodeOptions, log: Path) -> str:
    """The address a new cluster was given, by the user or by Ray, which says it."""
    if options.address is not None:
        return options.address
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("Local node IP:"):
            return line.partition(":")[2].strip()
    return socket.gethostbyname(socket.gethostname())


def _dashboard(options: NodeOptions) -> str:
    if options.join is not None or options.dashboard is None:
        return ""
    return f"http://{options.dashboard}:{options.dashboard_port}"


@dataclass(frozen=True)
class StoppedNode:
    """A node that :func:`stop_nodes` has stopped.

    Attributes:
        cluster: ``host:port`` of its cluster.
        head: Whether that cluster has ended with it.
        was_alive: Or it had ended before.
        killed: Processes that did not end by themselves.
    """

    cluster: str
    head: bool
    was_alive: bool
    killed: Sequence[str]


def stop_nodes(only: str | None = None) -> list[StoppedNode]:
    """Stop all nodes that were started on this host by this user, those that joined first.

    Each ends as on SIGTERM, its trials' programs with it; what is left after 20 s is killed.

    Args:
        only: The id of a single one.

    Raises:
        ProcessesRemainError: Some do not even end when killed; the record is kept.
    """
    wanted = [node for node in local_nodes() if only in (None, node.id)]
    return [_stop(node) for node in sorted(wanted, key=lambda node: node.head)]


def _stop(node: LocalNode) -> StoppedNode:
    was_alive = node.alive
    if was_alive:
        with suppress(ProcessLookupError):
            os.kill(node.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_GRACE_S
    while (left := find_marked(_MARK, node.id)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        sweep_marked(_MARK, node.id, grace_s=2)
    (_records() / f"{node.id}.json").unlink(missing_ok=True)
    return StoppedNode(node.cluster, node.head, was_alive, [str(process) for process in left])
