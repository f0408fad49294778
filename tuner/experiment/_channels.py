"""The ``notify`` list: who is told of what, over which channel."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    WithJsonSchema,
)

from tuner.experiment._duration import Duration
from tuner.experiment._models import Block
from tuner.experiment._problems import from_pydantic
from tuner.experiment._secrets import literal_fault, read_secret

Kind: TypeAlias = Literal[
    "start",
    "heartbeat",
    "trial_done",
    "best",
    "failed",
    "timeout",
    "crashed",
    "abnormal",
    "done",
]
"""What a message is about. ``failed``, ``timeout`` and ``crashed`` end a trial; ``crashed`` also
ends a run. ``abnormal`` ends nothing: an attempt that is repeated, a record that is torn."""

KINDS: tuple[Kind, ...] = get_args(Kind)
FALLBACK_KINDS: tuple[Kind, ...] = ("best", "crashed", "done")
"""What a fallback channel takes unless told otherwise."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SECRET_HEADER = re.compile(r"auth|token|secret|key|cookie|password|signature", re.IGNORECASE)
_Problems = list[tuple[str, str]]


def _filled(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("is empty")
    return value


def _http(value: SecretStr) -> SecretStr:
    _filled(value)
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.port
    except ValueError as error:
        raise ValueError("is not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL that begins with https:// or http://")
    if re.search(r"[\s\x00-\x1f]", value.get_secret_value()):
        raise ValueError("is not a URL: there is a blank in it")
    return value


def _unheard(record: logging.LogRecord) -> bool:
    return False


def _apprise(value: SecretStr) -> SecretStr:
    from apprise import Apprise

    address = _filled(value).get_secret_value()
    logger = logging.getLogger("apprise")
    # It quotes addresses that it does not understand.
    logger.addFilter(_unheard)
    try:
        understood = Apprise.instantiate(address) is not None
    finally:
        logger.removeFilter(_unheard)
    if not understood:
        scheme = "mailtos://user:password@host?to=address"
        raise ValueError(f"is no address that apprise understands, such as {scheme}")
    return value


def _some(kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    if not kinds:
        raise ValueError(f"name at least one of {', '.join(KINDS)}")
    return kinds


def _header(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x20-\x7e]+", value.get_secret_value()):
        raise ValueError("must be one line of ASCII text")
    return value


def _header_name(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("is no name of an HTTP header")
    return name


_File = WithJsonSchema({"type": "string"})
HttpUrl = Annotated[SecretStr, AfterValidator(_http)]
HttpUrlFile = Annotated[SecretStr, BeforeValidator(read_secret), AfterValidator(_http), _File]
AppriseUrl = Annotated[SecretStr, AfterValidator(_apprise)]
AppriseUrlFile = Annotated[SecretStr, BeforeValidator(read_secret), AfterValidator(_apprise), _File]
Secret = Annotated[SecretStr, AfterValidator(_filled)]
SecretFile = Annotated[SecretStr, BeforeValidator(read_secret), AfterValidator(_filled), _File]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_header)]


class Heartbeat(Block):
    """When to say that a run is alive; by default never.

    Attributes:
        trials: After so many finished trials.
        time: After so much real time, a long trial or not. Each heartbeat restarts both.
    """

    trials: PositiveInt | None = None
    time: Annotated[Duration, Field(gt=0)] | None = None


class ChannelOptions(Block):
    """What all channels have in common.

    Attributes:
        kinds: What is sent; by default all, over a fallback ``best``, ``crashed`` and ``done``.
        fallback: Used only for what no other channel has delivered.
        trial_done_every: Of how many measured trials one is told with ``trial_done``, the last.
        language: Of the texts.
        timeout: Seconds a send may take, connecting included.
        retries: Repetitions of a send that failed for a reason that may pass.
        secrets: Fields whose values have to be references to the environment; each has a twin,
            ``<field>_file``.
        required: Fields without which, or their twin, there is nowhere to send to.
    """

    kinds: Annotated[tuple[Kind, ...], AfterValidator(_some)] | None = None
    fallback: bool = False
    heartbeat: Heartbeat = Heartbeat()
    trial_done_every: Annotated[int, Field(ge=1)] = 1
    language: Literal["en", "zh"] = "en"
    timeout: Annotated[Duration, Field(gt=0, le=60)] = 10.0
    retries: Annotated[int, Field(ge=0, le=5)] = 2

    secrets: ClassVar[tuple[str, ...]] = ()
    required: ClassVar[tuple[str, ...]] = ()

    @property
    def takes(self) -> frozenset[Kind]:
        """The kinds of message that go over this channel."""
        if self.kinds is not None:
            return frozenset(self.kinds)
        return frozenset(FALLBACK_KINDS if self.fallback else KINDS)

    def secret_of(self, field: str) -> str | None:
        """The secret itself, from the environment or from its file; None if there is none."""
        found: SecretStr | None = getattr(self, field) or getattr(self, f"{field}_file")
        return None if found is None else found.get_secret_value()


class AppriseOptions(ChannelOptions):
    """E-mail, chat services, SMS gateways: whatever apprise has an address for.

    Attributes:
        url: Address as apprise writes it, such as ``mailtos://user:password@host?to=address``.
        url_file: File of mode 600 with the address.
    """

    type: Literal["apprise"] = "apprise"
    url: AppriseUrl | None = None
    url_file: AppriseUrlFile | None = None

    secrets: ClassVar[tuple[str, ...]] = ("url",)
    required: ClassVar[tuple[str, ...]] = ("url",)


class FeishuOptions(ChannelOptions):
    """A custom bot in a Feishu (Lark) group.

    Attributes:
        webhook: The bot's address.
        webhook_file: File of mode 600 with the address.
        secret: For bots with signature verification.
        secret_file: File of mode 600 with the secret.
    """

    type: Literal["feishu"] = "feishu"
    webhook: HttpUrl | None = None
    webhook_file: HttpUrlFile | None = None
    secret: Secret | None = None
    secret_file: SecretFile | None = None

    secrets: ClassVar[tuple[str, ...]] = ("webhook", "secret")
    required: ClassVar[tuple[str, ...]] = ("webhook",)


class WebhookOptions(ChannelOptions):
    """A service of your own that takes JSON.

    Attributes:
        url: Where to POST.
        url_file: File of mode 600 with the URL.
        headers: Sent along; what authenticates has to be a reference, as ``Bearer ${NAME}``.
    """

    type: Literal["webhook"] = "webhook"
    url: HttpUrl | None = None
    url_file: HttpUrlFile | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)

    secrets: ClassVar[tuple[str, ...]] = ("url",)
    required: ClassVar[tuple[str, ...]] = ("url",)


CHANNELS: Mapping[str, type[ChannelOptions]] = {
    "apprise": AppriseOptions,
    "feishu": FeishuOptions,
    "webhook": WebhookOptions,
}


def read_channels(data: Any, written: Any, problems: _Problems) -> tuple[ChannelOptions, ...]:
    """The channels of a ``notify`` list; what is wrong with it joins ``problems``.

    Args:
        data: The list with the environment filled in.
        written: The same as it stands in the experiment. No problem quotes a secret.
    """
    if data is None:
        return ()
    if not isinstance(data, list):
        problems.append(("notify", "must be a list of channels, each with its type"))
        return ()
    found = [
        _channel(f"notify.{index}", block, raw, problems)
        for index, (block, raw) in enumerate(zip(data, written, strict=True))
    ]
    return tuple(options for options in found if options is not None)


def _channel(path: str, block: Any, written: Any, problems: _Problems) -> ChannelOptions | None:
    if not isinstance(block, dict):
        problems.append((path, "must be a mapping"))
        return None
    name = block.get("type")
    model = CHANNELS.get(name) if isinstance(name, str) else None
    if model is None:
        said = "is required" if name is None else f"unknown type {name!r}"
        problems.append((f"{path}.type", f"{said}; known types: {', '.join(CHANNELS)}"))
        return None
    mistakes = [(f"{path}.{key}", said) for key, said in _mistakes(model, written)]
    try:
        options = model.model_validate(block)
    except ValidationError as error:
        known = {place for place, _ in mistakes}
        found = from_pydantic(path, block, list(_discreet(model, error)), list(model.model_fields))
        mistakes += [(place, said) for place, said in found if place not in known]
        options = None
    problems += mistakes
    return options


def _discreet(model: type[ChannelOptions], error: ValidationError) -> Iterable[Any]:
    """The errors of a channel without the values of its secrets."""
    hidden = {*model.secrets, "headers"}
    for item in error.errors():
        concealed = item["loc"] and item["loc"][0] in hidden
        yield {**item, "input": None} if concealed else item


def _mistakes(model: type[ChannelOptions], written: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What can be told from a block as it was written."""
    for field in model.secrets:
        literal, twin = written.get(field), f"{field}_file"
        if literal is not None and written.get(twin) is not None:
            yield field, f"stands beside {twin}; give one of them"
        elif literal is not None and (fault := literal_fault(literal)):
            yield field, f"{fault}, or put it into a file of mode 600 and name that as {twin}"
        elif literal is None and written.get(twin) is None and field in model.required:
            yield field, f"is required, or {twin}"
    headers = written.get("headers")
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if _SECRET_HEADER.search(str(name)) and (fault := literal_fault(value)):
            yield f"headers.{name}", fault
    kinds = written.get("kinds")
    if not written.get("heartbeat"):
        return
    if written.get("fallback") is True:
        yield "heartbeat", "is not for a fallback, which is sent what other channels failed to"
    elif isinstance(kinds, list) and "heartbeat" not in kinds:
        yield "heartbeat", "is of no use while kinds has no heartbeat"
