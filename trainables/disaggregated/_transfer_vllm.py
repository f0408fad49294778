"""Connectors that vLLM itself has: through a shared folder, and NIXL."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL, Role
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._transfer import (
    CONFIG,
    Addition,
    Transfer,
    TransferOptions,
    Where,
    register_transfer,
)
from trainables.disaggregated._transfer_sizes import SizeError, number, sizes
from trainables.engines._options import absolute

_OURS = ("kv_connector", "kv_role", "kv_port")

KV_ROLES: dict[Role, str] = {PREFILL: "kv_producer", DECODE: "kv_consumer"}


class ConnectorOptions(TransferOptions):
    """The keys of all connectors whose configuration we write.

    Attributes:
        config: Further entries of ``--kv-transfer-config``, such as ``{kv_load_failure_policy:
            recompute}``; those of its ``kv_connector_extra_config`` join ours.
    """

    config: dict[str, Json] = Field(default_factory=dict)


class Connector(Transfer):
    """A transfer by a connector whose configuration we write."""

    connector: ClassVar[str]
    options: ConnectorOptions

    def identity(self) -> Json:
        return {"type": self.options.type, "config": self.options.config}

    def problems(self) -> list[tuple[str, str]]:
        config = self.options.config
        found = [
            (f"config.{name}", "the transfer decides it; for other values use type: custom")
            for name in _OURS
            if name in config
        ]
        if not isinstance(config.get("kv_connector_extra_config", {}), dict):
            found.append(("config.kv_connector_extra_config", "it must be a mapping"))
        return found

    def misfits(self, plan: Plan) -> list[str]:
        found = super().misfits(plan)
        prefill, decode = plan.of(PREFILL), plan.of(DECODE)
        if prefill and decode and not found:
            try:
                found += self.pair_misfits(plan, prefill[0], decode[0])
            except SizeError as error:
                found.append(str(error))
        return found

    def pair_misfits(self, plan: Plan, prefill: Instance, decode: Instance) -> list[str]:
        """Why these two cannot exchange KV caches. May raise :class:`SizeError`."""
        return []

    def written(
        self,
        kv_role: str,
        entries: Mapping[str, Json] = MappingProxyType({}),
        extra: Mapping[str, Json] = MappingProxyType({}),
    ) -> dict[str, Json]:
        """The value of ``--kv-transfer-config``, with what the user adds."""
        added = dict(self.options.config)
        extra = {**extra, **added.pop("kv_connector_extra_config", {})}
        written = {"kv_connector": self.connector, "kv_role": kv_role, **entries, **added}
        return {**written, **({"kv_connector_extra_config": extra} if extra else {})}


class ExampleOptions(ConnectorOptions):
    """Options of ``example``.

    Attributes:
        folder: Folder that all nodes see, the same for all instances; by default the trial's own,
            which is right on one node, and on several where the storage is shared.
    """

    type: Literal["example"] = "example"
    folder: Annotated[str, Field(min_length=1), AfterValidator(absolute)] | None = None


@register_transfer("example")
class ExampleTransfer(Connector):
    """vLLM's ExampleConnector: files in a folder, for trying a split out without a fast network.

    Only whole blocks move. A prompt that is in the folder already is not computed again, by
    prefill instances either, and nothing is ever removed from it: numbers are for the split's
    function, not for its speed.
    """

    Options = ExampleOptions
    connector = "ExampleConnector"
    options: ExampleOptions

    def configuration(self, instance: Instance, where: Where) -> Addition:
        folder = self.options.folder or where.folder
        config = self.written("kv_both", extra={"shared_storage_path": folder})
        # Blocks that its own cache has may be more than those it would load: a negative number.
        return Addition({CONFIG: config, "no-enable-prefix-caching": True})

    def pair_misfits(self, plan: Plan, prefill: Instance, decode: Instance) -> list[str]:
        sides = [number(plan, one, "block-size") for one in (prefill, decode)]
        found = []
        if sides[0] != sides[1]:
            found.append(
                f"transfer example: block-size is {_or_default(sides[0])} for prefill and "
                f"{_or_default(sides[1])} for decode instances; files are found by whole blocks, "
                "so give both the same"
            )
        if any(sizes(plan, one).tensor > 1 for one in (prefill, decode)):
            found.append(
                "transfer example: it names files by layer, not by rank, so instances cannot have "
                "a tensor-parallel-size above 1"
            )
        return found


class NixlOptions(ConnectorOptions):
    """Options of ``nixl``.

    Attributes:
        buffer_device: Where KV caches wait, such as ``cpu``; by default the engine's device.
    """

    type: Literal["nixl"] = "nixl"
    buffer_device: str | None = None


@register_transfer("nixl")
class NixlTransfer(Connector):
    """vLLM's NixlConnector: decode instances pull. Its package must be in vLLM's environment."""

    Options = NixlOptions
    connector = "NixlConnector"
    options: NixlOptions

    def identity(self) -> Json:
        return {**super().identity(), "buffer_device": self.options.buffer_device}

    def configuration(self, instance: Instance, where: Where) -> Addition:
        device = self.options.buffer_device
        buffer: dict[str, Json] = {"kv_buffer_device": device} if device else {}
        return Addition(
            {CONFIG: self.written(KV_ROLES[instance.role], buffer)},
            {
                "VLLM_NIXL_SIDE_CHANNEL_HOST": where.host,
                "VLLM_NIXL_SIDE_CHANNEL_PORT": str(where.ports[0]),
            },
        )

    def ports(self, instance: Instance) -> int:
        """One for each data parallel rank, of which there are no more than devices; ranks count
        through the whole instance, on whatever node they are."""
        return instance.devices

    def pair_misfits(self, plan: Plan, prefill: Instance, decode: Instance) -> list[str]:
        first, second = (sizes(plan, one).tensor for one in (prefill, decode))
        if max(first, second) % min(first, second):
            return [
                f"transfer nixl: tensor-parallel-size is {first} for prefill and {second} for "
                "decode instances; one must be a multiple of the other"
            ]
        return []


def _or_default(size: int | None) -> str:
    return "the engine's default" if size is None else str(size)
