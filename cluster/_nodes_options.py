"""What a node is started with, and the ``ray start`` that this means."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster._ports import lease_ports
from cluster._resources import RequestError, parse_bundle

_AGENT_PORT = 52365
"""Ray's default for the agent of a node, which another Ray on this host may have."""


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


def check_tags(resources: Mapping[str, float], labels: Mapping[str, str]) -> None:
    """Raise :class:`RequestError` for what no node can offer or be called."""
    if any(name.upper() == "CPU" for name in resources):
        raise RequestError("CPUs are no further resource: say how many with cpus")
    parse_bundle({"CPU": 1, **resources}, labels)
    for key, value in labels.items():
        if value.startswith("!") or "(" in value:
            raise RequestError(f"{key}={value}: {value!r} is no value of a label; selectors are")


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
