"""A transfer whose configuration the user writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from trainables._program import StageError
from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL
from trainables.disaggregated._plan import Instance
from trainables.disaggregated._transfer import (
    CONFIG,
    Addition,
    Flow,
    Transfer,
    TransferOptions,
    Where,
    register_transfer,
)
from trainables.disaggregated._transfer_sizes import sizes
from trainables.engines._options import Variables
from trainables.engines._substitution import in_mapping

_WRONG_ROLE = {PREFILL: "kv_consumer", DECODE: "kv_producer"}


class CustomOptions(TransferOptions):
    """Options of ``custom``.

    Attributes:
        prefill, decode: Value of ``--kv-transfer-config`` for instances of that role. In it, and
            in ``env_vars``, ``$HOST`` stands for the node's address, ``$PORT`` for the first of
            the leased ports, ``$INTERFACE`` for the node's interface, ``$FOLDER`` for a folder all
            instances see, ``$NUMBER`` for the instance's number within its role from 1, ``$RANK``
            for its number in the whole split from 0, and ``$PREFILL_INSTANCES``, ``$PREFILL_TP``,
            ``$PREFILL_DP``, ``$DECODE_INSTANCES``, ``$DECODE_TP``, ``$DECODE_DP`` for how many
            there are and how large they are. What is nothing but a number stays a number.
        env_vars: Variables of all instances that transfer.
        ports: Neighbouring ports that each instance needs besides its own.
        flow: Whom a request meets first, see the router.
    """

    type: Literal["custom"] = "custom"
    prefill: Annotated[dict[str, Json], Field(min_length=1)]
    decode: Annotated[dict[str, Json], Field(min_length=1)]
    env_vars: Variables = Field(default_factory=dict)
    ports: NonNegativeInt = 0
    flow: Flow = "prefill_first"


@register_transfer("custom")
class CustomTransfer(Transfer):
    """Any connector of any version, configured as its own guide says."""

    Options = CustomOptions
    options: CustomOptions

    @property
    def flow(self) -> Flow:
        return self.options.flow

    def configuration(self, instance: Instance, where: Where) -> Addition:
        options = self.options
        config = options.prefill if instance.role == PREFILL else options.decode
        told = _told(instance, where)
        try:
            return Addition(
                {CONFIG: in_mapping(config, told)},
                {name: str(value) for name, value in in_mapping(options.env_vars, told).items()},
            )
        except ValueError as error:
            raise StageError("input", str(error), "see trial.transfer") from None

    def ports(self, instance: Instance) -> int:
        return self.options.ports

    def identity(self) -> Json:
        options = self.options
        return {
            "type": options.type,
            "prefill": options.prefill,
            "decode": options.decode,
            "env_vars": dict(sorted(options.env_vars.items())),
            "flow": options.flow,
        }

    def problems(self) -> list[tuple[str, str]]:
        found = []
        for role, config in ((PREFILL, self.options.prefill), (DECODE, self.options.decode)):
            for name in ("kv_connector", "kv_role"):
                if name not in config:
                    found.append((f"{role}.{name}", "a connector needs it"))
            if config.get("kv_role") == _WRONG_ROLE[role]:
                said = f"{config['kv_role']} is the other side's; a {role} instance needs"
                right = "kv_producer" if role == PREFILL else "kv_consumer"
                found.append((f"{role}.kv_role", f"{said} {right} or kv_both"))
            if _is_mooncake(config) and config.get("kv_role") == "kv_both":
                found.append(
                    (
                        f"{role}.kv_role",
                        "Mooncake's connectors either send or receive: kv_producer for prefill, "
                        "kv_consumer for decode instances",
                    )
                )
        names = [side.get("kv_connector") for side in (self.options.prefill, self.options.decode)]
        if None not in names and names[0] != names[1]:
            found.append(("decode.kv_connector", f"{names[1]} cannot read what {names[0]} sends"))
        return found


def _told(instance: Instance, where: Where) -> dict[str, Json]:
    plan = where.plan
    told: dict[str, Json] = {
        "HOST": where.host,
        "INTERFACE": where.interface,
        "FOLDER": where.folder,
        "NUMBER": instance.number,
        "RANK": [one.name for one in plan.instances].index(instance.name),
    }
    if where.ports:
        told["PORT"] = where.ports[0]
    for role in (PREFILL, DECODE):
        ones = plan.of(role)
        told[f"{role.upper()}_INSTANCES"] = len(ones)
        if ones:
            has = sizes(plan, ones[0])
            told |= {f"{role.upper()}_TP": has.tensor, f"{role.upper()}_DP": has.data}
    return told


def _is_mooncake(config: dict[str, Json]) -> bool:
    return str(config.get("kv_connector", "")).startswith("Mooncake") and "Store" not in str(
        config["kv_connector"]
    )
