"""How one engine of vLLM is spread over several nodes. Pure.

Data parallel ranks are shared out where there are as many as nodes, or a multiple: the head starts
its own and waits for those of the other parts at its ``--data-parallel-rpc-port``. Otherwise the
ranks of the tensor and pipeline parallel group are shared out, which meet at the head's
``--master-port``. All parts but the head run with ``--headless``. As in vLLM 0.32's ``serve`` and
``arg_utils``; both ways serve on CPUs with two nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainables._trial import Json
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._transfer_environment import ascend_environment, is_ascend
from trainables.disaggregated._transfer_sizes import (
    SizeError,
    Sizes,
    engine_block,
    given_arguments,
    plain_name,
    sizes,
)
from trainables.engines._arguments import merged

HEAD_PORTS = 1
"""How many ports of its node the head of an instance needs for its parts."""
_LOCAL, _NODES = "data-parallel-size-local", "nnodes"
_EXECUTOR, _RANKS = "distributed-executor-backend", "data-parallel-backend"
_DECIDED = (
    "headless",
    "node-rank",
    "master-addr",
    "master-port",
    "data-parallel-rank",
    "data-parallel-start-rank",
    "data-parallel-address",
    "data-parallel-rpc-port",
    "data-parallel-hybrid-lb",
    "data-parallel-external-lb",
    "data-parallel-multi-port-external-lb",
)
"""Arguments that differ from part to part, or between nodes, or give parts an API of their own."""


@dataclass(frozen=True)
class Head:
    """Where the parts of an instance meet.

    Attributes:
        host: Address of its first node, as the others reach it.
        port: Leased there.
    """

    host: str
    port: int


def spans_ranks(has: Sizes, nodes: int) -> bool:
    """Whether data parallel ranks are shared out, each with all of its devices on one node."""
    return has.data > 1 and has.data % nodes == 0


def on_node(
    plan: Plan, instance: Instance, head: Head, interface: str, address: str = ""
) -> Instance:
    """A part of an instance, on its node, with what it needs there to find the others, and on
    Ascend with the variables that every instance gets, as far as the user has not set them.

    Args:
        interface: The one that has the node's address; empty: left to the libraries.
        address: Of that node; the instance's ``host`` by default.
    """
    if instance.nodes == 1 and not is_ascend(plan):
        return instance
    spans = span_arguments(plan, instance, head) if instance.nodes > 1 else {}
    variables = node_environment(plan, instance, interface, address or instance.host)
    return replace(instance, args=merged(instance.args, spans), env={**variables, **instance.env})


def span_arguments(plan: Plan, instance: Instance, head: Head) -> dict[str, Json]:
    """The arguments of one part of an instance, besides those that all its parts have; for a plan
    without misfits."""
    has, before = sizes(plan, instance), instance.part - 1
    if spans_ranks(has, instance.nodes):
        local = has.data // instance.nodes
        start: dict[str, Json] = {"data-parallel-start-rank": before * local} if before else {}
        return {
            _LOCAL: local,
            "data-parallel-address": head.host,
            "data-parallel-rpc-port": head.port,
            **start,
        }
    return {
        _NODES: instance.nodes,
        "node-rank": before,
        "master-addr": head.host,
        "master-port": head.port,
    }


def node_environment(
    plan: Plan, instance: Instance, interface: str, address: str
) -> dict[str, str]:
    """Variables by which the parts of an instance find each other, without those that the user
    has set; arguments as for :func:`on_node`."""
    if is_ascend(plan):
        found = ascend_environment(instance.role, address, interface)
    else:
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        found = {
            "VLLM_HOST_IP": address,
            **(dict.fromkeys(names, interface) if interface else {}),
        }
    decided = {*engine_block(plan).get("env_vars", {}), *instance.env}
    return {name: value for name, value in found.items() if name not in decided}


def span_misfits(plan: Plan) -> list[str]:
    """Why instances of a split cannot be spread over their nodes, by what is known of them."""
    found: dict[str, None] = {}
    for instance in {one.role: one for one in plan.instances}.values():
        if instance.nodes > 1:
            try:
                found |= dict.fromkeys(_misfits(plan, instance))
            except SizeError as error:
                found[str(error)] = None
    return list(found)


def _misfits(plan: Plan, instance: Instance) -> list[str]:
    has, given = sizes(plan, instance), given_arguments(plan, instance)
    nodes, whose = instance.nodes, f"{instance.role} instances"
    named = {plain_name(name): value for name, value in given.items() if value not in (None, False)}
    found = [
        f"{name} is among the arguments of {whose}, which are on {nodes} nodes: it is decided for "
        "each node; leave it out"
        for name in _DECIDED
        if name in named
    ]
    if has.devices != instance.devices:
        found.append(
            f"tensor x pipeline x data parallel size of {whose} is {has.tensor} x {has.pipeline} x "
            f"{has.data}, and their shape {instance.shape} has {instance.devices} devices on "
            f"{nodes} nodes"
        )
    elif has.data > 1 and not spans_ranks(has, nodes):
        found.append(
            f"data-parallel-size of {whose} is {has.data}, which cannot be shared out evenly over "
            f"{nodes} nodes"
        )
    return [*found, *_contradictions(named, has, nodes, whose)]


def _contradictions(named: Mapping[str, Json], has: Sizes, nodes: int, whose: str) -> list[str]:
    """Arguments that say otherwise than the shape; those that say the same may be there."""
    ranks = spans_ranks(has, nodes)
    wanted: dict[str, Json] = {_RANKS: "mp"}
    if ranks:
        wanted |= {_LOCAL: has.data // nodes, _NODES: 1}
    else:
        wanted |= {_LOCAL: 1, _NODES: nodes, _EXECUTOR: "mp"}
    found = [
        f"{name} of {whose} is {named[name]!r}, and on {nodes} nodes it has to be {value!r}"
        for name, value in wanted.items()
        if name in named and str(named[name]) != str(value)
    ]
    if ranks and named.get(_EXECUTOR) == "ray":
        found.append(f"{_EXECUTOR} of {whose} is 'ray', which places its workers itself")
    return found
