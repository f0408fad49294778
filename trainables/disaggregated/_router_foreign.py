"""Routers that others have written: vLLM-Ascend's example, and any command."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from trainables._program import StageError
from trainables._trial import Json
from trainables.disaggregated._options import DECODE, PREFILL, ROLES
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._router import (
    Router,
    RouterOptions,
    bracketed,
    check_reachable,
    needs_both,
    register_router,
    url_of,
)
from trainables.disaggregated._transfer import Flow
from trainables.engines import Launch
from trainables.engines._options import AbsolutePath, Command, UrlPath, Variables

_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""Variables after which a program would send requests for instances to somebody else."""
_LIST = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class VllmAscendRouterOptions(RouterOptions):
    """Options of ``vllm_ascend``.

    Attributes:
        script: ``load_balance_proxy_server_example.py`` of vLLM-Ascend's repository, in
            ``examples/disaggregated_prefill_v1``; for the transfer ``mooncake_layerwise`` its
            neighbour ``load_balance_proxy_layerwise_server_example.py``.
        command: The interpreter, of an environment with fastapi, httpx, uvicorn and vllm.
        workers: Processes of the first script; the layerwise one has one.
    """

    type: Literal["vllm_ascend"] = "vllm_ascend"
    script: AbsolutePath
    command: Command = Field(default_factory=lambda: ["python"])
    workers: PositiveInt = 1


@register_router("vllm_ascend")
class VllmAscendRouter(Router):
    """The proxy that vLLM-Ascend's guides use. *Not run on NPU.*"""

    Options = VllmAscendRouterOptions
    options: VllmAscendRouterOptions

    @property
    def ready_path(self) -> str:
        return "/healthcheck"

    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Flow = "prefill_first"
    ) -> Launch:
        if said := needs_both(self.options.type, instances):
            raise StageError("input", said[0])
        check_reachable(host, instances, flow)
        options = self.options
        workers = ("--workers", str(options.workers)) if options.workers > 1 else ()
        argv = [
            *options.command,
            str(options.script),
            *("--port", str(port), "--host", host),
            *workers,
            *_hosts_and_ports("prefiller", instances, PREFILL),
            *_hosts_and_ports("decoder", instances, DECODE),
        ]
        return Launch(tuple(argv), unset=_PROXIES)

    def identity(self) -> Json:
        return {"type": self.options.type, "workers": self.options.workers}

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = []
        if not options.script.is_file():
            found.append(("script", f"there is no file {options.script}"))
        if shutil.which(options.command[0]) is None:
            found.append(("command", f"there is no program {options.command[0]!r} here"))
        if self._layerwise and options.workers > 1:
            found.append(("workers", "the layerwise script has one process"))
        return found

    def misfits(self, plan: Plan, flow: Flow = "prefill_first") -> list[str]:
        found = needs_both(self.options.type, plan.instances)
        if self._layerwise != (flow == "decode_first"):
            right = "load_balance_proxy_" + ("layerwise_" if flow == "decode_first" else "")
            found.append(
                f"router vllm_ascend: for this transfer script must be {right}server_example.py"
            )
        return found

    @property
    def _layerwise(self) -> bool:
        return "layerwise" in self.options.script.name


class CommandRouterOptions(RouterOptions):
    """Options of ``command``.

    Attributes:
        command: Program and arguments. ``$HOST`` and ``$PORT`` stand for where it has to listen,
            ``$PREFILL_URLS``, ``$PREFILL_ADDRESSES`` (``host:port``), ``$PREFILL_HOSTS`` and
            ``$PREFILL_PORTS`` for the instances of that role, likewise ``$DECODE_...`` and
            ``$MIXED_...``. A list that is a whole argument becomes one argument for each
            instance, and with none of them goes away together with the flag before it; inside an
            argument it is joined by commas.
        ready_path: Path that answers 200 once it routes.
        env_vars: Additions to its environment.
        work_path: Folder it runs in; by default the trial's.
    """

    type: Literal["command"] = "command"
    command: Command
    ready_path: UrlPath = "/health"
    env_vars: Variables = Field(default_factory=dict)
    work_path: AbsolutePath | None = None


@register_router("command")
class CommandRouter(Router):
    """Any program that routes."""

    Options = CommandRouterOptions
    options: CommandRouterOptions

    @property
    def ready_path(self) -> str:
        return self.options.ready_path

    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Flow = "prefill_first"
    ) -> Launch:
        options = self.options
        argv = _substituted(options.command, {"HOST": host, "PORT": str(port)}, _lists(instances))
        return Launch(tuple(argv), dict(options.env_vars), _PROXIES, options.work_path)

    def identity(self) -> Json:
        options = self.options
        return {
            "type": options.type,
            "command": options.command,
            "env_vars": dict(sorted(options.env_vars.items())),
        }

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        found = []
        if shutil.which(options.command[0]) is None:
            found.append(("command", f"there is no program {options.command[0]!r} here"))
        known = {"HOST", "PORT", *_lists(())}
        used = {one[1] or one[2] for word in options.command for one in _LIST.finditer(word)}
        if "PORT" not in used:
            found.append(("command", "it is not told $PORT, where it has to listen"))
        if unknown := sorted(used - known):
            said = ", ".join(f"${name}" for name in unknown)
            found.append(("command", f"{said}: not among {', '.join(sorted(known))}"))
        if options.work_path is not None and not options.work_path.is_dir():
            found.append(("work_path", f"there is no folder {options.work_path}"))
        return found


def _hosts_and_ports(name: str, instances: Sequence[Instance], role: str) -> list[str]:
    ones = [one for one in instances if one.role == role]
    hosts, ports = [one.host for one in ones], [str(one.port) for one in ones]
    return [f"--{name}-hosts", *hosts, f"--{name}-ports", *ports]


def _lists(instances: Sequence[Instance]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for role in ROLES:
        ones = [one for one in instances if one.role == role]
        name = role.upper()
        found[f"{name}_URLS"] = [url_of(one) for one in ones]
        found[f"{name}_ADDRESSES"] = [f"{bracketed(one.host)}:{one.port}" for one in ones]
        found[f"{name}_HOSTS"] = [one.host for one in ones]
        found[f"{name}_PORTS"] = [str(one.port) for one in ones]
    return found


def _substituted(
    command: Sequence[str], texts: Mapping[str, str], lists: Mapping[str, Sequence[str]]
) -> list[str]:
    def put(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return texts[name] if name in texts else ",".join(lists.get(name, (match[0],)))

    words: list[str] = []
    for word in command:
        alone = _LIST.fullmatch(word)
        name = "" if alone is None else alone[1] or alone[2]
        if name in lists:
            if not lists[name] and words and words[-1].startswith("-"):
                words.pop()
            words += lists[name]
        else:
            words.append(_LIST.sub(put, word))
    return words
