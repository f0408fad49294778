"""A router with one fault, which its first argument names; the others are our own router's.

``favourite``: all decode instances but one are idle. ``twice``: each question is asked twice.
``renames``: the model has another name. ``cached``: without prefill instances it goes on.
``mends``: what an instance leaves unfinished gets an end. ``lingers``: who watches over it survives
it. ``nothing``: it is sound.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import aiohttp
from aiohttp import web

from trainables.disaggregated.router import _parser

END = b"data: [DONE]\n\n"


class Broken:
    def __init__(self, fault: str, prefill: list[str], decode: list[str]) -> None:
        self.fault = fault
        self.pools = {"prefill": prefill, "decode": decode}
        self.count = 0

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        if self.fault == "renames":
            body["model"] = "another"
        self.count += 1
        async with aiohttp.ClientSession() as session:
            try:
                await self.prefill(session, body)
                if self.fault == "twice":
                    async with session.post(self.url("decode"), json=body) as reply:
                        await reply.read()
                reply = await session.post(self.url("decode"), json=body)
            except aiohttp.ClientError as error:
                return web.Response(status=502, text=str(error))
            return await self.passed_on(request, reply)

    async def prefill(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        short = {**body, "max_tokens": 1, "min_tokens": 1, "stream": False}
        try:
            async with session.post(self.url("prefill"), json=short) as reply:
                reply.raise_for_status()
        except aiohttp.ClientError:
            if self.fault != "cached":
                raise

    async def passed_on(
        self, request: web.Request, reply: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status)
        await response.prepare(request)
        try:
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
        except aiohttp.ClientError:
            if self.fault == "mends":
                await response.write(END)
            elif request.transport is not None:
                request.transport.abort()
        return response

    def url(self, role: str) -> str:
        favours = self.fault == "favourite" and role == "decode"
        pool = self.pools[role]
        return f"{pool[0 if favours else self.count % len(pool)]}/v1/completions"


async def health(request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    fault, *words = sys.argv[1:]
    if fault == "lingers":
        subprocess.run([sys.executable, __file__, "nothing", *words], check=False)
        time.sleep(3600)
    given = _parser().parse_args(words)
    broken = Broken(fault, given.prefill, given.decode)
    app = web.Application()
    app.router.add_post("/v1/completions", broken.complete)
    app.router.add_get("/health", health)
    web.run_app(app, host=given.host, port=given.port, access_log=None, shutdown_timeout=0.2)


if __name__ == "__main__":
    main()
