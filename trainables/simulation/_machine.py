"""One instance at work: iterations one after the other on a virtual clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainables.simulation._batch import Batch
from trainables.simulation._latency import HostCosts, LatencyModel
from trainables.simulation._request import Iterations, Request, Served
from trainables.simulation._scheduler import Iteration, Scheduler
from trainables.simulation._sequence import Sequence
from trainables.simulation._settings import SchedulerSettings

_STRETCH = 512
"""Decode iterations that are computed at once at most."""


@dataclass(frozen=True)
class Instance:
    """One instance of an engine.

    Attributes:
        name: Unlike that of every other instance.
        settings: Of its scheduler.
        latency: How long its iterations take.
        host: What happens outside of iterations.
    """

    name: str
    settings: SchedulerSettings
    latency: LatencyModel
    host: HostCosts = field(default_factory=HostCosts)


@dataclass(slots=True)
class _Log:
    """One entry for each iteration that was scheduled."""

    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    prefill_tokens: list[int] = field(default_factory=list)
    decodes: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    kv_blocks: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Flying:
    """An iteration whose outcome has not arrived yet."""

    end: float
    finished: Ordered[Sequence] = ()


class Machine:
    """State and clock of one instance.

    An engine that schedules asynchronously has up to two iterations under way: while one runs,
    the next is scheduled already, and it then waits for the first to end (vLLM's
    ``step_with_batch_queue``). What arrives meanwhile is seen after that.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.scheduler = Scheduler(instance.settings)
        self.log = _Log()
        self._depth = 2 if instance.settings.async_scheduling else 1
        self._clock = 0.0
        self._device_free = 0.0
        self._waits = False
        self._under_way: deque[_Flying] = deque()
        self._incoming: deque[tuple[float, Sequence]] = deque()
        self._arrived = 0
        self._last_in = -math.inf
        self._tick_ends: list[float] = []

    @property
    def load(self) -> int:
        """What a router sees: queued requests weigh four times as much as admitted ones, as in
        vLLM's data-parallel load balancer (``v1/engine/core_client.py``)."""
        queued = self.scheduler.queued + len(self._incoming)
        return 4 * queued + len(self.scheduler.running)

    def refusal(self, request: Request) -> str | None:
        """Why it can never serve a request; None when it can."""
        settings = self.instance.settings
        whole = request.input_tokens + request.output_tokens
        if whole > settings.longest:
            said = f"{whole} tokens of prompt and answer are more than the longest sequence"
            return f"{said} of {settings.longest}"
        most = settings.max_num_batched_tokens
        if not settings.chunked_prefill and whole > most:
            return f"{whole} tokens are more than an iteration's {most}, and prompts are not parted"
        return None

    def submit(self, request: Request, sent: float) -> None:
        """A client sends a request; later ones are not sent earlier."""
        sequence = Sequence(request, sent, self._arrived)
        self._arrived += 1
        host = self.instance.host
        self._last_in = max(sent + host.admission, self._last_in + host.spacing)
        self._incoming.append((self._last_in, sequence))

    def next_time(self) -> float:
        """When it does something next unless something is submitted; inf: never."""
        found = self._incoming[0][0] if self._incoming else math.inf
        if self._can_schedule():
            return min(found, self._clock)
        return min(found, self._under_way[0].end) if self._under_way else found

    def step(self, horizon: float) -> list[Served]:
        """Do what is next. Returns the requests that it ended.

        Iterations that are scheduled before ``horizon`` and whose course is clear are done
        together; what happens outside before ``horizon`` must have been submitted.
        """
        now = self.next_time()
        if self._incoming and self._incoming[0][0] <= now:
            at, sequence = self._incoming.popleft()
            self.scheduler.add(sequence)
            self.wake(at)
            return []
        if self._can_schedule():
            if self._incoming:
                horizon = min(horizon, self._incoming[0][0])
            if not self._schedule(horizon):
                self._waits = True
            return []
        landed = self._under_way.popleft()
        self._clock, self._waits = landed.end, False
        for sequence in landed.finished:
            self._release(sequence)
        return [self._served(sequence) for sequence in landed.finished]

    def wake(self, at: float) -> None:
        """Something has changed at that time: it looks for work again when it can."""
        if not self._under_way:
            self._clock, self._waits = max(self._clock, at), False

    def iterations(self) -> Iterations:
        """All of them so far."""
        log = self.log
        return Iterations(
            np.array(log.start, dtype=np.float64),
            np.array(log.end, dtype=np.float64),
            np.array(log.prefill_tokens, dtype=np.int64),
            np.array(log.decodes, dtype=np.int64),
            np.array(log.running, dtype=np.int64),
            np.array(log.waiting, dtype=np.int64),
            np.array(log.kv_blocks, dtype=np.int64),
        )

    def _release(self, sequence: Sequence) -> None:
        self.scheduler.release(sequence)

    def _can_schedule(self) -> bool:
        if self._waits or len(self._under_way) >= self._depth:
            return False
        if self.scheduler.has_work:
            return True
        self._waits = bool(self._under_way)
        return False

    def _schedule(self, horizon: float) -> bool:
        """Schedule one iteration, or a stretch of them; False when nothing can be computed."""
        if not any(one.finished for one in self._under_way):
            ticks = self.scheduler.quiet_ticks()
            if ticks > 1 and self._stretch(ticks, horizon):
                return True
        made = self.scheduler.schedule(len(self.log.end), self._clock)
        if made is None:
            return False
        start = max(self._clock, self._device_free) + self.instance.host.iteration
        end = start + self.instance.latency.seconds(made.batch)
        self._note([start], [end], [self.scheduler.pool.used], made)
        if made.ticks:
            self._tick_ends.append(end)
        self._under_way.append(_Flying(end, made.finished))
        return True

    def _stretch(self, ticks: int, horizon: float) -> bool:
        """Decode iterations in which nothing but the contexts changes."""
        batch = self.scheduler.decoding.batch()
        first = max(self._clock, self._device_free)
        ticks = min(ticks, _STRETCH, self._within(horizon - first))
        starts, ends = self._one_after_the_other(first, batch, ticks)
        ticks = self._in_time(ends, horizon)
        used: list[int] = []
        while len(used) < ticks and self.scheduler.tick():
            used.append(self.scheduler.pool.used)
        if not used:
            return False
        made = Iteration(batch)
        self.scheduler.end_tick(made)
        done = ends[: len(used)].tolist()
        self._note(starts[: len(used)].tolist(), done, used, made)
        self._tick_ends += done
        self._fly(done, made)
        return True

    def _one_after_the_other(
        self, first: float, batch: Batch, ticks: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Starts and ends of decode iterations, summed up in the order in which :meth:`_schedule`
        does, so that they are equal to the last bit."""
        times = np.full(2 * ticks + 1, self.instance.host.iteration)
        times[0] = first
        times[2::2] = self.instance.latency.decode_seconds(batch, ticks)
        times = np.cumsum(times)
        return times[1::2], times[2::2]

    def _within(self, seconds: float) -> int:
        """About how many iterations begin in that time, rather too many."""
        log = self.log
        if not log.end or seconds == math.inf:
            return _STRETCH
        last = log.end[-1] - log.start[-1]
        return max(2, min(_STRETCH, int(1.5 * seconds / last) + 3)) if last > 0 else _STRETCH

    def _in_time(self, ends: NDArray[np.float64], horizon: float) -> int:
        """How many of successive iterations are scheduled before ``horizon``: the first is now,
        later ones when there is room for them again."""
        if self._depth == 1:
            return 1 + int(np.searchsorted(ends[:-1], horizon, "left"))
        second = self._under_way[0].end if self._under_way else self._clock
        if second >= horizon:
            return 1
        return min(len(ends), 2 + int(np.searchsorted(ends[:-2], horizon, "left")))

    def _fly(self, ends: list[float], made: Iteration) -> None:
        """Iterations were scheduled; all but the last of them have ended, or run."""
        for end in ends[-self._depth :]:
            self._under_way.append(_Flying(end))
        while len(self._under_way) > self._depth:
            self._clock = self._under_way.popleft().end
        if len(ends) > self._depth:
            self._clock = ends[-self._depth - 1]
        self._device_free = ends[-1]
        self._under_way[-1].finished = made.finished

    def _note(
        self, starts: list[float], ends: list[float], used: list[int], made: Iteration
    ) -> None:
        log, count, scheduler = self.log, len(ends), self.scheduler
        log.start += starts
        log.end += ends
        log.prefill_tokens += [made.batch.prefill_tokens] * count
        log.decodes += [made.batch.decodes] * count
        log.running += [len(scheduler.running)] * count
        log.waiting += [scheduler.queued] * count
        log.kv_blocks += used
        self._device_free = ends[-1]

    def _served(self, sequence: Sequence) -> Served:
        times: list[float] = []
        for part in sequence.tokens:
            if isinstance(part, tuple):
                times += self._tick_ends[part[0] : part[1]]
            else:
                times.append(self.log.end[part])
        delivery = self.instance.host.delivery
        return Served(
            sequence.request,
            sequence.sent,
            sequence.sent if sequence.scheduled is None else sequence.scheduled,
            times[0] + delivery,
            times[-1] + delivery,
            np.diff(np.array(times)),
            sequence.cached,
            sequence.preemptions,
            (self.instance.name,),
        )
