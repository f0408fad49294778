"""Workloads for vLLM's scheduler and the simulated one, and what the latter makes of them.

Times are whole numbers of 2^-20 s: sums of them are exact, so that schedules can be compared to
the last bit. ``vllm_schedule.py`` reads the cases, and writes traces as :func:`simulated` does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from trainables.simulation import (
    Batch,
    Instance,
    LatencyModel,
    Load,
    Request,
    SchedulerSettings,
    simulate,
)
from trainables.simulation._machine import Machine

TICK = 2.0**-20


class Recorded(LatencyModel):
    """A fixed part, and parts for each new token and for contexts; keeps every batch.

    Args:
        fixed, token: Ticks.
        shift: Tokens of context per tick, as a power of two.
    """

    def __init__(self, fixed: int, token: int, shift: int) -> None:
        self.fixed, self.token, self.shift = fixed, token, shift
        self.batches: list[Batch] = []

    def seconds(self, batch: Batch) -> float:
        self.batches.append(batch)
        context = batch.context + sum(chunk.context for chunk in batch.prefills)
        return (self.fixed + self.token * batch.tokens + (context >> self.shift)) * TICK


@contextmanager
def one_by_one() -> Iterator[None]:
    """Without stretches of decode iterations that are computed at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "_stretch", lambda *_: False)
        yield


def simulated(case: dict[str, Any]) -> dict[str, Any]:
    """Iterations and requests of the simulated instance, in the form of ``vllm_schedule.py``."""
    model = Recorded(*case["latency"])
    instance = Instance("only", SchedulerSettings(**case["settings"]), model)
    with one_by_one():
        found = simulate([instance], Load(requests(case)))
    log = found.instances["only"]
    rows = zip(log.start, log.end, model.batches, log.kv_blocks, strict=True)
    return {
        "iterations": [
            [round(start / TICK), round(end / TICK), *_row(batch), int(blocks)]
            for start, end, batch, blocks in rows
        ],
        "requests": [
            [_times(one.first, one.gaps), one.cached_tokens, one.preemptions]
            for one in found.served
        ],
    }


def requests(case: dict[str, Any]) -> list[Request]:
    return [
        Request(
            number,
            one["input_tokens"],
            one["output_tokens"],
            one["arrival"] * TICK,
            tuple(one["prefix"]),
            one["prefix_block"],
        )
        for number, one in enumerate(case["requests"])
    ]


def random_case(seed: int) -> dict[str, Any]:
    """Any settings that vLLM accepts; every other seed has few blocks and long answers."""
    rng = random.Random(seed)
    asked = _random_requests(rng, longest_answer=60 if seed % 2 else rng.choice([1, 5, 30, 100]))
    size = rng.choice([4, 8, 16, 16, 32])
    longest = max(one["input_tokens"] + one["output_tokens"] for one in asked)
    needed = -(-longest // size)
    spare = [0, 1, 2, 5, 10] if seed % 2 else [0, 3, needed, 3 * needed, 20 * needed]
    chunked = bool(seed % 2) or rng.random() < 0.8
    tokens = rng.choice([8, 16, 33, 64, 256, 2048])
    tokens = tokens if chunked else max(tokens, longest)
    settings = {
        "max_num_seqs": min(tokens, rng.choice([1, 2, 4, 8, 16, 64])),
        "max_num_batched_tokens": tokens,
        "num_blocks": needed + rng.choice(spare),
        "block_size": size,
        "max_model_len": longest,
        "prefix_caching": rng.random() < 0.7,
        "chunked_prefill": chunked,
        "long_prefill_token_threshold": min(longest, rng.choice([0, 0, 0, 5, 17, 40])),
        "async_scheduling": rng.random() < 0.6,
        "reserve_full_prompt": rng.random() < 0.6,
        "watermark": rng.choice([0.0, 0.0, 0.0, 0.05, 0.2]),
    }
    latency = [1000, rng.choice([0, 10]), rng.choice([2, 5])]
    return {"settings": settings, "latency": latency, "requests": asked}


def _random_requests(rng: random.Random, longest_answer: int) -> list[dict[str, Any]]:
    longest, span = rng.choice([20, 60, 200, 600]), rng.choice([0, 50, 2000, 10000])
    block, sharing = rng.choice([4, 8, 16, 24, 32]), rng.random() < 0.6
    names: dict[tuple[int, ...], int] = {}
    found: list[dict[str, Any]] = []
    arrival = 0
    for _ in range(rng.randint(3, 40)):
        tokens = rng.randint(1, longest)
        prefix: list[int] = []
        path: tuple[int, ...] = ()
        for _ in range(tokens // block if sharing and rng.random() < 0.8 else 0):
            path += (rng.choice([0, 0, 0, 0, 0, 1]),)
            prefix.append(names.setdefault(path, len(names)))
        arrival += rng.randint(0, span)
        found.append(
            {
                "input_tokens": tokens,
                "output_tokens": rng.randint(1, longest_answer),
                "arrival": arrival,
                "prefix": prefix,
                "prefix_block": block,
            }
        )
    return found


def _row(batch: Batch) -> list[Any]:
    chunks = [list(chunk) for chunk in batch.prefills]
    return [chunks, batch.decodes, batch.context, batch.context_max, batch.context_min]


def _times(first: float, gaps: Any) -> list[int]:
    times = [first]
    for gap in gaps:
        times.append(times[-1] + gap)
    return [round(time / TICK) for time in times]
