"""What one instance computes in its next iteration.

Rules of vLLM V1 (``v1/core/sched/scheduler.py``, 0.19 to 0.32), first come first served:

* Running sequences first, in the order of their admission: a decoding one needs one token, an
  unfinished prompt as many as the budget leaves.
* One that needs a block where none is free preempts the running sequence that was admitted last,
  which may be itself; that loses its blocks and is computed again, from the head of the queue.
  With asynchronous scheduling it may also be one whose last token is being computed.
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

_PLACEHOLDER = 1
"""Blocks that vLLM sets apart; its watermark is a share of all of them."""


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
        self._watermark = int(settings.watermark * (settings.num_blocks + _PLACEHOLDER))
        self._limit = 0
        self._lag = int(settings.async_scheduling)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    @property
    def queued(self) -> int:
        """Sequences that are not admitted."""
        return len(self.waiting)

    @property
    def has_work(self) -> bool:
        """Whether an iteration might be scheduled now."""
        return bool(self.waiting or self._prefilling or len(self.decoding))

    def schedule(self, iteration_of: int, now: float) -> Iteration | None:
        """The next iteration, whose number is told; None when nothing can be computed now."""
        alone = len(self.running) + self.queued <= 1
        self._limit = 0 if alone else self.settings.long_prefill_token_threshold
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
        self.leave(sequence)
        self.free(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Its place is free, unless it lost that by preemption; its blocks are not."""
        if sequence.blocks:
            self.running.remove(sequence)

    def free(self, sequence: Sequence) -> None:
        """Its blocks are free too."""
        self._give_back(sequence, sequence.computed)

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
        self._run_on(settings.max_num_seqs, chunks, [])
        return self._iteration(chunks, iteration_of)

    def _run_on(
        self, budget: int, chunks: list[tuple[Sequence, Chunk]], stalled: list[Sequence]
    ) -> tuple[bool, int]:
        """Continue running sequences. Returns whether any was preempted, and what is left."""
        if self.settings.separate_prefill and self._prefilling:
            return self._past_prompts(budget, chunks)
        left = budget - len(self.decoding)
        parts = self._parts(left)
        if parts is None:
            return self._in_order(budget, chunks, stalled)
        self._grow(self.decoding.growing())
        for sequence, tokens in parts:
            self._compute(sequence, tokens, chunks)
            left -= tokens
        return False, left

    def _past_prompts(self, budget: int, chunks: list[tuple[Sequence, Chunk]]) -> tuple[bool, int]:
        """Decode while unfinished prompts lack blocks; if nobody can, they take each other's."""
        preempted, left = False, budget
        if len(self.decoding):
            preempted, left = self._in_order(budget, chunks, [], decodes_only=True)
        if len(self.decoding):
            return preempted, left
        self._in_order(self.settings.max_num_batched_tokens, chunks, [])
        return True, left

    def _parts(self, budget: int) -> list[tuple[Sequence, int]] | None:
        """New tokens of unfinished prompts beside a token of each decoding sequence; None when
        there are not enough blocks, or it matters who was admitted first."""
        unfinished, needed = self._prefilling, len(self.decoding.growing())
        parts: list[tuple[Sequence, int]] = []
        for sequence in unfinished:
            wanted = self._wanted(sequence)
            tokens = min(wanted, budget)
            if tokens < wanted and self.running[-len(unfinished) :] != unfinished:
                return None
            if tokens <= 0:
                break
            budget -= tokens
            needed += self._blocks(sequence.computed + tokens) - len(sequence.blocks)
            parts.append((sequence, tokens))
        return parts if budget >= 0 and needed <= self.pool.free else None

    def _in_order(
        self,
        budget: int,
        chunks: list[tuple[Sequence, Chunk]],
        stalled: list[Sequence],
        *,
        decodes_only: bool = False,
    ) -> tuple[bool, int]:
        growing = self.decoding.growing()
        preempted, index = False, 0
        while index < len(self.running):
            sequence = self.running[index]
            index += 1
            if sequence.finishing or (decodes_only and not sequence.decoding):
                continue
            if budget <= 0:
                if sequence.decoding:
                    stalled.append(sequence)
                continue
            tokens = 1 if sequence.decoding else min(self._wanted(sequence), budget)
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
        tokens = self._wanted(sequence)
        return 0 if tokens > budget and not self.settings.chunked_prefill else min(tokens, budget)

    def _wanted(self, sequence: Sequence) -> int:
        return min(sequence.missing, self._limit) if self._limit else sequence.missing

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
        needed = self._blocks(sequence.computed) - len(sequence.blocks)
        sequence.blocks += self.pool.take(needed)
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
        for sequence, block in zip(growing, self.pool.take(len(growing)), strict=True):
            sequence.blocks.append(block)

    def _preempt(self) -> Sequence | None:
        """Take its blocks from the sequence that was admitted last."""
        if not self.running:
            return None
        victim = self.running.pop()
        under_way = victim.finishing and isinstance(victim.tokens[-1], tuple)
        if victim.decoding:
            under_way = self.decoding.tick > victim.joined
            self.decoding.leave(victim)
        elif victim in self._prefilling:
            self._prefilling.remove(victim)
        known = victim.computed - (self._lag if under_way else 0)
        self._keep(victim, known)
        self._give_back(victim, known)
        victim.computed = 0
        victim.preemptions += 1
        if not victim.finishing:
            self.waiting.appendleft(victim)
        return victim

    def _give_back(self, sequence: Sequence, known: int) -> None:
        self.pool.give_back(sequence.blocks, known // self.settings.block_size)
        sequence.blocks = []
        sequence.named = 0

    def _name(self, sequence: Sequence, computed: int) -> None:
        """Make full blocks findable by other sequences."""
        if self.settings.prefix_caching and sequence.request.prefix:
            size = self.settings.block_size
            self._name_up_to(sequence, min(computed // size, sequence.shared(size)))

    def _keep(self, sequence: Sequence, known: int) -> None:
        """Make full blocks findable by the sequence itself, which is preempted: nobody else needs
        those that :meth:`_name` leaves out."""
        if self.settings.prefix_caching:
            self._name_up_to(sequence, known // self.settings.block_size)

    def _name_up_to(self, sequence: Sequence, count: int) -> None:
        for block in range(sequence.named, count):
            key = sequence.key(block, self.settings.block_size)
            self.pool.name(sequence.blocks[block], key)
        sequence.named = max(sequence.named, count)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.settings.block_size)
