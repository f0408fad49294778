"""What is asked of simulated engines, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        number: Its number in the workload, from 0; what identifies it.
        input_tokens: Of the prompt, 1 at least.
        output_tokens: Tokens that are generated, 1 at least.
        arrival: Seconds after the start at which it is due; None: as soon as there is a place for
            it (closed loop).
        prefix: Hashes of successive blocks of the prompt, as in Mooncake's traces: two prompts
            share their beginning as far as these are equal. Empty: shares nothing.
        prefix_block: Tokens that each of those hashes stands for.
    """

    number: int
    input_tokens: int
    output_tokens: int
    arrival: float | None = 0.0
    prefix: tuple[int, ...] = ()
    prefix_block: int = 512


@dataclass(frozen=True)
class Load:
    """How requests are sent.

    Attributes:
        requests: In the order in which they are sent; arrivals never decrease.
        concurrency: Under way at once at most: one that is due while there is no place waits for
            one, in order. None: no limit.
    """

    requests: Sequence[Request]
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a request. Times are seconds after the start.

    Attributes:
        request: What was asked.
        sent: When it was sent: its arrival, or when it got its place.
        scheduled: When it was first in a batch.
        first: When its first token reached the client.
        end: When its last token did.
        gaps: Between the arrivals of its tokens at the client, shape (output_tokens - 1,).
        cached_tokens: Of its prompt, found in the prefix cache when it was first scheduled.
        preemptions: How often it lost its KV cache and was computed again.
        instances: Names of the instances that computed it: one, or prefill and decode.
        prefilled: When its prompt was computed, where another instance decoded; else None.
    """

    request: Request
    sent: float
    scheduled: float
    first: float
    end: float
    gaps: NDArray[np.float64]
    cached_tokens: int = 0
    preemptions: int = 0
    instances: tuple[str, ...] = ()
    prefilled: float | None = None

    @property
    def ttft(self) -> float:
        """Time to first token, in seconds."""
        return self.first - self.sent

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first, in seconds; None for a single token."""
        tokens = self.request.output_tokens
        return (self.end - self.first) / (tokens - 1) if tokens > 1 else None


@dataclass(frozen=True)
class Iterations:
    """What one instance did. Arrays have one element per iteration, in order of time.

    Attributes:
        start, end: Seconds after the start.
        prefill_tokens: Prompt tokens computed.
        decodes: Sequences that decoded.
        running, waiting: Sequences admitted, and queued, when it was scheduled.
        kv_blocks: Blocks in use of the KV cache, prefix cache of nobody excluded.
    """

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    prefill_tokens: NDArray[np.int64]
    decodes: NDArray[np.int64]
    running: NDArray[np.int64]
    waiting: NDArray[np.int64]
    kv_blocks: NDArray[np.int64]


@dataclass(frozen=True)
class Refused:
    """A request that no instance can ever serve.

    Attributes:
        reason: Why: longer than the model's limit, or than the whole KV cache.
    """

    request: Request
    sent: float
    reason: str


@dataclass(frozen=True)
class Simulated:
    """A simulation's result.

    Attributes:
        served: Requests that were answered, by number.
        refused: Those that could not be.
        instances: Name of each instance to what it did.
        capacity: Name of each instance to the blocks of its KV cache.
    """

    served: Sequence[Served]
    refused: Sequence[Refused]
    instances: dict[str, Iterations]
    capacity: dict[str, int]
