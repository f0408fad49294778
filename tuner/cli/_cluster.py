"""``cluster``: start a Ray cluster, join it, look at it, stop what runs here."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from cluster import (
    ClusterError,
    Hosts,
    LocalNode,
    NodeOptions,
    NodeUse,
    ProcessesRemainError,
    RequestError,
    accept_token,
    check_tags,
    cluster_use,
    connect,
    describe_chips,
    local_nodes,
    run_commands,
    start_command,
    start_commands,
    start_node,
    stop_commands,
    stop_nodes,
    visible_npus,
)
from tuner.cli._options import add_json
from tuner.experiment import from_pydantic, read_document

_FAILED = 1


def add_commands(commands: Any) -> None:
    cluster = commands.add_parser("cluster", help="a Ray cluster of several machines")
    below = cluster.add_subparsers(title="commands", metavar="COMMAND", required=True)
    start = below.add_parser("start", help="begin a cluster on this machine, or on many")
    _add_node(start)
    start.add_argument("--port", type=int, default=6379, help="of the cluster (default: 6379)")
    start.add_argument(
        "--dashboard", action="store_true", help="Ray's dashboard, for this machine alone"
    )
    start.add_argument("--dashboard-host", help="address the dashboard listens on")
    start.add_argument("--dashboard-port", type=int, default=8265, help="default: 8265")
    _add_hosts(start)
    start.set_defaults(command=_start)
    join = below.add_parser("join", help="make this machine a node of a cluster")
    join.add_argument("cluster", metavar="ADDRESS", help="host:port of the cluster")
    _add_node(join)
    _add_dry_run(join)
    join.set_defaults(command=_join)
    status = below.add_parser("status", help="nodes, what they have, and who uses it")
    status.add_argument("cluster", metavar="ADDRESS", nargs="?", default="auto")
    add_json(status)
    status.set_defaults(command=_status)
    stop = below.add_parser("stop", help="stop the nodes that were started here, nothing else")
    add_json(stop)
    _add_hosts(stop)
    stop.set_defaults(command=_stop)


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hosts", type=Path, metavar="FILE", help="all hosts of a file, over ssh")
    _add_dry_run(parser)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")


def _add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", help="IP address of this machine that other nodes reach")
    parser.add_argument("--npus", type=int, help="NPUs it offers (default: those Ray finds)")
    parser.add_argument("--cpus", type=float, help="CPUs it offers (default: all)")
    for flag, text in (("--resource", "a further resource"), ("--label", "as role=prefill")):
        parser.add_argument(
            flag,
            type=_pair,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"{text}; may be repeated",
        )
    parser.add_argument("--island", help="label of nodes that share a fast network")
    parser.add_argument("--temp-dir", type=Path, help="folder of Ray's logs and sockets")
    parser.add_argument("--object-store-memory", type=int, metavar="BYTES")
    parser.add_argument(
        "--token-file", type=Path, help="default: RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token-stdin", action="store_true", help="read the token, and keep it in its file"
    )
    token.add_argument(
        "--no-token", action="store_true", help="whoever reaches the node may run programs on it"
    )
    parser.add_argument(
        "--block", action="store_true", help="stay until the node ends; for containers"
    )
    add_json(parser)


def _start(arguments: argparse.Namespace) -> int:
    if arguments.hosts is not None:
        return _with_hosts(arguments, start=True)
    dashboard = arguments.dashboard_host or ("127.0.0.1" if arguments.dashboard else None)
    options = _options(
        arguments, port=arguments.port, dashboard=dashboard, dashboard_port=arguments.dashboard_port
    )
    return _bring_up(arguments, options)


def _join(arguments: argparse.Namespace) -> int:
    return _bring_up(arguments, _options(arguments, join=arguments.cluster))


def _options(arguments: argparse.Namespace, **others: Any) -> NodeOptions:
    resources, labels = _tags(arguments)
    return NodeOptions(
        address=arguments.address,
        cpus=arguments.cpus,
        resources=resources,
        labels=labels,
        temp_dir=arguments.temp_dir,
        object_store_memory=arguments.object_store_memory,
        token_file=arguments.token_file,
        token=not arguments.no_token and os.environ.get("RAY_AUTH_MODE") != "disabled",
        **others,
    )


def _tags(arguments: argparse.Namespace) -> tuple[dict[str, float], dict[str, str]]:
    """What the node offers and is called: what was found of its NPUs, then what the user says."""
    found, npus = visible_npus(), arguments.npus
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if npus is not None and visible is not None and npus > len(visible.split(",")):
        raise ClusterError(
            f"--npus {npus} are more than ASCEND_RT_VISIBLE_DEVICES={visible} lets programs use"
        )
    count = found if npus is None else npus
    resources: dict[str, float] = {} if npus is None else {"NPU": npus}
    labels: dict[str, str] = {}
    chip, memory = describe_chips() if count else (None, 0)
    if chip is not None:
        resources[f"npu_{chip}"] = count
        labels["chip"] = f"npu_{chip}"
    if memory:
        labels["hbm"] = str(memory)
    if arguments.island is not None:
        labels["island"] = arguments.island
    labels |= dict(arguments.label)
    for name, amount in arguments.resource:
        try:
            resources[name] = float(amount)
        except ValueError:
            raise ClusterError(f"--resource {name}={amount}: {amount!r} is no number") from None
    try:
        check_tags(resources, labels)
    except RequestError as error:
        raise ClusterError(str(error)) from None
    return resources, labels


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _bring_up(arguments: argparse.Namespace, options: NodeOptions) -> int:
    if arguments.dry_run:
        print(shlex.join(start_command(options, Path("RAY_FOLDER"))))
        return 0
    if arguments.token_stdin:
        accept_token(arguments.token_file, sys.stdin.read())
    node = start_node(options)
    if arguments.json:
        print(json.dumps({**vars(node), "resources": options.resources, "labels": options.labels}))
    else:
        print("\n".join(_said(node, options)), flush=True)
    return _stay(node) if arguments.block else 0


def _said(node: LocalNode, options: NodeOptions) -> list[str]:
    offers = [f"{name} {amount:g}" for name, amount in options.resources.items()]
    offers += [f"{key}={value}" for key, value in options.labels.items()]
    tagged = f" ({', '.join(offers)})" if offers else ""
    if not node.head:
        return [f"this machine is a node of {node.cluster}{tagged}"]
    lines = [f"the cluster runs at {node.cluster}{tagged}"]
    lines += [f"dashboard     {node.dashboard}"] if node.dashboard else []
    if node.token_file:
        lines += [
            f"token         {node.token_file} (mode 600); other machines need a copy of it:",
            "              ssh HOST 'umask 077; mkdir -p .ray; cat > .ray/auth_token' "
            f"< {shlex.quote(node.token_file)}",
        ]
    else:
        lines += ["token         none: whoever reaches this port may run programs here"]
    return [
        *lines,
        f"other nodes   python -m tuner cluster join {node.cluster}",
        "experiments   cluster: {address: auto} here and on nodes, elsewhere "
        f"{{address: '{node.cluster}'}}",
    ]


def _stay(node: LocalNode) -> int:
    """Until the node ends, or we are told to end it."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        while node.alive:
            time.sleep(1)
    except KeyboardInterrupt:
        stop_nodes(node.id)
        return 0
    stop_nodes(node.id)
    print(f"error: the node has ended; its logs are in {node.folder}", file=sys.stderr)
    return _FAILED


def _stop(arguments: argparse.Namespace) -> int:
    if arguments.hosts is not None:
        return _with_hosts(arguments, start=False)
    if arguments.dry_run:
        for node in local_nodes():
            print(f"{'head' if node.head else 'node'} of {node.cluster}: process {node.pid}")
        return 0
    try:
        stopped = stop_nodes()
    except ProcessesRemainError as error:
        print(f"error: {error}", file=sys.stderr)
        return _FAILED
    if arguments.json:
        print(json.dumps([vars(one) for one in stopped]))
        return 0
    for one in stopped:
        what = "head" if one.head else "node"
        how = "stopped" if one.was_alive else "had ended before; nothing of it is left"
        print(f"{what} of {one.cluster}: {how}")
        for process in one.killed:
            print(f"  had to be killed: {process}")
    if not stopped:
        print("no node that `cluster start` or `cluster join` has started runs here")
    return 0


def _with_hosts(arguments: argparse.Namespace, *, start: bool) -> int:
    hosts = _read_hosts(arguments.hosts)
    commands = start_commands(hosts) if start else stop_commands(hosts)
    if arguments.dry_run:
        print("\n".join(str(command) for command in commands))
        return 0
    say = partial(print, file=sys.stderr, flush=True)
    failed = run_commands(hosts, commands, say, getattr(arguments, "token_file", None))
    if arguments.json:
        print(json.dumps({"cluster": hosts.address, "failed": failed}))
    else:
        for host, error in failed.items():
            print(f"{host}: {error}", file=sys.stderr)
        done = len(commands) - len(failed)
        where = f"the cluster {hosts.address}"
        print(f"{where}: {done} of {len(commands)} hosts {'started' if start else 'stopped'}")
    return _FAILED if failed else 0


def _read_hosts(file: Path) -> Hosts:
    document = read_document(file)
    data = document.expanded()
    try:
        return Hosts.model_validate(data)
    except ValidationError as error:
        raise document.error(from_pydantic("", data, error.errors())) from None


def _status(arguments: argparse.Namespace) -> int:
    with connect(arguments.cluster, name="status") as connection:
        nodes = cluster_use(connection)
        ours = [node for node in local_nodes() if node.cluster == connection.address]
        dashboard = connection.dashboard_url or next(
            (node.dashboard for node in ours if node.dashboard), ""
        )
        address = connection.address
    versions = {"ray": version("ray"), "python": platform.python_version()}
    if arguments.json:
        said = {"cluster": address, "dashboard": dashboard, "versions": versions}
        print(json.dumps({**said, "nodes": [node.to_json() for node in nodes]}))
        return 0
    print(f"cluster    {address}: Ray {versions['ray']}, Python {versions['python']}")
    print(f"dashboard  {dashboard or 'none'}")
    Console(highlight=False).print(_table(nodes))
    return 0


def _table(nodes: Sequence[NodeUse]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("node", "used of", "labels", "run", "trial", "has"):
        table.add_column(heading)
    for node in nodes:
        name = f"{node.address}{' (head)' if node.head else ''}"
        labels = " ".join(f"{key}={value}" for key, value in node.labels.items())
        first = (name, _usage(node), labels)
        rows = [(use.run, use.trial, _amounts(use.resources)) for use in node.uses]
        for index, row in enumerate(rows or [("", "", "")]):
            table.add_row(*(first if index == 0 else ("", "", "")), *row)
    return table


def _usage(node: NodeUse) -> str:
    parts = []
    for name, total in node.total.items():
        used = total - node.free.get(name, 0.0)
        if name == "memory":
            parts.append(f"memory {used / 2**30:.0f}/{total / 2**30:.0f} GiB")
        else:
            parts.append(f"{name} {used:g}/{total:g}")
    return ", ".join(parts)


def _amounts(resources: dict[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())
