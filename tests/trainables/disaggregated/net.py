"""Stub instances and routers in this process, and clients that ask them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp import web

from cluster import lease_ports
from tests.stubs.pd_engine import Behaviour, PdEngine
from trainables.disaggregated._router_app import Routing, Settings
from trainables.disaggregated._router_protocol import METASERVER

T = TypeVar("T")
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PATHS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
SHORT = {"silence_timeout": 1.0}


class Net:
    """Servers in this process, on a loop of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runners: list[web.AppRunner] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def serve(self, app: web.Application, port: int = 0) -> str:
        return self.run(self._serve(app, port))

    def engine(self, role: str, **behaviour: Any) -> tuple[PdEngine, str]:
        engine = PdEngine(role, behaviour=Behaviour(**behaviour))
        return engine, self.serve(engine.application())

    def router(self, **settings: Any) -> str:
        port = free_port()
        own = f"http://127.0.0.1:{port}"
        return self.serve(
            Routing(Settings(metaserver=own + METASERVER, **settings)).application(), port
        )

    def close(self) -> None:
        for runner in reversed(self._runners):
            self.run(runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, app: web.Application, port: int) -> str:
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"


def free_port() -> int:
    with lease_ports() as lease:
        return lease.ports[0]


def ask(url: str, path: str = COMPLETIONS, **body: Any) -> httpx.Response:
    prompt = {"prompt": "one two"} if path == COMPLETIONS else {"messages": [{"role": "user"}]}
    return httpx.post(url + path, json={"model": "stub", **prompt, **body}, timeout=200)


def listen_to(url: str, path: str = COMPLETIONS, **body: Any) -> tuple[bytes, bool]:
    """What came of a stream, and whether it ended as streams end."""
    came = b""
    asked = {"model": "stub", "prompt": "one two", "stream": True, **body}
    try:
        with httpx.stream("POST", url + path, json=asked, timeout=200) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            for chunk in response.iter_raw():
                came += chunk
    except httpx.RemoteProtocolError:
        return came, False
    return came, True


def metric(url: str, name: str, **labels: str) -> float:
    """Sum of all samples of a metric that have these labels."""
    total = 0.0
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        if re.match(rf"router_{name}[ {{]", line) and all(one in line for one in wanted):
            total += float(line.rpartition(" ")[2])
    return total


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ask_and_wait(url: str) -> Callable[[], None]:
    """Ask for a stream and read nothing of it; returns what ends the connection."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "one", "stream": True, "max_tokens": 9})
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    client = socket.create_connection((host, int(port)))
    client.sendall((head + body).encode())
    return client.close
