"""Our own router as an adapter; :mod:`trainables.disaggregated.router` is the program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat

from trainables._program import StageError
from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL, ROLES
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._router import (
    Router,
    RouterOptions,
    check_reachable,
    register_router,
    url_of,
)
from trainables.disaggregated._router_pool import LEAST_LOADED, Policy
from trainables.disaggregated._transfer import Flow
from trainables.disaggregated._transfer_sizes import SizeError, given_arguments, setting
from trainables.engines import Launch

PROGRAM = "trainables.disaggregated.router"


class BuiltinOptions(RouterOptions):
    """Options of ``builtin``.

    Attributes:
        policy: ``least_loaded``: the prefill instance with the fewest bytes of prompts, the decode
            or mixed one with the fewest requests under way; ``round_robin``: each in its turn.
        connect_timeout: Seconds until an instance has accepted a connection.
        silence_timeout: Seconds an instance may send nothing while it answers. A request that
            waits in its queue, or is not streamed, is silent for as long as it takes.
    """

    type: Literal["builtin"] = "builtin"
    policy: Policy = LEAST_LOADED
    connect_timeout: PositiveFloat = 10
    silence_timeout: PositiveFloat = 1800


@register_router("builtin")
class BuiltinRouter(Router):
    """Our own router, for vLLM's and vLLM-Ascend's two-step protocols."""

    Options = BuiltinOptions
    options: BuiltinOptions

    @property
    def ready_path(self) -> str:
        return "/health"

    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Flow = "prefill_first"
    ) -> Launch:
        if not instances:
            raise StageError("input", "router builtin: there is no instance to route to")
        check_reachable(host, instances, flow)
        options = self.options
        where: list[str] = []
        for role in ROLES:
            if urls := [url_of(one) for one in instances if one.role == role]:
                where += [f"--{role}", *urls]
        argv = [
            *(sys.executable, "-m", PROGRAM),
            *("--host", host, "--port", str(port)),
            *where,
            *("--flow", flow, "--policy", options.policy),
            *("--connect-timeout", f"{options.connect_timeout:g}"),
            *("--silence-timeout", f"{options.silence_timeout:g}"),
        ]
        return Launch(tuple(argv))

    def identity(self) -> Json:
        return {"type": self.options.type, "policy": self.options.policy}

    def misfits(self, plan: Plan, flow: Flow = "prefill_first") -> list[str]:
        if flow == "decode_first" and not (plan.of(PREFILL) and plan.of(DECODE)):
            return ["router builtin: decode_first needs prefill and decode instances"]
        if any(_recomputes(plan, one) for one in plan.of(DECODE)[:1]):
            return [
                "router builtin: with recompute_scheduler_enable decode instances give requests "
                "back to be sent again, which it does not do; use router: {type: vllm_ascend}, or "
                "leave recompute_scheduler_enable out of the decode instances' additional-config"
            ]
        return []


def _recomputes(plan: Plan, instance: Instance) -> bool:
    try:
        given = given_arguments(plan, instance)
    except SizeError:
        return False  # the transfer says so
    name, key = "additional-config", "recompute_scheduler_enable"
    inner = setting(given, name, "scheduler_config")
    return bool(setting(given, name, key) or (isinstance(inner, dict) and inner.get(key)))
