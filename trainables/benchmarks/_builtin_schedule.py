"""When requests are sent. Pure but for the clock of the event loop that it is given.

In an open loop (a request rate), every request has a time of its own that no answer moves, so a
slow service cannot make the load easier (no coordinated omission). Its latencies count from that
time; the timers of the event loop are a millisecond coarse, so within that grain they count from
when it was really sent. A limit on the concurrency closes the loop in part: a request that has to
wait for a place counts from when it got one, as in ``vllm bench serve``, and how long requests
waited is told beside the metrics.

In a closed loop (a concurrency and no rate), a request is sent when an earlier one ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Literal, TypeAlias

GRAIN_S = 0.002
"""A request sent this much late was sent in time."""

Send: TypeAlias = Callable[[int, float, float], Awaitable[None]]
"""Send the request of a number, due at a time, whose latencies count from another."""


def arrivals(
    count: int,
    rate: float,
    seed: int,
    *,
    how: Literal["poisson", "constant"] = "poisson",
    burstiness: float = 1.0,
) -> list[float]:
    """Seconds after the first request at which each is due; the first at 0.

    Random gaps are scaled so that ``count`` requests come at exactly ``rate`` per second: a run
    of few requests is then not a run at another rate.
    """
    if how == "constant":
        return [number / rate for number in range(count)]
    source = random.Random(f"{seed}/arrivals")
    gaps = [source.gammavariate(burstiness, 1.0) for _ in range(count - 1)]
    whole = sum(gaps)
    scale = (count - 1) / rate / whole if whole > 0 else 0.0
    return [0.0, *(at * scale for at in accumulate(gaps))]


def rescaled(recorded: Sequence[float], rate: float | None) -> list[float]:
    """Recorded arrivals from 0, at ``rate`` per second on average; None: as fast as they were."""
    first, last = recorded[0], recorded[-1]
    scale = 1.0
    if rate is not None:
        scale = (len(recorded) - 1) / rate / (last - first) if last > first else 0.0
    return [(at - first) * scale for at in recorded]


async def closed_loop(count: int, concurrency: int | None, send: Send) -> None:
    """Send ``count`` requests, ``concurrency`` at once."""
    loop = asyncio.get_running_loop()
    numbers = iter(range(count))

    async def place() -> None:
        for number in numbers:
            now = loop.time()
            await send(number, now, now)

    async with asyncio.TaskGroup() as places:
        for _ in range(min(count, concurrency or count)):
            places.create_task(place())


async def open_loop(due: Sequence[float], concurrency: int | None, send: Send) -> None:
    """Send a request at each of ``due``, seconds from now; ``concurrency`` at once at most."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    free = asyncio.Semaphore(concurrency or len(due))

    async def one(number: int, at: float, since: float) -> None:
        try:
            await send(number, at, since)
        finally:
            free.release()

    async with asyncio.TaskGroup() as under_way:
        for number, seconds in enumerate(due):
            at = begin + seconds
            if (wait := at - loop.time()) > 0:
                await asyncio.sleep(wait)
            waits = free.locked()
            await free.acquire()
            now = loop.time()
            late = now - at > GRAIN_S
            under_way.create_task(one(number, at, at if late and not waits else now))
