"""How the router talks to instances."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp

from trainables.disaggregated._router_pool import Upstream

_KEPT_S = 2.0
"""How long an idle connection to an instance is kept; vLLM's server closes it after 5 s, and a
request that meets the close would fail."""
_SAID_BYTES = 2000
_DONE = b"[DONE]"
_TAIL_BYTES = 32
_ALIVE = (
    ("SO_KEEPALIVE", socket.SOL_SOCKET, 1),
    ("TCP_KEEPIDLE", socket.IPPROTO_TCP, 15),
    ("TCP_KEEPINTVL", socket.IPPROTO_TCP, 5),
    ("TCP_KEEPCNT", socket.IPPROTO_TCP, 4),
)
"""A node that vanishes says nothing; so it is noticed within 35 s, however long an answer takes."""


class InstanceFailed(Exception):
    """An instance did not do what it was asked.

    Attributes:
        reason: ``connect``, ``status``, ``broken``, ``silent`` or ``garbled``, for counting.
    """

    def __init__(self, upstream: Upstream, reason: str, said: str) -> None:
        super().__init__(f"{upstream.name} at {upstream.url}: {said}")
        self.reason = reason
        upstream.errors[reason] += 1


class Upstreams:
    """Connections to all instances.

    Args:
        connect_timeout: Seconds until a connection is accepted.
        silence_timeout: Seconds between two arrivals of an answer.
    """

    def __init__(self, connect_timeout: float, silence_timeout: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEPT_S, socket_factory=_socket
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=connect_timeout, sock_read=silence_timeout
            ),
            skip_auto_headers=("Accept-Encoding",),
            auto_decompress=False,
            read_bufsize=2**18,
        )
        self._connect_timeout = connect_timeout
        self._silence_timeout = silence_timeout

    async def __aenter__(self) -> Upstreams:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    @asynccontextmanager
    async def asked(
        self, upstream: Upstream, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[Answer]:
        """An instance's answer, whose status is below 500. Leaving the context ends the request.

        Raises :class:`InstanceFailed`.
        """
        try:
            async with self._session.request(
                method, upstream.url + path, data=body or None, headers=headers
            ) as response:
                answer = Answer(upstream, response, self._silence_timeout)
                if response.status >= 500:
                    raise refused(upstream, response.status, await answer.whole())
                yield answer
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            upstream.rest(asyncio.get_running_loop().time())
            raise InstanceFailed(upstream, "connect", self._unreachable(error)) from error
        except _BROKEN as error:
            raise broken(upstream, error, self._silence_timeout) from error

    def _unreachable(self, error: aiohttp.ClientConnectionError) -> str:
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"it accepts no connection: {error.os_error.strerror or error.os_error}"
        return f"it accepts no connection within {self._connect_timeout:g} s"


class Answer:
    """What an instance answers."""

    def __init__(
        self, upstream: Upstream, response: aiohttp.ClientResponse, silence_timeout: float
    ) -> None:
        self.status = response.status
        self.content_type = response.headers.get("Content-Type", "application/json")
        self._upstream = upstream
        self._response = response
        self._silence_timeout = silence_timeout

    @property
    def streams(self) -> bool:
        return self.content_type.startswith("text/event-stream")

    async def whole(self) -> bytes:
        """All of it. Raises :class:`InstanceFailed`."""
        try:
            return await self._response.read()
        except _BROKEN as error:
            raise broken(self._upstream, error, self._silence_timeout) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """It as it arrives. Raises :class:`InstanceFailed`, also for a stream that just ends."""
        tail = b""
        while True:
            try:
                chunk = await self._response.content.readany()
            except _BROKEN as error:
                raise broken(self._upstream, error, self._silence_timeout) from error
            if not chunk:
                break
            tail = (tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            yield chunk
        if _DONE not in tail:
            raise InstanceFailed(self._upstream, "broken", "its answer ended before its end")


_BROKEN = (aiohttp.ClientError, OSError, TimeoutError)


def refused(upstream: Upstream, status: int, body: bytes) -> InstanceFailed:
    """The failure that an answer with such a status is."""
    said = " ".join(body[:_SAID_BYTES].decode(errors="replace").split())
    return InstanceFailed(upstream, "status", f"HTTP {status}: {said}")


def broken(upstream: Upstream, error: Exception, silence_timeout: float) -> InstanceFailed:
    """The failure that an error of a connection means."""
    if isinstance(error, TimeoutError):
        return InstanceFailed(upstream, "silent", f"it has sent nothing for {silence_timeout:g} s")
    return InstanceFailed(upstream, "broken", f"{type(error).__name__} {error}".strip())


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for name, level, value in _ALIVE:
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(level, option, value)
    return made
