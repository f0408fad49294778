"""The router's HTTP server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

from trainables.disaggregated import _router_protocol as protocol
from trainables.disaggregated._router_pool import (
    LEAST_LOADED,
    Counts,
    Policy,
    Pool,
    Upstream,
    metrics_text,
)
from trainables.disaggregated._router_upstream import (
    Answer,
    InstanceFailed,
    Upstreams,
    refused,
)

Json: TypeAlias = Any

_MOST_BYTES = 2**30
_FORWARDED = ("Authorization", "traceparent", "tracestate")
_ID = "X-Request-Id"
_FAILED = "upstream_error"
_MODELS_S = 10.0


@dataclass(frozen=True)
class Settings:
    """What the router is told.

    Attributes:
        prefill, decode, mixed: URLs of the instances.
        decode_first: Whether decode instances order their prefill, else they pull.
        metaserver: URL where they do.
        policy: Who gets the next request.
        connect_timeout, silence_timeout: See :class:`Upstreams`.
    """

    prefill: Sequence[str] = ()
    decode: Sequence[str] = ()
    mixed: Sequence[str] = ()
    decode_first: bool = False
    metaserver: str = ""
    policy: Policy = LEAST_LOADED
    connect_timeout: float = 10.0
    silence_timeout: float = 1800.0


@dataclass
class _Asked:
    """One request of a client."""

    http: web.Request
    raw: bytes
    document: Mapping[str, Json]
    request_id: str

    @property
    def path(self) -> str:
        return self.http.path

    @property
    def size(self) -> int:
        return len(self.raw)

    def headers(self) -> dict[str, str]:
        kept = {name: self.http.headers[name] for name in _FORWARDED if name in self.http.headers}
        return {**kept, _ID: self.request_id, "Content-Type": "application/json"}


@dataclass(frozen=True)
class _Prefilled:
    """What a prefill instance has answered, and where its KV cache is, if it says so."""

    status: int
    body: bytes
    params: Json = None


@dataclass
class _Order:
    """A request whose decode instance orders prefill, once for each of its prompts.

    Attributes:
        asked: The request.
        names: Names of the orders.
        task: What answers the client; None: it has been answered.
        came: Orders that came.
        at: The prefill instance that is at it.
        prefilling: Its work.
        failure: Why prefill failed.
    """

    asked: _Asked
    names: Sequence[str]
    task: asyncio.Task[Any] | None
    came: dict[str, Mapping[str, Json]] = field(default_factory=dict)
    at: Upstream | None = None
    prefilling: asyncio.Task[_Prefilled] | None = None
    failure: InstanceFailed | None = None

    def take(self, name: str, said: Mapping[str, Json]) -> bool:
        """Take in an order; whether it completes them, which one does at most."""
        repeated = name in self.came
        self.came[name] = said
        return not repeated and len(self.came) == len(self.names)

    def joined(self) -> dict[str, Json]:
        """What a prefill instance is told of all of them."""
        return protocol.joined_orders({name: self.came[name] for name in self.names})

    def fail(self, failure: InstanceFailed) -> None:
        """Have the client told; its decode instance would wait for ever."""
        self.failure = failure
        if self.task is not None:
            self.task.cancel()

    def give_up(self) -> None:
        """End its prefill, if it is under way: nobody waits for it any more."""
        if self.prefilling is not None:
            self.prefilling.cancel()


class Routing:
    """Handlers of all paths, and what they share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools = {
            role: Pool(role, getattr(settings, role), settings.policy)
            for role in ("prefill", "decode", "mixed")
        }
        self._counts = Counts()
        self._orders: dict[str, _Order] = {}
        self._upstreams: Upstreams

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_MOST_BYTES)
        app.cleanup_ctx.append(self._connected)
        app.router.add_post(protocol.COMPLETIONS, self._complete)
        app.router.add_post(protocol.CHAT, self._complete)
        app.router.add_post(protocol.METASERVER, self._take_order)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _connected(self, app: web.Application) -> AsyncIterator[None]:
        settings = self._settings
        async with Upstreams(settings.connect_timeout, settings.silence_timeout) as upstreams:
            self._upstreams = upstreams
            yield

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            response = await self._completed(request)
        except (asyncio.CancelledError, _ClientGone):
            self._counts.disconnects += 1
            raise
        self._counts.answers[response.status] += 1
        return response

    async def _completed(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            asked = _Asked(request, raw, protocol.parsed(raw), uuid.uuid4().hex)
        except ValueError as error:
            return _error(str(error), 400, "invalid_request_error")
        try:
            return await self._route(asked)
        except InstanceFailed as failure:
            return _error(_told(failure), 502, _FAILED)

    async def _route(self, asked: _Asked) -> web.StreamResponse:
        pools = self._pools
        if pools["mixed"]:
            return await self._answer("mixed", asked, asked.raw)
        if not pools["decode"]:
            shortened = protocol.shortened(asked.document, stream=True)
            return await self._answer("prefill", asked, protocol.encoded(shortened))
        if not pools["prefill"]:
            return await self._answer("decode", asked, asked.raw)
        if self._settings.decode_first:
            return await self._decode_first(asked)
        return await self._prefill_first(asked)

    async def _prefill_first(self, asked: _Asked) -> web.StreamResponse:
        prefilled = await self._prefill(self._choose("prefill"), asked, None)
        if prefilled.status != 200:
            return web.Response(
                status=prefilled.status, body=prefilled.body, content_type="application/json"
            )
        if prefilled.params is not None and protocol.prompts_of(asked.document) > 1:
            # Its answer tells where the KV cache of the first one is, and no other's.
            return _error("send one prompt a request", 400, "invalid_request_error")
        asking = protocol.pulling_request(asked.raw, asked.document, prefilled.params)
        return await self._answer("decode", asked, asking)

    async def _decode_first(self, asked: _Asked) -> web.StreamResponse:
        names = protocol.orders_of(asked.path, asked.request_id, asked.document)
        order = _Order(asked, names, asyncio.current_task())
        self._orders |= dict.fromkeys(names, order)
        asking = protocol.pushed_request(asked.document, self._settings.metaserver)
        try:
            return await self._answer("decode", asked, protocol.encoded(asking), order)
        except BaseException as error:
            if order.at is not None:
                error.add_note(f"{order.at.name} at {order.at.url} had not finished its prefill")
            order.give_up()
            raise
        finally:
            order.task = None
            for name in names:
                self._orders.pop(name, None)

    async def _take_order(self, request: web.Request) -> web.Response:
        try:
            said = protocol.parsed(await request.read())
        except ValueError as error:
            return _error(str(error), 400, "invalid_request_error")
        name = said.get("request_id")
        order = self._orders.get(name) if isinstance(name, str) else None
        if order is None:
            return _error(f"no request {name!r} waits for prefill", 404, "not_found_error")
        if not order.take(str(name), said):
            return web.json_response({"status": "ok"})
        order.at = self._choose("prefill")
        work = self._prefill(order.at, order.asked, order.joined())
        order.prefilling = asyncio.create_task(work)
        try:
            prefilled = await order.prefilling
            if prefilled.status != 200:
                raise refused(order.at, prefilled.status, prefilled.body)
        except InstanceFailed as failure:
            order.fail(failure)
            return _error(str(failure), 502, _FAILED)
        except asyncio.CancelledError:
            if name in self._orders:
                raise
            return _error(f"nobody waits for {name!r} any more", 404, "not_found_error")
        finally:
            order.at = None
        return web.json_response({"status": "ok"})

    async def _prefill(
        self, upstream: Upstream, asked: _Asked, params: Mapping[str, Json] | None
    ) -> _Prefilled:
        """Have a prefill instance compute a prompt. Raises :class:`InstanceFailed`."""
        body = protocol.encoded(protocol.prefill_request(asked.document, params))
        with upstream.busy(asked.size):
            async with self._upstreams.asked(
                upstream, "POST", asked.path, body, asked.headers()
            ) as answer:
                whole = await answer.whole()
        if answer.status != 200:
            return _Prefilled(answer.status, whole)
        try:
            return _Prefilled(200, whole, protocol.parsed(whole).get(protocol.PARAMS))
        except ValueError as error:
            raise InstanceFailed(upstream, "garbled", f"of its answer {error}") from None

    async def _answer(
        self, role: str, asked: _Asked, body: bytes, order: _Order | None = None
    ) -> web.StreamResponse:
        """Have an instance answer the client.

        Raises :class:`InstanceFailed` as long as nothing of an answer has been sent; after that
        the client is told inside its stream, which then breaks off.
        """
        upstream = self._choose(role)
        response: web.StreamResponse | None = None
        try:
            with upstream.busy(asked.size), _prefill_failure(order):
                async with self._upstreams.asked(
                    upstream, "POST", asked.path, body, asked.headers()
                ) as answer:
                    headers = {"Content-Type": answer.content_type, _ID: asked.request_id}
                    if not answer.streams:
                        whole = await answer.whole()
                        return web.Response(status=answer.status, body=whole, headers=headers)
                    response = web.StreamResponse(status=answer.status, headers=headers)
                    await _relay(answer, asked.http, response)
        except InstanceFailed as failure:
            if response is None or not response.prepared:
                raise
            await self._break_off(asked.http, response, failure)
        assert response is not None
        return response

    async def _break_off(
        self, request: web.Request, response: web.StreamResponse, failure: InstanceFailed
    ) -> None:
        """End a stream such that no client takes it for a whole one: those who read its events
        see an error, the others a connection that broke."""
        self._counts.broken += 1
        await _write(response, protocol.error_event(str(failure), 502, _FAILED))
        if request.transport is not None:
            request.transport.close()

    async def _models(self, request: web.Request) -> web.Response:
        said = "there is no instance"
        for role in ("mixed", "decode", "prefill"):
            for upstream in self._pools[role].upstreams:
                try:
                    async with (
                        asyncio.timeout(_MODELS_S),
                        self._upstreams.asked(upstream, "GET", request.path, b"", {}) as answer,
                    ):
                        whole = await answer.whole()
                        return web.Response(
                            status=answer.status, body=whole, content_type="application/json"
                        )
                except (InstanceFailed, TimeoutError) as error:
                    said = str(error) or f"{upstream.name} does not answer"
        return _error(said, 502, _FAILED)

    async def _health(self, request: web.Request) -> web.Response:
        counts = {role: len(pool.upstreams) for role, pool in self._pools.items()}
        return web.json_response({"status": "ok", **counts})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=metrics_text(self._pools, self._counts))

    def _choose(self, role: str) -> Upstream:
        return self._pools[role].choose(asyncio.get_running_loop().time())


def _error(message: str, status: int, kind: str) -> web.Response:
    return web.json_response(protocol.error_document(message, status, kind), status=status)


def _told(failure: InstanceFailed) -> str:
    """What a client is told about a failure."""
    return "; ".join((str(failure), *getattr(failure, "__notes__", ())))


class _ClientGone(Exception):
    """The client is not there any more; no failure of an instance."""


@contextmanager
def _prefill_failure(order: _Order | None) -> Iterator[None]:
    """Turns the cancellation by :meth:`_Order.fail` into the failure it is for."""
    try:
        yield
    except asyncio.CancelledError:
        if order is None or order.failure is None or order.task is None:
            raise
        order.task.uncancel()
        raise order.failure from None


async def _relay(answer: Answer, request: web.Request, response: web.StreamResponse) -> None:
    """Send a stream on byte for byte. Raises :class:`InstanceFailed` when it breaks."""
    with _gone():
        await response.prepare(request)
    async for chunk in answer.chunks():
        await _write(response, chunk)


async def _write(response: web.StreamResponse, chunk: bytes) -> None:
    with _gone():
        await response.write(chunk)


@contextmanager
def _gone() -> Iterator[None]:
    """Tells errors of the client's connection from those of an instance's."""
    try:
        yield
    except ConnectionError as error:
        raise _ClientGone(str(error)) from error
