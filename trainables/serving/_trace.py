"""A simulated run as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

Instances are processes, their iterations slices, and each request a row with its phases, of its
prefill and of its decode instance where these are two. Format:
Chrome's Trace Event Format, JSON object form, times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster import write_atomic
from trainables.simulation import Iterations, Served, Simulated

_MOST_SLICES = 200_000
"""From here on, successive iterations of one kind become one slice."""
_ITERATIONS, _REQUESTS = 1, 2


def write_trace(simulated: Simulated, path: Path) -> None:
    """Write the trace of a run."""
    document = {"displayTimeUnit": "ms", "traceEvents": list(_events(simulated))}
    write_atomic(path, json.dumps(document, separators=(",", ":")) + "\n")


def _events(simulated: Simulated) -> Iterator[dict[str, Any]]:
    total = sum(len(one.start) for one in simulated.instances.values())
    pids = {name: number for number, name in enumerate(simulated.instances, start=1)}
    for name, iterations in simulated.instances.items():
        pid = pids[name]
        blocks = simulated.capacity[name]
        said = f"{name} ({blocks} KV blocks)"
        yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": said}}
        yield {
            "ph": "M",
            "name": "thread_name",
            "pid": pid,
            "tid": _ITERATIONS,
            "args": {"name": "iterations"},
        }
        yield from _iterations(iterations, pid, blocks, merged=total > _MOST_SLICES)
    for one in simulated.served:
        yield from _request(one, pids)


def _iterations(
    one: Iterations, pid: int, blocks: int, *, merged: bool
) -> Iterator[dict[str, Any]]:
    """Slices, and counters where they change."""
    before: dict[str, dict[str, float]] = {}
    for first, last in _groups(one, merged=merged):
        prefill, decodes = int(one.prefill_tokens[first]), int(one.decodes[first])
        kind = "mixed" if prefill and decodes else "prefill" if prefill else "decode"
        arguments = {"prefill_tokens": prefill, "decodes": decodes}
        if last > first:
            arguments["iterations"] = last - first + 1
        begin = _us(one.start[first])
        yield {
            "ph": "X",
            "name": kind,
            "cat": "iteration",
            "pid": pid,
            "tid": _ITERATIONS,
            "ts": begin,
            "dur": round(_us(one.end[last]) - begin, 3),
            "args": arguments,
        }
        counters: dict[str, dict[str, float]] = {
            "requests": {
                "running": int(one.running[first]),
                "waiting": int(one.waiting[first]),
            },
            "KV cache (%)": {"used": round(100 * int(one.kv_blocks[first]) / blocks, 2)},
            "tokens of an iteration": {"prefill": prefill, "decode": decodes},
        }
        for name, values in counters.items():
            if before.get(name) != values:
                yield {"ph": "C", "name": name, "pid": pid, "ts": begin, "args": values}
        before = counters


def _groups(one: Iterations, *, merged: bool) -> Iterator[tuple[int, int]]:
    """First and last of the iterations that become one slice."""
    count = len(one.start)
    first = 0
    for number in range(1, count + 1):
        alike = (
            merged
            and number < count
            and not one.prefill_tokens[number]
            and not one.prefill_tokens[first]
            and one.decodes[number] == one.decodes[first]
        )
        if not alike:
            yield first, number - 1
            first = number


def _request(one: Served, pids: dict[str, int]) -> Iterator[dict[str, Any]]:
    """One request: the whole of it, and inside its phases."""
    said = {
        "input_tokens": one.request.input_tokens,
        "output_tokens": one.request.output_tokens,
        "cached_tokens": one.cached_tokens,
        "preemptions": one.preemptions,
    }
    for instance, phases in zip(one.instances, _rows(one), strict=True):
        if instance not in pids:
            continue
        common = {
            "cat": "request",
            "id": one.request.number,
            "pid": pids[instance],
            "tid": _REQUESTS,
        }
        whole = (f"request {one.request.number}", phases[0][1], phases[-1][2])
        for number, (name, begin, end) in enumerate([whole, *phases]):
            if end > begin:
                opened = {"ph": "b", "name": name, "ts": _us(begin), **common}
                yield opened if number else {**opened, "args": said}
                yield {"ph": "e", "name": name, "ts": _us(end), **common}


def _rows(one: Served) -> list[list[tuple[str, float, float]]]:
    """Phases of a request on each of its instances."""
    queued = ("queued", one.sent, one.scheduled)
    if one.prefilled is None:
        return [[queued, ("prefill", one.scheduled, one.first), ("decode", one.first, one.end)]]
    loaded = max(one.first, one.prefilled)
    return [
        [queued, ("prefill", one.scheduled, one.prefilled)],
        [
            ("transfer and first token", one.prefilled, loaded),
            ("decode", loaded, one.end),
        ],
    ]


def _us(seconds: float) -> float:
    return round(float(seconds) * 1e6, 3)
