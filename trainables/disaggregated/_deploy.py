"""What somebody needs to deploy a split without us: scripts for nodes, manifests for Kubernetes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainables._program import StageError
from trainables.disaggregated._deploy_kubernetes import manifests
from trainables.disaggregated._deploy_words import shell_lines, slot, slots
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._router import make_router
from trainables.disaggregated._span import Head, on_node, span_misfits
from trainables.disaggregated._transfer import Addition, Flow, Where, make_transfer
from trainables.disaggregated._transfer_environment import is_ascend
from trainables.disaggregated._transfer_sizes import engine_block
from trainables.engines import Deployment, Launch, make_engine
from trainables.engines._engine import serve_script

MODEL, SHARED, INTERFACE, ROUTER_HOST = "MODEL", "SHARED_FOLDER", "INTERFACE", "ROUTER_HOST"
_HOSTS = "hosts.env"
_FIRST_PORT = 7100
_FIRST_TRANSFER_PORT = 36000
_TRANSFER_PORTS = 100
_ROUTER_PORT = 8000
_FIRST_HEAD_PORT = 13300
_NO_MANIFESTS = """# There are no manifests: an instance of this split is on several nodes, and a
# StatefulSet has no groups of pods. Use a LeaderWorkerSet for each of them: the command of
# prefill-1.sh for its leader, that of prefill-1-part-2.sh and so on for its workers, with the
# leader's address ($LWS_LEADER_ADDRESS) for the head's.
"""
_UNMEASURED = "# Chosen by simulation; measure it before you rely on it."


@dataclass(frozen=True)
class Deployed:
    """An instance and the command that serves it, with slots for what is not known yet."""

    instance: Instance
    launch: Launch


def deployment_files(
    plan: Plan, *, name: str = "pd", device_resource: str | None = None
) -> dict[str, str]:
    """The files of a deployment: relative path to text. Nothing is started or asked.

    ``hosts.env`` is the one file to fill in; ``prefill-1.sh``, ``decode-1.sh``, ... start one
    instance each in the foreground, ``prefill-1-part-2.sh`` what of it is on a further node,
    ``router.sh`` the router; ``kubernetes/*.yaml`` has a StatefulSet and a Service for each role,
    and the router's Deployment and Service. Where an instance is on several nodes,
    ``kubernetes.txt`` says why there are no manifests.

    Args:
        plan: What a trial has started. Addresses its instances have go into ``hosts.env``.
        name: Of the deployment in Kubernetes, and of its labels.
        device_resource: Extended resource for the devices of an instance; by default
            ``huawei.com/Ascend910`` for vLLM-Ascend and none for other engines.

    Raises ``StageError`` of class ``input`` for a plan whose engine, transfer or router cannot be
    started so.
    """
    block = engine_block(plan)
    if block is not plan.engine:
        return _unmeasured(deployment_files(replace(plan, engine=block), name=name))
    if make_engine(block).configurable:
        return _by_files(plan)
    if misfits := span_misfits(plan):
        raise StageError("input", "; ".join(misfits), "see trial.shapes")
    deployed = [_on_node(plan, part, index) for index, part in enumerate(plan.parts)]
    heads = [one.instance for one in deployed if one.instance.part == 1]
    router = _router_launch(plan, heads, slot(ROUTER_HOST))
    files = {_HOSTS: _hosts(plan, deployed, router)}
    for one in deployed:
        what = f"{one.instance.title}: {one.instance.devices_here} device(s)."
        files[f"{one.instance.slug}.sh"] = _script(what, one.launch)
    if router is not None:
        files["router.sh"] = _script(f"The router, at port {_ROUTER_PORT}.", router)
    if len(plan.parts) > len(plan.instances):
        return files | {"kubernetes.txt": _NO_MANIFESTS}
    return files | _kubernetes(plan, name, device_resource)


def _by_files(plan: Plan) -> dict[str, str]:
    """For engines with configuration files, in which addresses are written out: a folder for each
    instance, and no manifests."""
    engine = make_engine(plan.engine)
    files: dict[str, str] = {}
    placed = []
    for index, instance in enumerate(plan.instances):
        host = instance.host or "127.0.0.1"
        placed.append(replace(instance, host=host, port=_FIRST_PORT + index, base_url=None))
        theirs = engine.deliverables(_deployment(plan, placed[-1], plan.model, Addition()))
        files |= {f"{instance.name}/{name}": text for name, text in theirs.items()}
    router = _router_launch(plan, placed, "127.0.0.1")
    if router is not None:
        files["router.sh"] = serve_script(router)
    return files


def _kubernetes(plan: Plan, name: str, device_resource: str | None) -> dict[str, str]:
    in_pods = [_in_pod(plan, instance) for instance in plan.instances]

    def router(hosts: Sequence[str]) -> Launch | None:
        called = zip(in_pods, hosts, strict=True)
        instances = [replace(one.instance, host=host) for one, host in called]
        return _router_launch(plan, instances, slot("POD_IP"))

    launches = [(one.instance, one.launch) for one in in_pods]
    return manifests(plan, launches, router, name=name, device_resource=device_resource)


def _unmeasured(files: Mapping[str, str]) -> dict[str, str]:
    """Files that say that only a simulation has chosen them; all of them have comments."""
    return {name: _marked(text) for name, text in files.items()}


def _marked(text: str) -> str:
    if not text.startswith("#!"):
        return f"{_UNMEASURED}\n{text}"
    return text.replace("\n", f"\n{_UNMEASURED}\n", 1)


def host_slot(instance: Instance) -> str:
    """The slot of the address of an instance, or of one part of it."""
    return f"{instance.slug.upper().replace('-', '_')}_HOST"


def _on_node(plan: Plan, instance: Instance, index: int) -> Deployed:
    """A part of an instance on a node that it may share: no two have a port in common."""
    step = _TRANSFER_PORTS * -(-max(one.devices for one in plan.instances) // _TRANSFER_PORTS)
    placed = replace(
        instance, host=slot(host_slot(instance)), port=_FIRST_PORT + index, base_url=None
    )
    first = plan.parts[index - instance.part + 1]
    head = Head(slot(host_slot(first)), _FIRST_HEAD_PORT + index - instance.part + 1)
    first_port = _first_port(plan) + step * index
    launch = _launch(plan, placed, first_port, slot(INTERFACE), head)
    if is_ascend(plan):
        devices = {"ASCEND_RT_VISIBLE_DEVICES": slot(_devices_slot(instance))}
        launch = replace(launch, env={**launch.env, **devices})
    return Deployed(placed, launch)


def _in_pod(plan: Plan, instance: Instance) -> Deployed:
    """An instance that has an address for itself."""
    placed = replace(instance, host=slot("POD_IP"), port=_ROUTER_PORT, base_url=None)
    interface = plan.interface or "eth0"
    launch = _launch(plan, placed, _first_port(plan), interface, Head(placed.host, 0))
    return Deployed(placed, launch)


def _launch(plan: Plan, instance: Instance, first_port: int, interface: str, head: Head) -> Launch:
    addition = _addition(plan, instance, first_port, interface)
    instance = on_node(plan, instance, head, interface)
    block = dict(plan.engine)
    if block.get("record_iterations"):
        block["record_iterations"] = False
    return make_engine(block).launch(_deployment(plan, instance, Path(slot(MODEL)), addition))


def _deployment(plan: Plan, instance: Instance, model: Path, addition: Addition) -> Deployment:
    return Deployment(
        model,
        plan.served_name,
        instance.host,
        instance.port,
        {**instance.args, **addition.args},
        {**instance.env, **addition.env},
        instance.config,
        Path(instance.slug),
        headless=instance.part > 1,
    )


def _first_port(plan: Plan) -> int:
    """The first port for transfers, above those that the transfer's own transport takes."""
    reserved = range(0) if plan.transfer is None else make_transfer(plan.transfer).reserved
    return max(_FIRST_TRANSFER_PORT, reserved.stop)


def _addition(plan: Plan, instance: Instance, first_port: int, interface: str) -> Addition:
    if plan.transfer is None:
        return Addition()
    transfer = make_transfer(plan.transfer)
    ports = range(first_port, first_port + transfer.ports(instance))
    where = Where(plan, instance.host, ports, interface, slot(SHARED))
    return transfer.settings(instance, where)


def _router_launch(plan: Plan, instances: list[Instance], host: str) -> Launch | None:
    if plan.router is None:
        return None
    router = make_router(plan.router)
    flow = _flow(plan)
    if misfits := router.misfits(plan, flow):
        raise StageError("input", "; ".join(misfits), "see trial.router")
    launch = router.launch(host, _ROUTER_PORT, instances, flow)
    if launch.argv[0] != sys.executable:
        return launch
    note = "It needs the package npu-tuner in the environment of this python."
    return replace(launch, argv=("python", *launch.argv[1:]), notes=(*launch.notes, note))


def _flow(plan: Plan) -> Flow:
    return "prefill_first" if plan.transfer is None else make_transfer(plan.transfer).flow


def _script(what: str, launch: Launch) -> str:
    needed = [f': "${{{name}:?fill in {_HOSTS}}}"' for name in slots(launch)]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {what} Its values are in {_HOSTS} beside it.",
            "set -eu",
            f'. "$(dirname "$0")/{_HOSTS}"',
            *needed,
            *shell_lines(launch),
            "",
        ]
    )


def _hosts(plan: Plan, deployed: list[Deployed], router: Launch | None) -> str:
    """Assignments that a shell reads; what nobody has said yet is empty, and the scripts ask."""
    used = {name for one in deployed for name in slots(one.launch)}
    used |= set(slots(router)) if router is not None else set()
    known = dict(_known(plan))
    lines = [
        "# Values of this deployment. The address of a node must be one that the others reach.",
        *(
            f"{key}={shlex.quote(value) if value else ''}"
            for key, value in known.items()
            if key in used
        ),
    ]
    return "\n".join(lines) + "\n"


def _known(plan: Plan) -> Iterator[tuple[str, str]]:
    yield MODEL, str(plan.model)
    yield INTERFACE, plan.interface or ""
    yield SHARED, ""
    free: dict[str, int] = {}
    for instance in plan.parts:
        host = instance.host
        yield host_slot(instance), host
        first = free.get(host, 0) if host else 0
        free[host] = first + instance.devices_here
        ids = ",".join(map(str, range(first, first + instance.devices_here)))
        yield _devices_slot(instance), ids
    yield ROUTER_HOST, "" if _flow(plan) == "decode_first" else "127.0.0.1"


def _devices_slot(instance: Instance) -> str:
    return f"{instance.slug.upper().replace('-', '_')}_DEVICES"
