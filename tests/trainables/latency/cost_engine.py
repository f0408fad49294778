"""Iterations of engines whose cost is known, scheduled as a server schedules them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from trainables.latency import IterationRecord
from trainables.simulation import Batch, Chunk

Cost = Callable[[Batch], float]


def additive(batch: Batch) -> float:
    """Seconds that are a sum of work: 5 ms, and so much for each token and pair of attention."""
    pairs = sum(chunk.tokens * (chunk.context + chunk.tokens / 2) for chunk in batch.prefills)
    return 5e-3 + 3e-5 * batch.tokens + 2e-8 * batch.context + 1e-9 * pairs


def device(batch: Batch) -> float:
    """Seconds of something like a device: bound by memory or arithmetic, graphs padded to powers
    of two, prompts launched one by one."""
    held = batch.context + sum(chunk.context for chunk in batch.prefills)
    pairs = sum(chunk.tokens * (chunk.context + chunk.tokens / 2) for chunk in batch.prefills)
    tokens = batch.tokens
    if not batch.prefills:
        tokens = 1 << (tokens - 1).bit_length()
    memory = 1e-2 + 9e-8 * held
    arithmetic = 6e-5 * tokens + 2e-9 * pairs
    launches = 1.5e-3 + 2e-4 * len(batch.prefills) if batch.prefills else 0.0
    return (memory**3 + arithmetic**3) ** (1 / 3) + launches + 1e-5 * batch.sequences


def serve(
    cost: Cost,
    iterations: int,
    *,
    seed: int,
    sequences: int = 32,
    budget: int = 512,
    prompt: float = 250.0,
    noise: float = 0.0,
) -> list[IterationRecord]:
    """Iterations of continuous batching with chunked prefill under a random load.

    Args:
        sequences: Running at once at most.
        budget: Tokens of an iteration.
        prompt: Median length.
        noise: Deviation of the logarithm of durations.
    """
    draw, errors = random.Random(seed), np.random.default_rng(seed)
    running: list[list[int]] = []
    waiting: list[int] = []
    records: list[IterationRecord] = []
    at = 0.0
    while len(records) < iterations:
        while len(waiting) < 3 and draw.random() < 0.4:
            waiting.append(min(8000, max(4, round(prompt * draw.lognormvariate(0, 1)))))
        left, chunks, decodes = budget, [], []
        for sequence in running:
            if sequence[0] >= sequence[1] and left:
                decodes.append(sequence[0])
                sequence[0] += 1
                sequence[2] -= 1
                left -= 1
        while waiting and len(running) < sequences:
            running.append([0, waiting.pop(0), max(2, round(draw.lognormvariate(4.5, 0.8)))])
        for sequence in running:
            tokens = min(left, sequence[1] - sequence[0])
            if tokens > 0:
                chunks.append(Chunk(tokens, sequence[0]))
                sequence[0] += tokens
                left -= tokens
        running = [sequence for sequence in running if sequence[2] > 0]
        if not chunks and not decodes:
            continue
        empty = IterationRecord(tuple(chunks), tuple(decodes), 1.0)
        seconds = cost(empty.batch) * float(errors.lognormal(0, noise))
        records.append(IterationRecord(empty.prefills, empty.decodes, seconds, at))
        at += seconds
    return records
