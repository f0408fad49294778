"""Splits to look at, without anything running."""

from __future__ import annotations

from typing import Any

from trainables.disaggregated._options import DisaggregatedOptions
from trainables.disaggregated._plan import Plan, plan
from trainables.disaggregated._transfer import Where, make_transfer

HOST = "192.0.0.1"
ASCEND = {"type": "vllm-ascend", "command": ["vllm", "serve"]}
CPU = {"type": "vllm", "command": ["python"]}


def split(
    transfer: dict[str, Any],
    engine: dict[str, Any] = ASCEND,
    prefill: dict[str, Any] | None = None,
    decode: dict[str, Any] | None = None,
    *,
    devices: tuple[int, int] = (1, 1),
    env_vars: dict[str, str] | None = None,
    instances: tuple[int, int] = (1, 1),
) -> Plan:
    options = DisaggregatedOptions.model_validate(
        {
            "model": "/models/m",
            "engine": engine,
            "benchmark": {"type": "builtin"},
            "load": {"type": "fixed", "concurrency": 1},
            "shapes": {
                "p": {"devices": devices[0], "roles": ["prefill"]},
                "d": {"devices": devices[1], "roles": ["decode"]},
            },
            "roles": {
                "prefill": {"args": prefill or {}},
                "decode": {"args": decode or {}, "env_vars": env_vars or {}},
            },
            "transfer": transfer,
        }
    )
    counts = dict(zip(("prefill_instances", "decode_instances"), instances, strict=True))
    return plan(options, counts)


def added(
    whole: Plan, role: str, *, ports: int | None = None, interface: str = "eth0", folder: str = "/s"
) -> tuple[dict[str, Any], dict[str, str]]:
    transfer = make_transfer(whole.transfer or {})
    instance = next(one for one in whole.instances if one.role == role)
    first = 36000 if ports is None else ports
    leased = range(first, first + transfer.ports(instance))
    found = transfer.settings(instance, Where(whole, HOST, leased, interface, folder))
    return dict(found.args), dict(found.env)


def misfits(whole: Plan) -> str:
    return "\n".join(make_transfer(whole.transfer or {}).misfits(whole))
