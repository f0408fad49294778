"""Nodes of a cluster on this host: ``ray start`` with the right settings, and the way back.

``ray stop`` ends every Ray of the machine. Here each node is known by a mark in the environment of
all its processes and by a record in the user's runtime folder, and nothing else is ever touched.
A node is one ``ray start --block``, which watches Ray's servers and ends them all when one dies.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from cluster._files import write_json
from cluster._locks import FileLock, private_folder, runtime_folder
from cluster._nodes_options import NodeOptions, start_command
from cluster._nodes_token import node_token
from cluster._orphans import find_marked, sweep_marked
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
_STARTED = b"Ray runtime started"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OWN_ADDRESS = re.compile(r"Local node IP: (\S+)")
_START_BOUND_S = 120.0
_STARTS = 3
_STOP_GRACE_S = 20.0
_SESSIONS_KEPT = 3
_LONGEST_TEMP_DIR = 44
"""Ray puts ``session_<date>_<pid>/sockets/plasma_store`` below it; a socket path holds 107."""


@dataclass(frozen=True)
class LocalNode:
    """A node on this host that :func:`start_node` started.

    Attributes:
        id: The mark of its processes.
        pid: Of its ``ray start``.
        created: When that process was created, seconds since the epoch: a pid may come again.
        cluster: ``host:port`` of the cluster; empty while its head is being started.
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
        for _ in range(_STARTS - 1):
            with suppress(_TimedOut):
                return _try_start(options, folder, token_file)
        return _try_start(options, folder, token_file)
    finally:
        lock.close()


class _TimedOut(ClusterError):
    """Ray gave up waiting for its own servers, as happens on a loaded machine."""


def _try_start(options: NodeOptions, folder: Path, token_file: Path | None) -> LocalNode:
    node_id = uuid.uuid4().hex
    record = _records() / f"{node_id}.json"
    environment = _environment(node_id, token_file)
    process, log = _spawn(start_command(options, folder), folder, environment)
    try:
        node = LocalNode(
            id=node_id,
            pid=process.pid,
            created=psutil.Process(process.pid).create_time(),
            cluster=options.join or "",
            head=options.join is None,
            folder=str(folder),
            token_file=str(token_file or ""),
            dashboard=_dashboard(options),
        )
        # Were we killed while Ray starts, `stop` would still find it.
        write_json(record, asdict(node))
        _await(process, log, folder)
        if options.join is None:
            node = replace(node, cluster=f"{_own_address(options, log)}:{options.port}")
            write_json(record, asdict(node))
    except BaseException:
        with suppress(ProcessLookupError):
            process.terminate()
        sweep_marked(_MARK, node_id, grace_s=5)
        record.unlink(missing_ok=True)
        raise
    return node


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
            text = _plain(log)
            lines = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing"]
            kind = _TimedOut if "timed out during startup" in text else ClusterError
            raise kind(
                f"Ray did not start. It said last: {lines[-1].rstrip('.')}. All it said is in "
                f"{log}, its logs in {folder}/session_latest/logs"
            )
        time.sleep(0.1)


def _own_address(options: NodeOptions, log: Path) -> str:
    """The address of a new cluster. Ray, which says it, takes another one for 127.0.0.1."""
    if said := _OWN_ADDRESS.search(_plain(log)):
        return said[1]
    return options.address or socket.gethostbyname(socket.gethostname())


def _plain(log: Path) -> str:
    """What Ray said; it colours its words, and puts times before them, as it likes."""
    return _COLOURS.sub("", log.read_text(errors="replace"))


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
