"""One request to a service that streams its answer, as OpenAI's protocol has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from trainables._trial import Json

_DATA = b"data:"
_DONE = b"[DONE]"
_SAID_BYTES, _SAID_CHARS = 4096, 200


class Refused(Exception):
    """The service failed a request; the message is the reason, without what differs each time.

    Attributes:
        status: HTTP status; None when it failed in the middle of its answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(Exception):
    """Nobody listens at the service's address any more."""


@dataclass
class Heard:
    """What has arrived of one answer.

    Attributes:
        first, last: When the first and the latest tokens arrived; None: none yet.
        chunks: Arrivals of tokens.
        gaps: Seconds between them.
        usage: ``(prompt, answer)`` in tokens, as the service counts; None: it has not told.
        ended: Whether the service has said that this is all.
        closed: When it first said so with a choice.
    """

    first: float | None = None
    last: float = 0.0
    chunks: int = 0
    gaps: list[float] = field(default_factory=list)
    usage: tuple[int, int] | None = None
    ended: bool = False
    closed: float | None = None

    def take(self, data: bytes, now: float) -> bool:
        """Take in one event that arrived at ``now``; whether it brought tokens.

        Raises :class:`Refused` when it is an error, or no JSON.
        """
        if data == _DONE:
            self.ended = True
            return False
        try:
            document = json.loads(data)
        except ValueError:
            raise Refused(f"an event that is no JSON: {_short(data)}") from None
        if not isinstance(document, dict) or document.get("error"):
            raise Refused(f"an error in its answer: {_short(data)}")
        self._take_usage(document.get("usage"))
        choices = document.get("choices")
        if not choices:
            return False
        choice = choices[0]
        if choice.get("finish_reason"):
            self.ended = True
            self.closed = now if self.closed is None else self.closed
        if not _brings_tokens(choice):
            return False
        if self.first is None:
            self.first = now
        else:
            self.gaps.append(now - self.last)
        self.last = now
        self.chunks += 1
        return True

    def settle(self) -> bool:
        """After the last event: whether tokens came that none of them showed, now taken in.

        An answer that is nothing but a token without text (half of a character) looks like its
        end; that there was one only the service's count tells.
        """
        if self.first is not None or self.closed is None or not (self.usage and self.usage[1]):
            return False
        self.first = self.last = self.closed
        self.chunks = 1
        return True

    def _take_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if isinstance(counts[0], int) and isinstance(counts[1], int):
                self.usage = counts[0], counts[1]


def _brings_tokens(choice: Mapping[str, Any]) -> bool:
    """Whether tokens came with it. They may have no text yet (half of a character); what only
    names the role or the end brings none."""
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text")) or not choice.get("finish_reason")
    if any(value for key, value in delta.items() if key != "role"):
        return True
    return not choice.get("finish_reason") and "role" not in delta


class Events:
    """Splits what a stream brings into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The events that ``data`` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                yield line[len(_DATA) :].strip()


async def exchange(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Json],
    heard: Heard,
    notice: Callable[[], None],
) -> None:
    """Ask, and fill ``heard`` while the answer comes, calling ``notice`` whenever tokens arrive.

    Raises:
        Refused: The service said no, or its answer ended before its end.
        Unreachable: Nobody listens there.
        aiohttp.ClientError, OSError: The connection broke.
    """
    clock = asyncio.get_running_loop().time
    try:
        async with session.post(url, json=body) as response:
            if response.status != 200:
                said = _short(await response.content.read(_SAID_BYTES))
                raise Refused(f"HTTP {response.status}: {said}", response.status)
            events = Events()
            async for data in response.content.iter_any():
                now = clock()
                for event in events.feed(data):
                    if heard.take(event, now):
                        notice()
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ConnectionRefusedError):
            raise Unreachable(str(error)) from error
        raise
    if not heard.ended:
        raise Refused("its answer ended before its end")
    if heard.settle():
        notice()
    if heard.first is None:
        raise Refused("an answer without tokens")


def _short(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())[:_SAID_CHARS]
