"""One run of the built-in benchmark: requests sent and timed in one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from trainables.benchmarks._benchmark import Load
from trainables.benchmarks._builtin_options import BuiltinOptions
from trainables.benchmarks._builtin_schedule import (
    GRAIN_S,
    arrivals,
    closed_loop,
    open_loop,
    rescaled,
)
from trainables.benchmarks._builtin_send import Failure, Sender
from trainables.benchmarks._builtin_stream import Heard, Unreachable
from trainables.benchmarks._builtin_windows import WindowLog
from trainables.benchmarks._summary import RequestRecord
from trainables.benchmarks._workload import Ask


@dataclass(frozen=True)
class Ended:
    """How one request ended.

    Attributes:
        record: Its times and tokens.
        failure: Why it failed; None when it did not.
        told: Whether the service told how many tokens it had.
        asked: Tokens that were asked for.
        lag: Seconds it was sent after it could have been: the client's own fault.
    """

    record: RequestRecord
    failure: Failure | None
    told: bool
    asked: int
    lag: float

    @property
    def waited(self) -> float:
        """Seconds it waited for a place; what the timers of the client add is not counted."""
        seconds = self.record.sent - self.record.scheduled
        return seconds if seconds > GRAIN_S else 0.0


@dataclass(frozen=True)
class Course:
    """What a run found.

    Attributes:
        ended: All requests, in the order of their numbers.
        busy: Share of one core that the client itself needed.
    """

    ended: Sequence[Ended]
    busy: float

    @property
    def records(self) -> list[RequestRecord]:
        return [one.record for one in self.ended]


async def warm_up(sender: Sender, asks: Sequence[Ask], concurrency: int | None) -> None:
    """Send requests that do not count. Raises ``Unreachable``."""

    async def send(number: int, due: float, since: float) -> None:
        await sender.send(asks[number], Heard(), lambda: None)

    await _alone(closed_loop(len(asks), concurrency, send))


async def measure(
    sender: Sender,
    asks: Sequence[Ask],
    options: BuiltinOptions,
    load: Load,
    seed: int,
    windows: IO[str],
) -> Course:
    """Send all requests, and write a line to ``windows`` for each window.

    Raises ``Unreachable`` when nobody listens there any more, seen at the latest at the end.
    """
    loop = asyncio.get_running_loop()
    due = due_times(asks, options, load, seed)
    log = WindowLog(windows, loop.time())
    ticks = asyncio.create_task(_tick(log, options.window_s))
    ended: dict[int, Ended] = {}

    async def send(number: int, at: float, since: float) -> None:
        ended[number] = await _sent(sender, asks[number], number, at, since, log)

    began, used = time.perf_counter(), time.process_time()
    try:
        if due is None:
            await _alone(closed_loop(len(asks), load.concurrency, send))
        else:
            await _alone(open_loop(due, load.concurrency, send))
    finally:
        busy = (time.process_time() - used) / (time.perf_counter() - began)
        ticks.cancel()
        with suppress(asyncio.CancelledError):
            await ticks
        log.close(loop.time())
    if any(one.failure and one.failure.kind == "broken" for one in ended.values()):
        await sender.require_listener()
    return Course([ended[number] for number in sorted(ended)], busy)


def due_times(
    asks: Sequence[Ask], options: BuiltinOptions, load: Load, seed: int
) -> list[float] | None:
    """When each request is due, in seconds from the first; None in a closed loop.

    Arrivals of the workload's own are kept, stretched to the rate where one is asked for. With a
    concurrency and no rate, nothing of them is left.
    """
    recorded = [ask.arrival for ask in asks if ask.arrival is not None]
    rate = load.request_rate
    if len(recorded) == len(asks) and (rate is not None or load.concurrency is None):
        return rescaled(recorded, rate)
    if rate is None:
        return None
    return arrivals(len(asks), rate, seed, how=options.arrivals, burstiness=options.burstiness)


async def _sent(
    sender: Sender, ask: Ask, number: int, due: float, since: float, log: WindowLog
) -> Ended:
    clock = asyncio.get_running_loop().time
    heard = Heard()

    def notice() -> None:
        if heard.chunks == 1:
            log.answered(heard.last - since)
        log.tokens(1)

    lag = clock() - since
    log.sent()
    failure = await sender.send(ask, heard, notice)
    asked, answered = heard.usage or (ask.input_tokens, heard.chunks)
    record = RequestRecord(
        id=number,
        scheduled=due,
        sent=since,
        end=clock() if failure else heard.last,
        first=heard.first,
        input_tokens=asked,
        output_tokens=answered,
        itl=tuple(heard.gaps),
        error=failure.reason if failure else "",
    )
    if not failure:
        log.tokens(answered - heard.chunks)
    log.ended(failed=failure is not None, tpot=record.tpot)
    return Ended(record, failure, heard.usage is not None, ask.output_tokens, lag)


async def _tick(log: WindowLog, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    number = 0
    while True:
        number += 1
        await asyncio.sleep(log.begin + number * seconds - loop.time())
        log.close(loop.time())


async def _alone(work: Awaitable[None]) -> None:
    """Await a group of tasks; the first of them that found nobody there speaks for all."""
    try:
        await work
    except ExceptionGroup as group:
        gone = (error for error in group.exceptions if isinstance(error, Unreachable))
        raise next(gone, group) from None
