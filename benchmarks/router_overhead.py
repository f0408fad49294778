"""What the built-in router adds to a request, and how many tokens a second go through it.

Instances are stand-ins without a model in processes of their own, so that the router is all that
is measured; their own time is in the figures and is told beside them::

    python -m benchmarks.router_overhead [--requests 300]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aiohttp
import psutil

from cluster import lease_ports
from tests.stubs import pd_engine
from trainables.disaggregated._plan import Instance
from trainables.disaggregated._router import make_router

PATH = "/v1/completions"
KV_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer", "mixed": ""}
TPOT_S = 0.02
TOKENS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    requests = parser.parse_args().requests
    with lease_ports(5) as lease:
        ports = lease.ports
    instances = {
        role: Instance(role, 1, "one", 1, host="127.0.0.1", port=port)  # type: ignore[arg-type]
        for role, port in zip(KV_ROLES, ports, strict=False)
    }
    pair = [instances["prefill"], instances["decode"]]
    behaviour = {**os.environ, "STUB_BEHAVIOUR": json.dumps({"tpot": TPOT_S})}
    commands = [_engine_command(role, one.port) for role, one in instances.items()]
    routers = [
        make_router({}).launch("127.0.0.1", ports[3], [instances["mixed"]]),
        make_router({}).launch("127.0.0.1", ports[4], pair),
    ]
    with _running([*commands, *(launch.argv for launch in routers)], behaviour) as processes:
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        asyncio.run(_measure(urls, requests, processes[-1].pid))


async def _measure(urls: Sequence[str], requests: int, router: int) -> None:
    for url in urls:
        await _wait_for(url)
    ways = {"direct": urls[2], "one instance": urls[3], "prefill and decode": urls[4]}
    for size in (400, 40_000):
        for way, url in ways.items():
            found = await _first_tokens(url, "x" * size, requests)
            p50, p99 = statistics.median(found), statistics.quantiles(found, n=100)[98]
            print(f"TTFT, {size} bytes, {way}: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")
    for streams in (32, 128):
        wall, cpu = await _flood(urls[4], streams, router)
        total = streams * TOKENS
        print(
            f"{streams} streams of {TOKENS} tokens through prefill and decode: "
            f"{total / wall:.0f} tokens/s, {cpu / total * 1e6:.0f} us of router CPU for each"
        )


async def _wait_for(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/health"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def _first_tokens(url: str, prompt: str, requests: int) -> list[float]:
    """Seconds to the first bytes of each answer, one request after the other."""
    async with aiohttp.ClientSession() as session:
        found = [await _ask(session, url, 1, prompt) for _ in range(requests + 20)]
    return found[20:]


async def _flood(url: str, streams: int, router: int) -> tuple[float, float]:
    """Seconds on the clock, and of the router's processor, for so many streams at once."""
    process = psutil.Process(router)
    begun, used = time.perf_counter(), sum(process.cpu_times()[:2])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(_ask(session, url, TOKENS, "x" * 4000) for _ in range(streams)))
    return time.perf_counter() - begun, sum(process.cpu_times()[:2]) - used


async def _ask(session: aiohttp.ClientSession, url: str, tokens: int, prompt: str) -> float:
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True}
    begun, first = time.perf_counter(), 0.0
    async with session.post(url + PATH, json=body) as response:
        response.raise_for_status()
        async for _ in response.content.iter_any():
            first = first or time.perf_counter() - begun
    return first


def _engine_command(role: str, port: int) -> list[str]:
    config = json.dumps({"kv_role": KV_ROLES[role]})
    words = ["serve", "stub", "--port", str(port), "--kv-transfer-config", config]
    return [sys.executable, pd_engine.__file__, *words]


@contextmanager
def _running(
    commands: Sequence[Sequence[str]], environment: dict[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
