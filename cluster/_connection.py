"""The one place where Ray is started or joined.

A private local cluster listens on all interfaces of the machine, as Ray's servers do, and whoever
may talk to them may run code. So it always demands a token, kept in a file only this user can
read, and its sockets and logs live in a folder only this user can enter.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import psutil

from cluster._dashboard import DeferredDashboard, without_dashboard_process
from cluster._files import write_atomic
from cluster._locks import FileLock, private_folder, runtime_folder
from cluster._orphans import RUN_VARIABLE
from cluster._resources import Node

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
"""Defaults for Ray and Tune; what the user has set wins. Tune reads some when it is imported."""
_SYSTEM = {
    # Workers started ahead are of no use to Tune, whose trials have a runtime environment of their
    # own, and on a large machine there would be hundreds of them.
    "prestart_worker_first_driver": False,
    # By default workers run at nice 15, and so would every engine they start.
    "worker_niceness": 0,
}
_NOT_FOR_PRIVATE = (
    "RAY_ADDRESS",
    "RAY_REDIS_ADDRESS",
    "RAY_GCS_SERVER_PORT",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
    "RAY_AUTH_MODE",
)
"""Variables that would lead a private cluster to another one, or leave its door open."""
_SESSIONS_KEPT = 3
_LONGEST_TEMP_DIR = 44
"""Ray puts ``session_<date>_<pid>/sockets/plasma_store`` below it; a socket path holds 107."""
_SHUTDOWN_BOUND_S = 20.0
_ANSWER_BOUND_S = 10.0


class ClusterError(RuntimeError):
    """The cluster could not be started or reached. The message is for the user."""


class Connection:
    """A connected Ray, until :meth:`close` or the end of the context. Made by :func:`connect`.

    Attributes:
        name: The name it was connected under, which is also Ray's namespace.
        address: ``host:port`` of the cluster, or the ``ray://`` address.
        is_local: Whether this process started the cluster and will stop it.
        token_file: The token of a private cluster, which the dashboard asks for.
    """

    def __init__(self, name: str, is_local: bool, resources: ExitStack) -> None:
        self.name = name
        self.address = ""
        self.is_local = is_local
        self.token_file: Path | None = None
        self._url: str | None = None
        self._dashboard: DeferredDashboard | None = None
        self._resources = resources

    def nodes(self) -> list[Node]:
        """All nodes Ray knows, dead ones included."""
        import ray

        return [
            Node(
                id=node["NodeID"],
                address=node["NodeManagerAddress"],
                resources=dict(node["Resources"]),
                labels=dict(node.get("Labels") or {}),
                alive=bool(node["Alive"]),
            )
            for node in ray.nodes()
        ]

    @property
    def dashboard_url(self) -> str | None:
        """Where Ray's dashboard answers; ``None`` when there is none, or not yet."""
        return self._dashboard.url if self._dashboard else self._url

    def _end_dashboard(self) -> None:
        if self._dashboard is not None:
            self._dashboard.close()

    def close(self) -> None:
        """Leave the cluster; a private one is stopped, with all its processes, in bounded time."""
        self._resources.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    address: str = "local",
    *,
    name: str,
    dashboard: bool = False,
    temp_dir: Path | None = None,
    object_store_memory: int = 100 * 2**20,
    num_cpus: int | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Connection:
    """Start a private cluster on this machine, or join one that runs.

    Args:
        address: ``local`` starts a private cluster, whatever else runs here; ``auto`` joins the
            one that ``RAY_ADDRESS`` names or that runs on this machine; else ``host:port`` or
            ``ray://host:port``.
        name: Name of the run.
        dashboard: Start Ray's dashboard with a private cluster. It comes up in the background.
        temp_dir: Where a private cluster keeps logs, sockets and spilled objects, in a folder of
            its own; by default in the user's runtime folder. The last three sessions are kept.
        object_store_memory: Bytes of shared memory of a private cluster.
        num_cpus: CPUs a private cluster offers; all of the machine by default.
        resources: Further resources it offers. NPUs and GPUs are found without.
        labels: Labels of its node.

    Raises:
        ClusterError: It could not be started or reached; a start is tried twice.
    """
    import ray

    if ray.is_initialized():
        raise ClusterError("this process is connected to a cluster already; close that first")
    with ExitStack() as stack:
        stack.enter_context(_environment())
        if address == "local":
            options = {
                "num_cpus": num_cpus,
                "resources": dict(resources or {}) or None,
                "labels": dict(labels or {}) or None,
                "object_store_memory": object_store_memory,
            }
            connection = _start(name, dashboard, temp_dir, options, stack)
        elif num_cpus is not None or resources or labels:
            raise ClusterError(
                "CPUs, resources and labels belong to the nodes of a running cluster: give them "
                f"to `ray start` there, or use the address local instead of {address}"
            )
        else:
            connection = _join(address, name, stack)
        # With log_to_driver off, Ray still prints the deaths of workers on standard output, which is
        # ours; whoever waits for the worker hears of it.
        ray._private.worker._worker_logs_enabled = False
        connection._resources = stack.pop_all()
        return connection


def _environment() -> ExitStack:
    """Apply our settings; closing brings the variables of Ray and Tune back as they were."""
    before = dict(os.environ)

    def restore() -> None:
        for key in set(os.environ) | set(before):
            if key.startswith(("RAY_", "TUNE_")):
                os.environ.pop(key, None)
                if key in before:
                    os.environ[key] = before[key]

    stack = ExitStack()
    stack.callback(restore)
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    return stack


def _start(
    name: str,
    dashboard: bool,
    temp_dir: Path | None,
    options: Mapping[str, Any],
    stack: ExitStack,
) -> Connection:
    if threading.current_thread() is not threading.main_thread():
        # Ray's processes get SIGKILL when the thread that started them ends.
        raise ClusterError("a private cluster must be started from the main thread")
    folder = _slot(temp_dir, stack)
    if len(str(folder)) > _LONGEST_TEMP_DIR:
        raise ClusterError(
            f"the folder for Ray, {folder}, has a path of more than {_LONGEST_TEMP_DIR} "
            "characters, too long for the sockets Ray makes in it. Choose a shorter one"
        )
    connection = Connection(name, True, stack)
    for variable in _NOT_FOR_PRIVATE:
        os.environ.pop(variable, None)
    if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        connection.token_file = _token_file()
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(connection.token_file)
    # A node without the vendor's Python packages logs two tracebacks when it offers NPUs.
    logging.getLogger("ray._private.accelerators.npu").setLevel(logging.CRITICAL)
    stack.callback(connection._end_dashboard)
    deferred = _init_private(name, folder, options)
    stack.callback(_stop, folder)
    import ray

    connection.address = ray.get_runtime_context().gcs_address
    if dashboard and deferred:
        connection._dashboard = DeferredDashboard()
    return connection


def _init_private(name: str, folder: Path, options: Mapping[str, Any]) -> bool:
    """Start Ray, once more if it fails; whether the dashboard can be started later."""
    import ray

    for last in (False, True):
        try:
            with without_dashboard_process() as deferred:
                ray.init(
                    address="local",
                    namespace=name,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=str(folder),
                    _system_config=_SYSTEM,
                    **options,
                )
            return deferred
        except BaseException as error:
            _stop(folder)
            if not isinstance(error, Exception):
                raise
            if last or isinstance(error, (ValueError, TypeError)):
                raise ClusterError(
                    f"Ray did not start on this machine: {error}. Its logs are in "
                    f"{folder}/session_latest/logs; a machine short of CPU or memory is the usual "
                    "reason"
                ) from error
    raise AssertionError("unreachable")


def _stop(folder: Path) -> None:
    """Stop the private cluster whose files are in ``folder``, and nothing else."""
    import ray

    processes = _ray_processes(folder)
    watchdog = threading.Timer(_SHUTDOWN_BOUND_S, _kill, (processes,))
    watchdog.daemon = True
    watchdog.start()
    try:
        with suppress(Exception):
            ray.shutdown()
    finally:
        watchdog.cancel()
    processes = list({*processes, *_ray_processes(folder)})
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=5)
    _kill(alive)
    psutil.wait_procs(alive, timeout=5)


def _ray_processes(folder: Path) -> list[psutil.Process]:
    """Ray's processes that this process started with files in ``folder``, and their workers.

    Programs of trials are not among them: they have wardens, and end with their owners.
    """
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(f"{folder}/session_" in argument for argument in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return [process for process in found if not _belongs_to_run(process)]


def _belongs_to_run(process: psutil.Process) -> bool:
    try:
        return RUN_VARIABLE in process.environ()
    except psutil.Error:
        return False


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _slot(temp_dir: Path | None, stack: ExitStack) -> Path:
    """A folder for Ray that no other living cluster of this user uses; old sessions are pruned.

    Ray lets everybody write to the folder it is given; the one around it keeps others out.
    """
    parent = temp_dir / f"tuner-{os.getuid()}" if temp_dir else runtime_folder() / "ray"
    base = private_folder(parent)
    for number in range(1000):
        folder = base / str(number)
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            # A lock on the folder itself also keeps systemd-tmpfiles from cleaning it up.
            stack.callback(FileLock(folder).close)
        except BlockingIOError:
            continue
        sessions = sorted(folder.glob("session_2*"), reverse=True)
        for session in sessions[_SESSIONS_KEPT - 1 :]:
            shutil.rmtree(session, ignore_errors=True)
        return folder
    raise ClusterError(f"all folders in {base} are in use")


def _token_file() -> Path:
    """The user's token for private clusters on this host; made at the first use."""
    path = runtime_folder() / "ray-token"
    if not path.exists():
        candidate = path.with_name(f"ray-token-{os.getpid()}")
        write_atomic(candidate, secrets.token_hex(32), mode=0o600)
        with suppress(FileExistsError):
            path.hardlink_to(candidate)
        candidate.unlink()
    return path


def _join(address: str, name: str, stack: ExitStack) -> Connection:
    import ray

    if address != "auto":
        _probe(address)
    try:
        context = ray.init(
            address=address, namespace=name, log_to_driver=False, logging_level="ERROR"
        )
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        raise ClusterError(
            f"no connection to a Ray cluster at address {address}: {error}. Check that the "
            "cluster runs, that Ray and Python have the same versions here and there, and that "
            "RAY_AUTH_TOKEN_PATH names its token if it demands one"
        ) from error
    stack.callback(ray.shutdown)
    connection = Connection(name, False, stack)
    connection.address = address if "://" in address else ray.get_runtime_context().gcs_address
    if context.dashboard_url:
        connection._url = f"http://{context.dashboard_url}"
    return connection


def _probe(address: str) -> None:
    """Fail at once, and plainly, when nothing answers at ``address``."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ClusterError(
            f"{address!r} is no address of a cluster; write local, auto, host:port or "
            "ray://host:port"
        )
    try:
        socket.create_connection((host, port), timeout=_ANSWER_BOUND_S).close()
    except OSError as error:
        raise ClusterError(f"nothing answers at {address}: {error}") from error
