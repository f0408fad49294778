"""What every engine's block of an experiment may say."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    WithJsonSchema,
)

from trainables.engines._health_check import HealthCheck

_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)


def private_host(value: str) -> str:
    """``localhost`` or a private address, without brackets."""
    host = value.removeprefix("[").removesuffix("]")
    if host == "localhost":
        return host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{value!r} is neither localhost nor an IP address; an engine answers everybody who "
            "reaches it, so give a loopback, private or link-local address"
        ) from None
    mapped = getattr(address, "ipv4_mapped", None) or address
    if not any(mapped in network for network in _PRIVATE):
        raise ValueError(
            f"{value} can be reached from outside; give localhost, or a loopback, private or "
            "link-local address"
        )
    return host


def _text(value: Any) -> Any:
    """Numbers and booleans as text, as a shell would have them; the rest is left to pydantic."""
    return str(value) if isinstance(value, bool | int | float) else value


def variable_name(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of an environment variable")
    return name


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL character cannot be passed to a program")
    return value


def url_path(value: str) -> str:
    """``value`` when it is a path of a URL."""
    if not value.startswith("/") or any(c.isspace() for c in value):
        raise ValueError(f"{value!r} is no path of a URL; it begins with /, as in /v1/models")
    return value


def absolute(text: str) -> str:
    """A path made absolute where it is one: engines run in folders of their own."""
    if "/" in text or text.startswith("~"):
        return str(Path(text).expanduser().absolute())
    return text


def _command(command: list[str]) -> list[str]:
    return [absolute(command[0]), *command[1:]]


Words = list[Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]]
Command = Annotated[Words, Field(min_length=1), AfterValidator(_command)]
"""A program and its arguments; a program with a slash is made absolute."""

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]

UrlPath = Annotated[str, AfterValidator(url_path)]

Variables = dict[
    Annotated[str, AfterValidator(variable_name)],
    Annotated[
        str,
        BeforeValidator(_text),
        AfterValidator(_no_nul),
        WithJsonSchema({"type": ["string", "number", "boolean"]}),
    ],
]


class EngineOptions(BaseModel):
    """The keys that all engines share.

    Attributes:
        env_vars: Additions to the engine's environment.
        served_model_name: Name that clients use; by default the name of the model's folder.
        host: Address the engine listens on: ``localhost`` or a loopback, private or link-local
            IPv4 or IPv6 address of the trial's node.
        port: TCP port; by default one that is free is leased for each start.
        health_check_endpoint: Path that answers 200 once the engine is up.
        startup_timeout: Seconds until the first answer to a real request.
        health_check: Words in its log, or the benchmark's, after which a trial is given up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    env_vars: Variables = {}
    served_model_name: Annotated[str, Field(min_length=1), AfterValidator(_no_nul)] | None = None
    host: Annotated[str, AfterValidator(private_host)] = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    health_check_endpoint: UrlPath = "/v1/models"
    startup_timeout: PositiveFloat = 600
    health_check: HealthCheck = HealthCheck()
