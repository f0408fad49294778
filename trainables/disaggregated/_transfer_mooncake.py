"""Mooncake's connectors of vLLM-Ascend. *Not run on NPU.*

Facts are those of vLLM-Ascend's guide to disaggregation on several nodes, its design document, and
its connectors' own checks (repository of 2026-08, ``vllm_ascend/distributed/kv_transfer/kv_p2p``).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._span import spans_ranks
from trainables.disaggregated._transfer import (
    CONFIG,
    Addition,
    Flow,
    Where,
    register_transfer,
)
from trainables.disaggregated._transfer_environment import is_ascend
from trainables.disaggregated._transfer_sizes import given_arguments, number, setting, sizes
from trainables.disaggregated._transfer_vllm import KV_ROLES, Connector, ConnectorOptions

_TRANSPORT_PORTS = 20000
_PORTS_PER_DEVICE = 1000


class _Options(ConnectorOptions):
    """Options of ``mooncake`` and ``mooncake_layerwise``.

    Attributes:
        devices_per_node: NPUs (chips) of a node: Mooncake's transport takes ports from 20000 up,
            1000 for each, at random, and ``kv_port`` must stay out of them.
    """

    devices_per_node: PositiveInt = 16


class MooncakeOptions(_Options):
    """Options of ``mooncake``."""

    type: Literal["mooncake"] = "mooncake"


class MooncakeLayerwiseOptions(_Options):
    """Options of ``mooncake_layerwise``."""

    type: Literal["mooncake_layerwise"] = "mooncake_layerwise"


@register_transfer("mooncake")
class MooncakeTransfer(Connector):
    """MooncakeConnectorV1: decode instances pull what a prefill instance has finished."""

    Options: ClassVar[type[_Options]] = MooncakeOptions
    connector = "MooncakeConnectorV1"
    options: _Options

    @property
    def reserved(self) -> range:
        stop = _TRANSPORT_PORTS + _PORTS_PER_DEVICE * self.options.devices_per_node
        return range(_TRANSPORT_PORTS, stop)

    def configuration(self, instance: Instance, where: Where) -> Addition:
        plan = where.plan
        extra = {role: self._sizes(plan, plan.of(role)[0]) for role in (PREFILL, DECODE)}
        ports = {"kv_port": str(where.ports[0])}
        config = self.written(KV_ROLES[instance.role], ports, extra)
        return Addition({CONFIG: config, "no-enable-prefix-caching": True})

    def ports(self, instance: Instance) -> int:
        """Each of its chips listens on one, counted from ``kv_port`` by its rank in the whole
        instance, on whatever node it is."""
        return instance.devices

    def misfits(self, plan: Plan) -> list[str]:
        found = super().misfits(plan)
        if not (plan.of(PREFILL) and plan.of(DECODE)):
            found.append(f"transfer {self.options.type}: it needs prefill and decode instances")
        if not is_ascend(plan):
            found.append(
                f"transfer {self.options.type}: vLLM-Ascend has it, so it needs engine.type "
                "vllm-ascend"
            )
        return found

    def pair_misfits(self, plan: Plan, prefill: Instance, decode: Instance) -> list[str]:
        name = f"transfer {self.options.type}"
        first, second = sizes(plan, prefill), sizes(plan, decode)
        found = []
        for one, has in ((prefill, first), (decode, second)):
            if has.devices != one.devices:
                found.append(
                    f"{name}: tensor x pipeline x data parallel size of {one.role} instances is "
                    f"{has.tensor} x {has.pipeline} x {has.data}, and their shape {one.shape} has "
                    f"{one.devices} devices"
                )
            if one.nodes > 1 and not spans_ranks(has, one.nodes):
                found.append(
                    f"{name}: {one.role} instances have a tensor or pipeline parallel group over "
                    f"{one.nodes} nodes, whose ports it counts from one kv_port, and no port is "
                    "leased on several nodes; share out data parallel ranks"
                )
        if first.tensor % second.tensor:
            found.append(
                f"{name}: tensor-parallel-size is {first.tensor} for prefill and {second.tensor} "
                "for decode instances; prefill's must be a multiple of decode's"
            )
        if second.pipeline != 1:
            found.append(f"{name}: decode instances cannot have a pipeline-parallel-size above 1")
        return [*found, *_speculation(name, plan, prefill, decode)]

    def _sizes(self, plan: Plan, instance: Instance) -> dict[str, Json]:
        has = sizes(plan, instance)
        pipeline = {"pp_size": has.pipeline} if has.pipeline > 1 else {}
        return {"dp_size": has.data, "tp_size": has.tensor, **pipeline}


@register_transfer("mooncake_layerwise")
class MooncakeLayerwiseTransfer(MooncakeTransfer):
    """MooncakeLayerwiseConnector: prefill instances push each layer as soon as they have it."""

    Options = MooncakeLayerwiseOptions
    connector = "MooncakeLayerwiseConnector"

    @property
    def flow(self) -> Flow:
        return "decode_first"

    def pair_misfits(self, plan: Plan, prefill: Instance, decode: Instance) -> list[str]:
        found = super().pair_misfits(plan, prefill, decode)
        first, second = (number(plan, one, "block-size") for one in (prefill, decode))
        if first and second and second % first:
            found.append(
                f"transfer mooncake_layerwise: block-size is {first} for prefill and {second} for "
                "decode instances; decode's must be a multiple of prefill's"
            )
        return found


def _speculation(name: str, plan: Plan, prefill: Instance, decode: Instance) -> list[str]:
    """Hybrid models need as many speculative tokens on both sides, others one for prefill."""
    first, second = (
        setting(given_arguments(plan, one), "speculative-config", "num_speculative_tokens")
        for one in (prefill, decode)
    )
    if first in (None, 1) or first == second:
        return []
    return [
        f"{name}: num_speculative_tokens is {first} for prefill and {second} for decode instances; "
        "prefill's must be 1, or for hybrid models both the same"
    ]
