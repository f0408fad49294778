"""A cluster over several hosts from one file: the head, then each worker, over ssh.

ssh hands the remote shell one line, so that line is quoted here word by word. Of what it needs
only the token is secret, and that goes through the standard input.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cluster._nodes_options import check_tags
from cluster._nodes_token import node_token

_BOUND_S = 300.0
_INTERFACES = ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
_SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@%-]*$")]


class Settings(BaseModel):
    """What hosts may have in common, and each may have for itself.

    Attributes:
        ssh: Words before what ssh runs on the host, its address among them: ``user@host``, or a
            list such as ``[-p, "2222", user@host]``. None: this host, without ssh.
        python: Interpreter of the environment that the tuner is installed in; by default
            ``python3``, and on this host the one that runs now.
        activate: Shell script that is sourced first, such as CANN's ``set_env.sh``.
        folder: Where to change to first.
        npus, cpus: How many the node offers; by default what is found.
        resources, labels: Further ones.
        island: Label ``island``: nodes of one fast network.
        interface: Network interface between the nodes: sets ``HCCL_IF_IP`` to the address, and
            ``HCCL_``, ``GLOO_`` and ``TP_SOCKET_IFNAME``.
        env: Variables of the node, and of all that runs on it.
        temp_dir: Folder of Ray's logs and sockets.
        token_file: Where the token is kept on the host.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ssh: Annotated[str | list[str], Field(min_length=1)] | None = None
    python: str | None = None
    activate: str | None = None
    folder: str | None = None
    npus: Annotated[int, Field(ge=0)] | None = None
    cpus: Annotated[float, Field(ge=0)] | None = None
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    island: str | None = None
    interface: Name | None = None
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str | int] = {}
    temp_dir: str | None = None
    token_file: str | None = None

    @field_validator("labels", "env", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Numbers of YAML are texts here."""
        if not isinstance(value, dict):
            return value
        return {k: str(v) if isinstance(v, (int, float)) else v for k, v in value.items()}

    @model_validator(mode="after")
    def _understandable(self) -> Settings:
        check_tags(self.resources, self.labels)
        return self


class Host(Settings):
    """One host.

    Attributes:
        address: IP address that the other nodes reach.
    """

    address: Name


class Hosts(BaseModel):
    """The file.

    Attributes:
        head: Where the cluster begins.
        workers: Those that join, in this order.
        defaults: For all hosts that do not say otherwise; mappings are merged.
        port: Of the cluster.
        dashboard: Address on the head that Ray's dashboard listens on; None: no dashboard.
        token: Whether whoever joins or connects must have the token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: Host
    workers: list[Host] = []
    defaults: Settings = Settings()
    port: Annotated[int, Field(ge=1, le=65535)] = 6379
    dashboard: str | None = None
    token: bool = True

    @model_validator(mode="after")
    def _different(self) -> Hosts:
        addresses = [host.address for host in (self.head, *self.workers)]
        if twice := sorted({one for one in addresses if addresses.count(one) > 1}):
            raise ValueError(f"these addresses stand here twice: {', '.join(twice)}")
        return self

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{self.head.address}:{self.port}"

    def complete(self, host: Host) -> Host:
        """``host`` with the defaults put in."""
        common, own = self.defaults.model_dump(), host.model_dump()
        given = host.model_fields_set
        merged = {key: own[key] if key in given else common.get(key, own[key]) for key in own}
        for key in ("resources", "labels", "env"):
            merged[key] = {**common[key], **own[key]}
        return Host(**merged)


@dataclass(frozen=True)
class HostCommand:
    """What is run for one host.

    Attributes:
        host: Its address.
        argv: The command on this host.
        takes_token: Whether it reads the token from its standard input.
    """

    host: str
    argv: Sequence[str]
    takes_token: bool = False

    def __str__(self) -> str:
        token = " < TOKEN_FILE" if self.takes_token else ""
        return shlex.join(self.argv) + token


def start_commands(hosts: Hosts) -> list[HostCommand]:
    """The commands that start the cluster, the head's first."""
    commands = []
    for host in (hosts.head, *hosts.workers):
        full = hosts.complete(host)
        if host is hosts.head:
            words = ["start", "--port", str(hosts.port)]
            words += ["--dashboard-host", hosts.dashboard] if hosts.dashboard else []
        else:
            words = ["join", hosts.address]
        words += _flags(full)
        words += ["--token-stdin"] if hosts.token else ["--no-token"]
        commands.append(HostCommand(host.address, _command(full, words), hosts.token))
    return commands


def stop_commands(hosts: Hosts) -> list[HostCommand]:
    """The commands that stop the cluster, the head's last."""
    return [
        HostCommand(host.address, _command(hosts.complete(host), ["stop"]))
        for host in (*hosts.workers, hosts.head)
    ]


def _flags(host: Host) -> list[str]:
    words = ["--address", host.address]
    for flag, value in (("--npus", host.npus), ("--cpus", host.cpus), ("--island", host.island)):
        words += [] if value is None else [flag, f"{value:g}" if flag == "--cpus" else str(value)]
    for flag, pairs in (("--resource", host.resources), ("--label", host.labels)):
        for key, value in pairs.items():
            words += [flag, f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"]
    words += ["--temp-dir", host.temp_dir] if host.temp_dir else []
    return words + (["--token-file", host.token_file] if host.token_file else [])


def _command(host: Host, words: Sequence[str]) -> list[str]:
    """``python -m tuner cluster ...`` on the host, in its environment."""
    python = host.python or ("python3" if host.ssh else sys.executable)
    inner = [python, "-m", "tuner", "cluster", *words]
    if variables := _variables(host):
        inner = ["env", *(f"{key}={value}" for key, value in variables.items()), *inner]
    if host.activate or host.folder:
        # Scripts such as CANN's set_env.sh are written for bash.
        steps = [f"cd {shlex.quote(host.folder)}"] if host.folder else []
        steps += [f". {shlex.quote(host.activate)}"] if host.activate else []
        inner = ["bash", "-c", " && ".join([*steps, f"exec {shlex.join(inner)}"])]
    if host.ssh is None:
        return inner
    target = [host.ssh] if isinstance(host.ssh, str) else host.ssh
    return [*_SSH, *target, shlex.join(inner)]


def _variables(host: Host) -> Mapping[str, str | int]:
    if host.interface is None:
        return host.env
    names = dict.fromkeys(_INTERFACES, host.interface)
    return {"HCCL_IF_IP": host.address, **names, **host.env}


def run_commands(
    hosts: Hosts,
    commands: Sequence[HostCommand],
    say: Callable[[str], None],
    token_file: Path | None = None,
) -> dict[str, str]:
    """Run them one after another. When the head cannot start, no worker is tried.

    Args:
        hosts: The file they were made from.
        commands: From :func:`start_commands` or :func:`stop_commands`.
        say: Told in a line what is being done.
        token_file: The token that hosts get; by default where Ray looks on this host.

    Returns:
        What went wrong, by host; empty when nothing did.

    Raises:
        ClusterError: The token on this host cannot be used.
    """
    failed: dict[str, str] = {}
    needs_token = any(command.takes_token for command in commands)
    token = node_token(token_file, joins=None).read_text() if needs_token else ""
    for command in commands:
        say(f"{command.host}: {command.argv[0]} ...")
        error = _run(command, token)
        if error is not None:
            failed[command.host] = error
            if command.takes_token and command.host == hosts.head.address:
                rest = [worker.address for worker in hosts.workers]
                failed |= dict.fromkeys(rest, "not tried, because the head did not start")
                break
    return failed


def _run(command: HostCommand, token: str) -> str | None:
    try:
        done = subprocess.run(
            command.argv,
            input=token if command.takes_token else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BOUND_S,
            check=False,
        )
    except OSError as error:
        return f"{command.argv[0]} cannot be run here: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"no answer within {_BOUND_S:.0f} s; log in there and look"
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    said = " / ".join(lines[-3:]).rstrip(".") or "it said nothing"
    return f"exit code {done.returncode}: {said}{_advice(command, done.returncode, said)}"


def _advice(command: HostCommand, code: int, said: str) -> str:
    if command.argv[0] == "ssh" and code == 255:
        return ". ssh must get in without a password: put your key there with ssh-copy-id"
    if code == 127 or "No module named" in said:
        return (
            ". Name the interpreter that the tuner is installed in: python: /opt/tuner/bin/python"
        )
    return ""
