"""A prefill, decode or mixed instance without a model, for tests: vLLM's protocols between them.

In the test's own process, :meth:`PdEngine.application` is served by aiohttp. As a process of its
own it is started like vLLM, and knows its role by ``kv_role``::

    python tests/stubs/pd_engine.py serve MODEL --host H --port P --served-model-name N \
        --kv-transfer-config '{"kv_connector": ..., "kv_role": "kv_producer"}' ...

It is strict: a prefill instance answers only requests of one token that ask for it, a decode
instance only those that tell where their KV cache is, under the same request id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

_KEPT = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
TEXT = "öne twö three "


@dataclass
class Behaviour:
    """What it does differently from a healthy instance.

    Attributes:
        tokens: Length of an answer where a request gives none.
        delay: Seconds before an answer.
        tpot: Seconds between two tokens of a stream.
        silent: Whether KV caches move without parameters in requests, as with ExampleConnector.
        status: Status of all completions.
        garbled: Whether completions are answered with something that is no JSON.
        hang: Never answer.
        hang_after, die_after, stop_after: Tokens of a stream after which nothing comes any more,
            the process ends (here: the connection is reset), the stream ends without its end.
        early: Whether a decode instance begins its stream before it has ordered its prefill.
        unpushed: Whether a prefill instance never tells the decode instance that it has pushed.
    """

    tokens: int = 4
    delay: float = 0.0
    tpot: float = 0.0
    silent: bool = False
    status: int = 200
    garbled: bool = False
    hang: bool = False
    hang_after: int | None = None
    die_after: int | None = None
    stop_after: int | None = None
    early: bool = False
    unpushed: bool = False


@dataclass
class PdEngine:
    """One instance.

    Attributes:
        role: ``prefill``, ``decode`` or ``mixed``.
        name: Of the model.
        seen: ``(request id, body)`` of all completions, as they came.
        cancelled: Completions whose client went away before they were complete.
        under_way: Completions under way.
        most: The most that ever were.
        dies: Whether its process ends when it is to die.
        raw, bodies: The bytes of all requests, and of all answers.
    """

    role: str
    name: str = "stub"
    behaviour: Behaviour = field(default_factory=Behaviour)
    dies: bool = False
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    cancelled: int = 0
    under_way: int = 0
    most: int = 0
    bodies: list[bytes] = field(default_factory=list)
    _pushed: dict[str, asyncio.Event] = field(default_factory=dict)
    _moved: int = 0

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/push", self._push)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        request_id = request.headers.get("X-Request-Id", "")
        self.seen.append((request_id, body))
        self.raw.append(raw)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._answer(request, request_id, body)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def _answer(
        self, request: web.Request, request_id: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        does = self.behaviour
        if does.hang:
            await asyncio.Event().wait()
        if does.status != 200:
            return web.json_response({"error": {"message": "stub says no"}}, status=does.status)
        if said := self._wrong(request_id, body):
            return web.json_response({"error": {"message": said}}, status=400)
        if does.garbled:
            return web.Response(text="<html>")
        await asyncio.sleep(does.delay)
        params = body.get("kv_transfer_params") or {}
        started = None
        if does.early and body.get("stream"):
            started = await _started(request)
        if self.role == "decode" and "metaserver" in params:
            await self._order(request, request_id, params["metaserver"], body)
        if self.role == "prefill" and "remote_cached_tokens" in params:
            await self._push_to(params)
        if self.role == "decode" and params:
            self._moved += 16
        count = body.get("max_tokens", does.tokens)
        if body.get("stream"):
            return await self._stream(request, started or await _started(request), count)
        return self._whole(request, request_id, body, count)

    def _wrong(self, request_id: str, body: Mapping[str, Any]) -> str:
        """Why a request is not one of the protocol's."""
        params = body.get("kv_transfer_params")
        if self.role == "prefill":
            ordered = isinstance(params, dict) and "remote_cached_tokens" in params
            if params is not None and params != _KEPT and not ordered:
                return f"wrong parameters: {params}"
            lengths = [body.get("max_tokens"), body.get("min_tokens")]
            if lengths != [1, 1] or body.get("max_completion_tokens", 1) != 1:
                return f"not one token: {lengths}"
            if params is not None and (body.get("stream") or "stream_options" in body):
                return "a stream"
        if self.role == "decode" and not self.behaviour.silent:
            if not params or not params.get("do_remote_prefill"):
                return f"no KV cache: {params}"
            if "metaserver" not in params and params.get("remote_request_id") != request_id:
                return f"KV cache of {params.get('remote_request_id')}, not of {request_id}"
        return ""

    def _whole(
        self, request: web.Request, request_id: str, body: Mapping[str, Any], count: int
    ) -> web.Response:
        usage = {"prompt_tokens": 16, "completion_tokens": count}
        document: dict[str, Any] = {"id": request_id, "usage": usage}
        document["choices"] = [_choice(request.path, TEXT * count, "length", whole=True)]
        if self.role == "prefill":
            document["kv_transfer_params"] = None
            if body.get("kv_transfer_params") == _KEPT and not self.behaviour.silent:
                document["kv_transfer_params"] = {
                    "do_remote_prefill": True,
                    "do_remote_decode": False,
                    "remote_engine_id": f"engine-{request.url.port}",
                    "remote_block_ids": [1, 2, 3],
                    "remote_request_id": request_id,
                }
        answer = json.dumps(document).encode()
        self.bodies.append(answer)
        return web.Response(body=answer, content_type="application/json")

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, count: int
    ) -> web.StreamResponse:
        does = self.behaviour
        sent = b""
        for number in range(count):
            if number == does.die_after:
                self._die(request)
                return response
            if number == does.stop_after:
                return response
            if number == does.hang_after:
                await asyncio.Event().wait()
            last = number == count - 1
            choice = _choice(request.path, TEXT, "length" if last else None, whole=False)
            event = b"data: " + json.dumps({"choices": [choice]}, ensure_ascii=False).encode()
            await response.write(event + b"\n\n")
            sent += event + b"\n\n"
            await asyncio.sleep(does.tpot)
        await response.write(b"data: [DONE]\n\n")
        self.bodies.append(sent + b"data: [DONE]\n\n")
        return response

    def _die(self, request: web.Request) -> None:
        if self.dies:
            os._exit(1)
        if request.transport is not None:
            request.transport.abort()

    async def _order(
        self, request: web.Request, request_id: str, metaserver: str, body: Mapping[str, Any]
    ) -> None:
        """Order the prefill of all prompts, and wait until they were pushed."""
        if request.path.endswith("chat/completions"):
            names = [f"chatcmpl-{request_id}"]
        else:
            prompt = body["prompt"]
            several = isinstance(prompt, list) and not isinstance(prompt[0], int)
            names = [f"cmpl-{request_id}-{n}" for n in range(len(prompt) if several else 1)]
        events = [self._pushed.setdefault(name, asyncio.Event()) for name in names]
        host = request.url.with_path("/push")
        orders = [
            {
                "request_id": name,
                "do_remote_prefill": False,
                "do_remote_decode": True,
                "remote_cached_tokens": 0,
                "push": str(host),
            }
            for name in names
        ]
        async with aiohttp.ClientSession() as session:
            posts = [asyncio.create_task(_post(session, metaserver, one)) for one in orders]
            try:
                for event in events:
                    await event.wait()
            finally:
                await asyncio.gather(*posts, return_exceptions=True)

    async def _push_to(self, params: Mapping[str, Any]) -> None:
        if self.behaviour.unpushed:
            return
        batch = params.get("batch_kv_transfer_params") or {params["request_id"]: params}
        async with aiohttp.ClientSession() as session:
            for order in batch.values():
                await _post(session, order["push"], {"request_id": order["request_id"]})

    async def _push(self, request: web.Request) -> web.Response:
        name = (await request.json())["request_id"]
        self._pushed.setdefault(name, asyncio.Event()).set()
        return web.json_response({})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.name}]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        name = "vllm:prompt_tokens_by_source_total"
        label = f'engine="0",model_name="{self.name}",source="external_kv_transfer"'
        return web.Response(text=f"# TYPE {name} counter\n{name}{{{label}}} {self._moved}.0\n")


async def _started(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    return response


async def _post(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> int:
    async with session.post(url, json=body) as response:
        await response.read()
        return response.status


def _choice(path: str, text: str, reason: str | None, *, whole: bool) -> dict[str, Any]:
    if not path.endswith("chat/completions"):
        return {"index": 0, "text": text, "finish_reason": reason}
    key = "message" if whole else "delta"
    return {"index": 0, key: {"role": "assistant", "content": text}, "finish_reason": reason}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", default="stub")
    parser.add_argument("--kv-transfer-config", type=json.loads, default={})
    given, _ = parser.parse_known_args(arguments)
    roles = {"kv_producer": "prefill", "kv_consumer": "decode"}
    role = roles.get(given.kv_transfer_config.get("kv_role"), "mixed")
    behaviour = Behaviour(**json.loads(os.environ.get("STUB_BEHAVIOUR", "{}")))
    engine = PdEngine(role, given.served_model_name, behaviour, dies=True)
    web.run_app(
        engine.application(),
        host=given.host,
        port=given.port,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1,
    )


if __name__ == "__main__":
    main()
