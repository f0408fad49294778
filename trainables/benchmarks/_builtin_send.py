"""Requests of one run to its service: how each ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import aiohttp

from trainables.benchmarks._builtin_options import BuiltinOptions
from trainables.benchmarks._builtin_stream import Heard, Refused, Unreachable, exchange
from trainables.benchmarks._workload import Ask

_KEEP_ALIVE_S = 2.0
"""Less than any service keeps an idle connection, so that none closes when it is used again."""
_LOOK_S = 5.0
_PERMANENT = frozenset({400, 404, 413, 422})


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    Attributes:
        reason: In words that are the same for all requests that failed so.
        kind: ``refused``: the service said no. ``permanent``: it will always say no. ``late``: no
            answer in time. ``broken``: the connection broke.
    """

    reason: str
    kind: Literal["refused", "permanent", "late", "broken"]


class Sender:
    """Sends requests to one service, as many at once as it is told to."""

    def __init__(self, options: BuiltinOptions, base_url: str, served_name: str) -> None:
        self._options = options
        self._url = f"{base_url}{options.path}"
        self._name = served_name
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def send(self, ask: Ask, heard: Heard, notice: Callable[[], None]) -> Failure | None:
        """Ask, and fill ``heard`` with the answer, calling ``notice`` whenever tokens arrive.

        Raises ``Unreachable`` when nobody listens there any more.
        """
        body = self._options.body(self._name, ask.prompt, ask.output_tokens)
        seconds = self._options.request_timeout
        try:
            async with asyncio.timeout(seconds):
                await exchange(self._session, self._url, body, heard, notice)
        except TimeoutError:
            return Failure(f"no end of its answer within {seconds:g} s", "late")
        except Refused as error:
            kind: Literal["permanent", "refused"] = (
                "permanent" if error.status in _PERMANENT else "refused"
            )
            return Failure(str(error), kind)
        except (aiohttp.ClientError, OSError) as error:
            return Failure(f"the connection broke: {type(error).__name__}", "broken")
        return None

    async def require_listener(self) -> None:
        """Raise ``Unreachable`` when nobody listens there."""
        try:
            async with asyncio.timeout(_LOOK_S), self._session.head(self._url):
                pass
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(str(error)) from error
        except (aiohttp.ClientError, OSError):
            return
