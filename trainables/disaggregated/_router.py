"""What is in front of the instances, by the name that ``router: {type: ...}`` gives it."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from trainables._program import StageError
from trainables._registry import Registry
from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._transfer import Flow
from trainables.engines import Launch

DEFAULT = "builtin"
_EVERYWHERE = ("0.0.0.0", "::")


class RouterOptions(BaseModel):
    """The keys that all routers share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str


class Router(ABC):
    """One program that takes OpenAI requests and has the instances answer them.

    Attributes:
        Options: Model of the ``router`` block, ``type`` included.
    """

    Options: ClassVar[type[RouterOptions]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    @abstractmethod
    def ready_path(self) -> str:
        """Path that answers 200 once it routes."""

    @abstractmethod
    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Flow = "prefill_first"
    ) -> Launch:
        """The command that routes to instances that serve. Changes nothing anywhere.

        Args:
            host: Address it listens on, without brackets.
            port: TCP port it listens on.
            instances: Those of a plan, each with ``host`` and ``port``.
            flow: Whom a request meets first: :attr:`Transfer.flow` of the plan's transfer.

        Raises ``StageError`` of class ``input`` for instances it cannot route to.
        """

    @abstractmethod
    def identity(self) -> Json:
        """What of the router decides results. Not addresses, ports, timeouts."""

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``router`` block, message)."""
        return []

    def misfits(self, plan: Plan, flow: Flow = "prefill_first") -> list[str]:
        """Why it cannot route for a split, seen without starting anything."""
        return []


def url_of(instance: Instance) -> str:
    """``http://host:port`` of an instance, the host in brackets where it needs them."""
    return instance.base_url or f"http://{bracketed(instance.host)}:{instance.port}"


def bracketed(host: str) -> str:
    """A host as URLs have it."""
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


def check_reachable(host: str, instances: Iterable[Instance], flow: Flow) -> None:
    """Raise ``StageError`` where decode instances must call the router back and cannot."""
    if flow != "decode_first":
        return
    distant = [one for one in instances if one.role == DECODE and not is_loopback(one.host)]
    if host in _EVERYWHERE:
        said = "no address that instances could call"
    elif is_loopback(host) and distant:
        said = f"not reachable from {distant[0].name} on {distant[0].host}"
    else:
        return
    raise StageError(
        "input",
        f"the router would listen on {host}, which is {said}; with this transfer decode "
        "instances call it to start their prefill",
        "have it listen on its node's own address",
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def needs_both(name: str, instances: Iterable[Instance]) -> list[str]:
    """Why a router that knows no mixed instances cannot route to these."""
    roles = {one.role for one in instances}
    if roles == {PREFILL, DECODE}:
        return []
    return [f"router {name}: it routes to prefill and decode instances only, both are needed"]


_ROUTERS: Registry[Router] = Registry(
    "router",
    "npu_tuner.routers",
    {
        "builtin": "trainables.disaggregated._router_builtin",
        "vllm_ascend": "trainables.disaggregated._router_foreign",
        "command": "trainables.disaggregated._router_foreign",
    },
    default=DEFAULT,
)
register_router = _ROUTERS.register
router_types = _ROUTERS.names
router_type = _ROUTERS.find
make_router = _ROUTERS.make
