"""The ``trial`` block of a disaggregated experiment."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from trainables._trial import Json
from trainables.serving import ServedOptions, ServingTimeouts

PREFILL: Final = "prefill"
DECODE: Final = "decode"
MIXED: Final = "mixed"
Role: TypeAlias = Literal["prefill", "decode", "mixed"]
ROLES: tuple[Role, ...] = (PREFILL, DECODE, MIXED)


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shape(_Block):
    """One sort of instance: how many devices it takes, and how it uses them.

    Attributes:
        devices: Accelerators of one instance: tensor x pipeline x data parallel size.
        nodes: How many nodes it is spread over, each with an equal share of its devices.
        args: Arguments of its engine, over those of its role.
        roles: What instances of it may be used for.
    """

    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    args: dict[str, Json] = {}
    roles: tuple[Role, ...] = ROLES


class RoleOptions(_Block):
    """What all instances of a role have, over what the ``engine`` block says.

    Attributes:
        args: Arguments of the engine.
        env_vars: Variables of its environment.
        labels: Labels that their nodes must have, over ``cluster.labels``: ``{role: prefill}``.
    """

    args: dict[str, Json] = {}
    env_vars: dict[str, str] = {}
    labels: dict[str, str] = {}


class Roles(_Block):
    """What is particular to each role."""

    prefill: RoleOptions = RoleOptions()
    decode: RoleOptions = RoleOptions()
    mixed: RoleOptions = RoleOptions()


class DisaggregatedTimeouts(ServingTimeouts):
    """Seconds.

    Attributes:
        benchmark: One run of the benchmark.
        answer: How long a node may be silent before what it holds counts as lost.
    """

    answer: PositiveFloat = 60


class DisaggregatedOptions(ServedOptions):
    """See the attributes' own models; those of :class:`ServedOptions` mean the same here.

    Parameters of the search: ``prefill_instances``, ``decode_instances``, ``mixed_instances`` (how
    many), ``prefill_shape``, ``decode_shape``, ``mixed_shape`` (of which shape; the only one that
    fits by default); further ones go to all instances, or to those of one role where they are
    named ``prefill.NAME``, ``decode.NAME``, ``mixed.NAME``.

    Attributes:
        shapes: The sorts of instances, by name.
        roles: What is particular to each role.
        transfer: How KV caches get from prefill to decode: ``type`` and its options.
        router: What is in front of the instances: ``type`` and its options.
        interface: Network interface of the nodes for what instances tell each other, such as
            ``eth0``; by default the one that has the node's address.
        baseline: None by default: mixed serving is among the candidates of a P:D search.
    """

    type: Literal["disaggregated"] = "disaggregated"
    shapes: dict[str, Shape] = Field(default={"one": Shape()}, min_length=1)
    roles: Roles = Roles()
    transfer: dict[str, Any] = Field(default_factory=lambda: {"type": "example"})
    router: dict[str, Any] = Field(default_factory=lambda: {"type": "builtin"})
    interface: str | None = None
    baseline: dict[str, Json] | None = None
    timeouts: DisaggregatedTimeouts = DisaggregatedTimeouts()

    @model_validator(mode="after")
    def _has_roles(self) -> DisaggregatedOptions:
        used = {role for shape in self.shapes.values() for role in shape.roles}
        if MIXED not in used and not {PREFILL, DECODE} <= used:
            raise ValueError("shapes: none may be mixed, and not both prefill and decode")
        return self
