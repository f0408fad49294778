"""The sequences of an instance that decode: all advance by one token per tick.

Nothing is kept up for each of them in each iteration; what a batch needs to know, which blocks run
full and who is done follow from the tick and a few sums, so that an iteration costs the same
however many sequences decode.
"""

from __future__ import annotations

import heapq

from trainables.simulation._batch import Batch, Chunk
from trainables.simulation._sequence import Sequence


class Decoding:
    """Args:
    block_size: Tokens of a block.
    """

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self.tick = 0
        self._members: set[Sequence] = set()
        self._sum = 0
        self._longest: list[tuple[int, int, Sequence]] = []
        self._shortest: list[tuple[int, int, Sequence]] = []
        self._ends: list[tuple[int, int, Sequence]] = []
        self._buckets: list[dict[Sequence, None]] = [{} for _ in range(block_size)]

    def __len__(self) -> int:
        return len(self._members)

    def join(self, sequence: Sequence) -> None:
        """It decodes from the next tick on."""
        base = sequence.computed - self.tick
        sequence.base, sequence.joined, sequence.decoding = base, self.tick, True
        self._members.add(sequence)
        self._sum += base
        order = sequence.order
        heapq.heappush(self._longest, (-base, order, sequence))
        heapq.heappush(self._shortest, (base, order, sequence))
        left = sequence.request.output_tokens - sequence.generated
        heapq.heappush(self._ends, (self.tick + left, order, sequence))
        self._buckets[base % self._block_size][sequence] = None

    def leave(self, sequence: Sequence) -> None:
        """It does not decode any more; its own numbers are brought up to date."""
        ticks = self.tick - sequence.joined
        self._members.remove(sequence)
        self._sum -= sequence.base
        del self._buckets[sequence.base % self._block_size][sequence]
        sequence.computed = sequence.base + self.tick
        sequence.generated += ticks
        sequence.known += ticks
        sequence.decoding = False
        if ticks:
            sequence.tokens.append((sequence.joined, self.tick))

    def batch(self, prefills: tuple[Chunk, ...] = ()) -> Batch:
        """The next tick, together with chunks of prompts."""
        count = len(self._members)
        if not count:
            return Batch(prefills)
        tick = self.tick
        longest = -self._top(self._longest, -1) + tick
        shortest = self._top(self._shortest, 1) + tick
        return Batch(prefills, count, self._sum + count * tick, longest, shortest)

    def ticks_left(self) -> int:
        """Ticks up to and with the first one that ends a sequence; 0 without any."""
        self._forget(self._ends)
        return self._ends[0][0] - self.tick if self._ends else 0

    def growing(self) -> dict[Sequence, None]:
        """Those that need one more block for the next tick, in the order in which they joined."""
        return self._buckets[-self.tick % self._block_size]

    def finished(self) -> list[Sequence]:
        """Those whose last token the tick before this one brought; they leave."""
        found: list[Sequence] = []
        while True:
            self._forget(self._ends)
            if not self._ends or self._ends[0][0] > self.tick:
                return found
            sequence = heapq.heappop(self._ends)[2]
            self.leave(sequence)
            found.append(sequence)

    def _top(self, heap: list[tuple[int, int, Sequence]], sign: int) -> int:
        while True:
            base, _, sequence = heap[0]
            if sequence.decoding and sequence.base * sign == base:
                return base
            heapq.heappop(heap)

    def _forget(self, heap: list[tuple[int, int, Sequence]]) -> None:
        """Drop entries of sequences that left, or left and joined again."""
        while heap:
            end, _, sequence = heap[0]
            left = sequence.request.output_tokens - sequence.generated
            if sequence.decoding and sequence.joined + left == end:
                return
            heapq.heappop(heap)
