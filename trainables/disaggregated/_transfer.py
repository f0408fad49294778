"""How KV caches get from prefill to decode, by the name ``transfer: {type: ...}`` gives it.

Everything here is for engines that take vLLM's ``--kv-transfer-config``. Nothing is started or
leased here: a transfer says what an instance needs, and whoever starts it sees to that.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from trainables._program import StageError
from trainables._registry import Registry
from trainables._trial import Json
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._transfer_environment import ascend_environment, is_ascend
from trainables.disaggregated._transfer_sizes import (
    SizeError,
    engine_block,
    given_arguments,
    plain_name,
)

Flow: TypeAlias = Literal["prefill_first", "decode_first"]
"""Whom a request meets first. ``prefill_first``: a prefill instance, whose answer tells the decode
instance where to pull from. ``decode_first``: a decode instance, which has the router start the
prefill that pushes to it."""

DEFAULT = "example"
CONFIG = "kv-transfer-config"
_FOREIGN = {
    "mindie": "MindIE moves KV caches by its own configuration",
    "script": "arguments reach a script as variables",
}
"""Engine types that do not take ``--kv-transfer-config``, and why."""
_MOVED = re.compile(
    r'^vllm:prompt_tokens_by_source_total\{[^}]*source="external_kv_transfer"[^}]*\}\s+(\S+)',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Where:
    """Where one instance will run.

    Attributes:
        plan: The split it belongs to: some connectors tell each side about the other's sizes.
        host: Address of its node, as the other nodes reach it.
        ports: Ports leased there for the transfer, ascending neighbours, as many as
            :meth:`Transfer.ports` says.
        interface: Network interface that has ``host``; empty: left to the libraries.
        folder: Folder that all instances of the split see, for transfers through files.
    """

    plan: Plan
    host: str
    ports: Sequence[int] = ()
    interface: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Addition:
    """What an instance gets for its transfer: never anything that the user has decided.

    Attributes:
        args: Arguments of the engine.
        env: Variables of its environment.
    """

    args: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


class TransferOptions(BaseModel):
    """The keys that all transfers share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str


class Transfer(ABC):
    """One way to move KV caches between instances.

    Attributes:
        Options: Model of the ``transfer`` block, ``type`` included.
        reserved: TCP ports of a node that must not be leased for it, because what it is built on
            takes them at random.
    """

    Options: ClassVar[type[TransferOptions]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def flow(self) -> Flow:
        """Whom a request meets first; the router has to know."""
        return "prefill_first"

    @property
    def reserved(self) -> range:
        return range(0)

    @abstractmethod
    def configuration(self, instance: Instance, where: Where) -> Addition:
        """What the connector itself needs, for a plan without misfits.

        Arguments and variables besides ``kv-transfer-config`` are defaults.
        """

    @abstractmethod
    def identity(self) -> Json:
        """What of the transfer decides results. Not addresses, ports, folders."""

    def settings(self, instance: Instance, where: Where) -> Addition:
        """What to add to an instance's arguments and environment, over the engine's block.

        What the user has said, in the engine's block or for a role, is not in it, so it may be
        merged in any order. On Ascend it has the variables that name the node's address and
        interface to HCCL, Gloo and vLLM, and the documented defaults.

        Raises ``StageError`` of class ``input`` when the split cannot work with this transfer, or
        when the ports are not what :meth:`ports` asked for.
        """
        if misfits := self.misfits(where.plan):
            raise StageError("input", "; ".join(misfits), "see trial.transfer and trial.roles")
        self._check_ports(instance, where)
        found = self.configuration(instance, where)
        ascend = ascend_environment(instance.role, where.host, where.interface)
        env = {**(ascend if is_ascend(where.plan) else {}), **found.env}
        said = {plain_name(name) for name in given_arguments(where.plan, instance)}
        decided = {*engine_block(where.plan).get("env_vars", {}), *instance.env}
        return Addition(
            {name: value for name, value in found.args.items() if plain_name(name) not in said},
            {name: value for name, value in env.items() if name not in decided},
        )

    def ports(self, instance: Instance) -> int:
        """How many neighbouring TCP ports an instance needs besides its own, on each node."""
        return 0

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``transfer`` block, message)."""
        return []

    def misfits(self, plan: Plan) -> list[str]:
        """Why a split cannot use this transfer, seen without starting anything."""
        found = []
        if why := _FOREIGN.get(str(engine_block(plan).get("type"))):
            found.append(f"transfer {self.options.type}: {why}, so it is not for this engine")
        for instance in _one_of_each_role(plan):
            try:
                given = given_arguments(plan, instance)
            except SizeError as error:
                found.append(str(error))
                continue
            if CONFIG in given:
                found.append(
                    f"{CONFIG} is among the arguments of {instance.role} instances; the transfer "
                    "decides it: leave it out, or say it in transfer: {type: custom}"
                )
        return found

    def transferred(self, metrics: str) -> float | None:
        """Prompt tokens whose KV cache an instance got from another one, since its start.

        Args:
            metrics: What its ``/metrics`` answers. Only a decode instance has received any.

        Returns None where the engine does not count them (vLLM does since it has
        ``vllm:prompt_tokens_by_source``).
        """
        counts = _MOVED.findall(metrics)
        return sum(map(float, counts)) if counts else None

    def _check_ports(self, instance: Instance, where: Where) -> None:
        wanted, ports = self.ports(instance), list(where.ports)
        neighbours = all(second - first == 1 for first, second in pairwise(ports))
        if len(ports) < wanted or not neighbours:
            raise StageError(
                "input",
                f"transfer {self.options.type}: {instance.name} needs {wanted} neighbouring ports, "
                f"and has {ports}",
            )
        if taken := [port for port in ports if port in self.reserved]:
            raise StageError(
                "input",
                f"transfer {self.options.type}: port {taken[0]} of {instance.name} is among "
                f"{self.reserved.start} to {self.reserved.stop - 1}, which its transport takes at "
                "random",
            )


def _one_of_each_role(plan: Plan) -> list[Instance]:
    return list({instance.role: instance for instance in plan.instances}.values())


_TRANSFERS: Registry[Transfer] = Registry(
    "transfer",
    "npu_tuner.transfers",
    {
        "example": "trainables.disaggregated._transfer_vllm",
        "nixl": "trainables.disaggregated._transfer_vllm",
        "mooncake": "trainables.disaggregated._transfer_mooncake",
        "mooncake_layerwise": "trainables.disaggregated._transfer_mooncake",
        "custom": "trainables.disaggregated._transfer_custom",
    },
    default=DEFAULT,
)
register_transfer = _TRANSFERS.register
transfer_types = _TRANSFERS.names
transfer_type = _TRANSFERS.find
make_transfer = _TRANSFERS.make
