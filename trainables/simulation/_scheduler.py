"""What one instance computes in its next iteration.

Rules of vLLM V1 (``v1/core/sched/scheduler.py``, 0.19 to 0.32), first come first served:

* Running sequences first, in the order of their admission: a decoding one needs one token, an
  unfinished prompt as many as the budget leaves.
* One that needs a block where none is free preempts the running sequence that was admitted last,
  which may be itself; that loses its blocks and is computed again, from the head of the queue.
* Then the queue, unless something was preempted: in order, until a sequence does not fit into the
  budget of tokens, the number of sequences, or the free blocks. The first that does not ends it.
* With asynchronous scheduling, a sequence whose last token is being computed keeps its place and
  its blocks until that has arrived, one iteration later than without.

``separate_prefill`` is MindIE's order instead (``ScheduleConfig`` of its documentation): prompts
that fit are computed on their own, before the next decode iteration.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from trainables.simulation._batch import Batch, Chunk
from trainables.simulation._blocks import BlockPool
from trainables.simulation._decoding import Decoding
from trainables.simulation._sequence import Sequence
from trainables.simulation._settings import SchedulerSettings


@dataclass(slots=True)
class Iteration:
    """One iteration that was scheduled.

    Attributes:
        batch: What it computes.
        completed: Sequences whose prompt it completes: it brings them a token.
        finished: Sequences whose last token it brings.
        ticks: Whether sequences decode in it.
    """

    batch: Batch
    completed: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    ticks: bool = False


class Scheduler:
    """State of one instance, without time."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self.settings = settings
        self.pool = BlockPool(settings.num_blocks, caching=settings.prefix_caching)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.decoding = Decoding(settings.block_size)
        self._prefilling: list[Sequence] = []
        self._watermark = int(settings.watermark * settings.num_blocks)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    @property
    def has_work(self) -> bool:
        """Whether an iteration might be scheduled now."""
        return bool(self.waiting or self._prefilling or len(self.decoding))

    def schedule(self, iteration_of: int, now: float) -> Iteration | None:
        """The next iteration, whose number is told; None when nothing can be computed now."""
        if self.settings.separate_prefill:
            return self._separate(iteration_of, now)
        budget = self.settings.max_num_batched_tokens
        chunks: list[tuple[Sequence, Chunk]] = []
        stalled: list[Sequence] = []
        preempted, budget = self._run_on(budget, chunks, stalled)
        if not preempted:
            self._admit(budget, chunks, now)
        made = self._iteration(chunks, iteration_of)
        for sequence in stalled:
            if sequence in self.running:
                self.decoding.join(sequence)
        return made

    def quiet_ticks(self) -> int:
        """Decode iterations that will be alike from now on but for the blocks they need: nobody
        can be admitted, no prompt is unfinished, nobody is done before the last of them."""
        count = len(self.decoding)
        if not count or self._prefilling or count > self.settings.max_num_batched_tokens:
            return 0
        if self.waiting and not self._closed():
            return 0
        return self.decoding.ticks_left()

    def tick(self) -> bool:
        """One more decode iteration of those that :meth:`quiet_ticks` promised, except for its
        outcome; False, and nothing done, when there are not enough free blocks."""
        growing = self.decoding.growing()
        if growing:
            if len(growing) > self.pool.free:
                return False
            self._grow(growing)
        self.decoding.tick += 1
        return True

    def end_tick(self, made: Iteration) -> None:
        """Note in an iteration who is done after it."""
        finished = self.decoding.finished()
        for sequence in finished:
            sequence.finishing = True
        made.finished += finished

    def release(self, sequence: Sequence) -> None:
        """The last token of a sequence has arrived: its place and its blocks are free."""
        self.running.remove(sequence)
        self._give_back(sequence)

    def _closed(self) -> bool:
        """Whether the head of the queue cannot be admitted as long as nobody leaves."""
        settings, head = self.settings, self.waiting[0]
        if len(self.running) >= settings.max_num_seqs:
            return True
        if len(self.decoding) >= settings.max_num_batched_tokens and not settings.separate_prefill:
            return True
        if settings.prefix_caching and head.request.prefix:
            return False
        whole = self._blocks(head.known)
        return settings.reserve_full_prompt and whole > self.pool.free - self._watermark

    def _separate(self, iteration_of: int, now: float) -> Iteration | None:
        settings = self.settings
        chunks: list[tuple[Sequence, Chunk]] = []
        budget = settings.max_num_batched_tokens
        for sequence in list(self._prefilling):
            budget = self._continue(sequence, budget, chunks)
        self._admit(budget, chunks, now)
        if chunks:
            return self._iteration(chunks, iteration_of, decode=False)
        stalled: list[Sequence] = []
        self._run_on(settings.max_num_seqs, chunks, stalled)
        return self._iteration(chunks, iteration_of)

    def _run_on(
        self, budget: int, chunks: list[tuple[Sequence, Chunk]], stalled: list[Sequence]
    ) -> tuple[bool, int]:
        """Continue running sequences. Returns whether any was preempted, and what is left."""
        decoding, prefilling = self.decoding, self._prefilling
        growing = decoding.growing()
        if len(decoding) <= budget and len(growing) <= self.pool.free and not prefilling:
            self._grow(growing)
            return False, budget - len(decoding)
        return self._in_order(budget, chunks, stalled)

    def _in_order(
        self, budget: int, chunks: list[tuple[Sequence, Chunk]], stalled: list[Sequence]
    ) -> tuple[bool, int]:
        growing = self.decoding.growing()
        preempted, index = False, 0
        while index < len(self.running):
            sequence = self.running[index]
            index += 1
            if sequence.finishing:
                continue
            if budget <= 0:
                if sequence.decoding:
                    stalled.append(sequence)
                continue
            tokens = 1 if sequence.decoding else self._chunk(sequence, budget)
            if tokens == 0:
                continue
            needed = (
                int(sequence in growing)
                if sequence.decoding
                else self._blocks(sequence.computed + tokens) - len(sequence.blocks)
            )
            while needed > self.pool.free:
                victim = self._preempt()
                preempted = True
                if victim is None or victim is sequence:
                    break
            else:
                budget -= tokens
                self._allot(sequence, tokens, needed, chunks)
                continue
            break
        for sequence in stalled:
            if sequence.decoding:
                self.decoding.leave(sequence)
        return preempted, budget

    def _allot(
        self, sequence: Sequence, tokens: int, needed: int, chunks: list[tuple[Sequence, Chunk]]
    ) -> None:
        if sequence.decoding:
            if needed:
                self._grow({sequence: None})
        else:
            self._compute(sequence, tokens, chunks)

    def _chunk(self, sequence: Sequence, budget: int) -> int:
        """New tokens of a prompt in an iteration; 0 when it may not be in it."""
        tokens = sequence.missing
        limit = self.settings.long_prefill_token_threshold
        if limit and len(self.running) + len(self.waiting) > 1:
            tokens = min(tokens, limit)
        if tokens > budget and not self.settings.chunked_prefill:
            return 0
        return min(tokens, budget)

    def _continue(
        self, sequence: Sequence, budget: int, chunks: list[tuple[Sequence, Chunk]]
    ) -> int:
        tokens = self._chunk(sequence, budget)
        needed = self._blocks(sequence.computed + tokens) - len(sequence.blocks)
        if tokens == 0 or needed > self.pool.free:
            return budget
        self._compute(sequence, tokens, chunks)
        return budget - tokens

    def _admit(self, budget: int, chunks: list[tuple[Sequence, Chunk]], now: float) -> None:
        settings, pool = self.settings, self.pool
        most = settings.max_prefill_seqs
        while self.waiting and budget > 0 and len(self.running) < settings.max_num_seqs:
            if settings.separate_prefill and most is not None and len(chunks) >= most:
                return
            sequence = self.waiting[0]
            hits = self._hits(sequence)
            sequence.computed = len(hits) * settings.block_size
            tokens = self._chunk(sequence, budget)
            if tokens == 0:
                sequence.computed = 0
                return
            end = sequence.known if settings.reserve_full_prompt else sequence.computed + tokens
            needed = self._blocks(end) - len(hits) + pool.unused(hits)
            if needed > pool.free - (self._watermark if self.running else 0):
                sequence.computed = 0
                return
            self.waiting.popleft()
            pool.share(hits)
            sequence.blocks = hits
            sequence.named = len(hits)
            if sequence.scheduled is None:
                sequence.scheduled = now
                sequence.cached = sequence.computed
            self.running.append(sequence)
            self._prefilling.append(sequence)
            self._compute(sequence, tokens, chunks)
            budget -= tokens

    def _hits(self, sequence: Sequence) -> list[int]:
        """Cached blocks of its beginning; its last token is computed in any case."""
        if not self.settings.prefix_caching:
            return []
        size = self.settings.block_size
        whole = (sequence.known - 1) // size
        return self.pool.hit(sequence.key(block, size) for block in range(whole))

    def _compute(
        self, sequence: Sequence, tokens: int, chunks: list[tuple[Sequence, Chunk]]
    ) -> None:
        chunks.append((sequence, Chunk(tokens, sequence.computed)))
        sequence.computed += tokens
        for _ in range(self._blocks(sequence.computed) - len(sequence.blocks)):
            sequence.blocks.append(self.pool.take())
        self._name(sequence, sequence.computed)

    def _iteration(
        self, chunks: list[tuple[Sequence, Chunk]], number: int, *, decode: bool = True
    ) -> Iteration | None:
        ticks = decode and len(self.decoding) > 0
        if not chunks and not ticks:
            return None
        parts = tuple(chunk for _, chunk in chunks)
        made = Iteration(self.decoding.batch(parts) if ticks else Batch(parts), ticks=ticks)
        if ticks:
            self.decoding.tick += 1
            self.end_tick(made)
        for sequence, _ in chunks:
            if not sequence.missing:
                self._complete(sequence, made, number)
        return made

    def _complete(self, sequence: Sequence, made: Iteration, number: int) -> None:
        """A prompt is computed to its end, which brings a token."""
        self._prefilling.remove(sequence)
        made.completed.append(sequence)
        sequence.tokens.append(number)
        sequence.generated += 1
        sequence.known += 1
        if sequence.generated >= sequence.request.output_tokens:
            sequence.finishing = True
            made.finished.append(sequence)
        else:
            self.decoding.join(sequence)

    def _grow(self, growing: dict[Sequence, None]) -> None:
        """Give each the block that its next token needs."""
        for sequence in growing:
            sequence.blocks.append(self.pool.take())
            self._name(sequence, sequence.base + self.decoding.tick)

    def _preempt(self) -> Sequence | None:
        """Take its blocks from the sequence that was admitted last."""
        for index in range(len(self.running) - 1, -1, -1):
            if not self.running[index].finishing:
                victim = self.running.pop(index)
                break
        else:
            return None
        if victim.decoding:
            self.decoding.leave(victim)
        elif victim in self._prefilling:
            self._prefilling.remove(victim)
        self._give_back(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def _give_back(self, sequence: Sequence) -> None:
        self._name(sequence, sequence.computed)
        self.pool.give_back(sequence.blocks)
        sequence.blocks = []
        sequence.named = 0

    def _name(self, sequence: Sequence, computed: int) -> None:
        if not self.settings.prefix_caching:
            return
        size = self.settings.block_size
        for block in range(sequence.named, computed // size):
            self.pool.name(sequence.blocks[block], sequence.key(block, size))
            sequence.named = block + 1

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.settings.block_size)
