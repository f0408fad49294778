"""Local services that messages are sent to, and that misbehave when told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession

Answer = Callable[[Mapping[str, Any]], Any]


def accepted(message: Mapping[str, Any]) -> dict[str, Any]:
    """What Feishu says of a message it took; generic receivers ignore it."""
    return {"code": 0, "msg": "success", "data": {}}


class HttpSink:
    """Records every POST.

    Attributes:
        answer: Makes the answer from a message: a JSON document, a status, or ``hang``: none.
        received: ``{path, headers, json}`` of each message, in the order of their arrival.
    """

    def __init__(self) -> None:
        self.answer: Answer = accepted
        self.received: list[dict[str, Any]] = []
        self.url = ""
        self.arrived = threading.Condition()
        self.released = asyncio.Event()

    @property
    def kinds(self) -> list[str]:
        return [one["json"]["kind"] for one in self.received]

    def wait_for(self, condition: Callable[[HttpSink], Any]) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: condition(self), 120), self.received

    async def handle(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        with self.arrived:
            self.received.append(
                {"path": request.path, "headers": dict(request.headers), "json": message}
            )
            self.arrived.notify_all()
        answer = self.answer(message)
        if answer == "hang":
            await self.released.wait()
            return web.Response()
        if answer == "drip":
            return await self._drip(request)
        if isinstance(answer, int):
            return web.Response(status=answer, headers={"Location": f"{self.url}/elsewhere"})
        if isinstance(answer, str):
            return web.Response(text=answer)
        return web.json_response(answer)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        """Never done, and never silent for long."""
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.released.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@contextmanager
def http_sink() -> Iterator[HttpSink]:
    """An HTTP server on a free port of the loopback."""
    sink = HttpSink()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{tail:.*}", sink.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def stop(runner: web.AppRunner) -> None:
        sink.released.set()
        await runner.cleanup()

    with _loop() as loop:
        runner = asyncio.run_coroutine_threadsafe(start(), loop).result(120)
        try:
            yield sink
        finally:
            asyncio.run_coroutine_threadsafe(stop(runner), loop).result(120)


class SmtpSink:
    """Records every e-mail.

    Attributes:
        port: On the loopback.
        refuses: Answers every message with a lasting error.
    """

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []
        self.port = 0
        self.refuses = False

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:  # noqa: N802
        if self.refuses:
            return "554 no such thing as hunter2-the-password"
        content = envelope.content
        assert isinstance(content, bytes)
        self.received.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"

    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=tuner@here.test&to=person@there.test&mode=insecure"


@contextmanager
def smtp_sink() -> Iterator[SmtpSink]:
    """An SMTP server on a free port of the loopback."""
    sink = SmtpSink()
    with _loop() as loop:
        serving = loop.create_server(lambda: SMTP(sink, loop=loop), "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(serving, loop).result(120)
        sink.port = server.sockets[0].getsockname()[1]
        try:
            yield sink
        finally:
            loop.call_soon_threadsafe(server.close)
