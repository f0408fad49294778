"""The one place where Ray is started or joined."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster._dashboard import DeferredDashboard
from cluster._nodes import local_nodes
from cluster._nodes_token import token_path
from cluster._private_cluster import ClusterError, PrivateCluster
from cluster._resources import Node

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
"""Defaults for Ray and Tune; what the user has set wins. Tune reads some when it is imported."""
_ANSWER_BOUND_S = 10.0


class Connection:
    """A connected Ray, until :meth:`close` or the end of the context. Made by :func:`connect`.

    Attributes:
        name: The name it was connected under, which is also Ray's namespace.
        address: ``host:port`` of the cluster, or the ``ray://`` address.
    """

    def __init__(self, name: str, resources: ExitStack) -> None:
        self.name = name
        self.address = ""
        self._url: str | None = None
        self._dashboard: DeferredDashboard | None = None
        self._private: PrivateCluster | None = None
        self._resources = resources

    @property
    def is_local(self) -> bool:
        """Whether this process started the cluster and will stop it."""
        return self._private is not None

    @property
    def token_file(self) -> Path | None:
        """The token of a private cluster, which its dashboard asks for."""
        return self._private.token_file if self._private else None

    @property
    def lost(self) -> str | None:
        """In words, what of a private cluster died by itself; no trial can go on then."""
        return self._private.lost if self._private else None

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

    def __exit__(self, *_: object) -> None:
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
            one that ``RAY_ADDRESS`` names or that ``ray start`` started on this machine, never a
            private one; else ``host:port`` or ``ray://host:port``.
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
        _keep_standard_output_ours()
        connection._resources = stack.pop_all()
        return connection


def _keep_standard_output_ours() -> None:
    """Stop Ray from printing deaths of workers there, as it does even with log_to_driver off.

    Whoever waits for the worker hears of its death.
    """
    import ray

    ray._private.worker._worker_logs_enabled = False


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
    import ray

    connection = Connection(name, stack)
    stack.callback(connection._end_dashboard)
    connection._private = private = PrivateCluster(name, temp_dir, options)
    stack.callback(private.close)
    connection.address = ray.get_runtime_context().gcs_address
    if dashboard:
        connection._dashboard = DeferredDashboard()
    return connection


def _join(address: str, name: str, stack: ExitStack) -> Connection:
    import ray

    ours = [node for node in local_nodes() if node.cluster and node.alive]
    if address == "auto":
        # Left to itself, Ray would also take any private cluster it finds among the processes.
        found = (
            os.environ.get("RAY_ADDRESS")
            or next((node.cluster for node in ours), None)
            or ray._private.services.find_bootstrap_address(None)
        )
        if not found:
            raise ClusterError(
                "no Ray cluster runs on this machine: RAY_ADDRESS is not set, and neither `python "
                "-m tuner cluster start` nor `ray start` has been used here. Start one, give its "
                "host:port, or use the address local"
            )
        os.environ["RAY_ADDRESS"] = found
    target = os.environ["RAY_ADDRESS"] if address == "auto" else address
    _probe(target)
    if "RAY_AUTH_MODE" not in os.environ:
        _use_token(next((node.token_file for node in ours if node.cluster == target), None))
    try:
        context = ray.init(
            address=address, namespace=name, log_to_driver=False, logging_level="ERROR"
        )
    except Exception as error:
        with suppress(Exception):
            ray.shutdown()
        raise ClusterError(
            f"no connection to a Ray cluster at address {address}: {error.__cause__ or error}. "
            "Check that the cluster runs and that Ray and Python have the same versions here and "
            "there. If it demands a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH when "
            "the token is not in ~/.ray/auth_token"
        ) from error
    stack.callback(ray.shutdown)
    connection = Connection(name, stack)
    connection.address = address if "://" in address else ray.get_runtime_context().gcs_address
    if context.dashboard_url:
        connection._url = f"http://{context.dashboard_url}"
    return connection


def _use_token(file: str | None) -> None:
    """Show the token in ``file`` (empty: none is wanted), or the one where Ray looks.

    Ray uses a token that it finds only where the mode is set, and remembers both.
    """
    import ray

    if file is None:
        file = str(token_path()) if token_path().exists() else ""
    os.environ["RAY_AUTH_MODE"] = "token" if file or "RAY_AUTH_TOKEN" in os.environ else "disabled"
    if file and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_TOKEN_PATH"] = file
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


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
