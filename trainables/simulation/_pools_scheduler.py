"""The scheduler of a decode instance: prompts come with their KV cache, from elsewhere.

Rules of vLLM V1 (``v1/core/sched/scheduler.py`` 0.32, the parts about KV connectors):

* A request whose prompt is computed elsewhere takes blocks for all of its prompt when its turn in
  the queue comes, beyond those that running prompts still need, and then waits for its KV cache
  (``WAITING_FOR_REMOTE_KVS``). It has no place among the running ones and costs no tokens of the
  budget. One that does not fit ends the admission, also of those behind it.
* Blocks of its prompt that are in the prefix cache are not transferred.
* Once its KV cache has arrived, it is admitted like others, and decodes from then on.
* One that is preempted afterwards is computed again here, prompt and answer.

Unlike there, sequences whose KV cache is here are also admitted while a preempted one does not
fit and nothing runs: vLLM would wait for ever for blocks that these hold. With
``separate_prefill`` they always come before one that is computed again.
"""

from __future__ import annotations

from collections import deque

from trainables.simulation._batch import Chunk
from trainables.simulation._scheduler import Iteration, Scheduler
from trainables.simulation._sequence import Sequence
from trainables.simulation._settings import SchedulerSettings


class DecodeScheduler(Scheduler):
    """State of one decode instance, without time.

    Attributes:
        reserved: Sequences that took their blocks since this was last emptied.
    """

    def __init__(self, settings: SchedulerSettings) -> None:
        super().__init__(settings)
        self.reserved: list[Sequence] = []
        self._remote: deque[Sequence] = deque()
        self._loading: set[Sequence] = set()
        self._loaded: deque[Sequence] = deque()

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence whose prompt is computed elsewhere."""
        self._remote.append(sequence)

    def load(self, sequence: Sequence, computed: int) -> None:
        """The KV cache of so many of its tokens has arrived."""
        self._loading.remove(sequence)
        sequence.computed = computed
        self._name(sequence, computed)
        self._loaded.append(sequence)

    @property
    def asks(self) -> bool:
        """Whether a sequence still has to take its blocks."""
        return bool(self._remote)

    @property
    def queued(self) -> int:
        unadmitted = len(self._remote) + len(self._loading) + len(self._loaded)
        return len(self.waiting) + unadmitted

    @property
    def has_work(self) -> bool:
        return bool(self._remote or self._loaded) or super().has_work

    def schedule(self, iteration_of: int, now: float) -> Iteration | None:
        """As of every scheduler; tried again at once where only a preemption came of it."""
        made = super().schedule(iteration_of, now)
        return super().schedule(iteration_of, now) if made is None and self.has_work else made

    def quiet_ticks(self) -> int:
        if not self._full():
            if self._loaded and (self.settings.separate_prefill or not self.waiting):
                return 0
            if self._remote and not self.waiting and self._fits(self._remote[0]):
                return 0
        return super().quiet_ticks()

    def _full(self) -> bool:
        settings = self.settings
        if len(self.running) >= settings.max_num_seqs:
            return True
        spent = len(self.decoding) >= settings.max_num_batched_tokens
        return spent and not settings.separate_prefill

    def _fits(self, sequence: Sequence) -> bool:
        hits = self._hits(sequence)
        needed = self._blocks(sequence.known) - len(hits) + self.pool.unused(hits)
        promised = sum(self._blocks(one.known) - len(one.blocks) for one in self._prefilling)
        spare = self._watermark if self.running else 0
        return needed + promised + spare <= self.pool.free

    def _run_on(
        self, budget: int, chunks: list[tuple[Sequence, Chunk]], stalled: list[Sequence]
    ) -> tuple[bool, int]:
        preempted, budget = super()._run_on(budget, chunks, stalled)
        nothing = not chunks and not len(self.decoding)
        behind = self.waiting and self.running and not self.settings.separate_prefill
        if nothing or not (preempted or behind):
            budget = self._begin(budget)
        return preempted and not nothing, budget

    def _begin(self, budget: int) -> int:
        """Let sequences decode whose KV cache is here; their blocks suffice for the first token."""
        most = self.settings.max_num_seqs
        while self._loaded and budget > 0 and len(self.running) < most:
            sequence = self._loaded.popleft()
            self.running.append(sequence)
            self.decoding.join(sequence)
            budget -= 1
        return budget

    def _admit(self, budget: int, chunks: list[tuple[Sequence, Chunk]], now: float) -> None:
        if self._loaded and self.settings.separate_prefill:
            return
        before = len(chunks)
        super()._admit(budget, chunks, now)
        left = budget - sum(chunk.tokens for _, chunk in chunks[before:])
        if left > 0 and not self.waiting:
            self._reserve(now)

    def _reserve(self, now: float) -> None:
        while self._remote and len(self.running) < self.settings.max_num_seqs:
            sequence = self._remote[0]
            if not self._fits(sequence):
                return
            self._remote.popleft()
            hits = self._hits(sequence)
            self.pool.share(hits)
            sequence.blocks, sequence.named = hits, len(hits)
            sequence.computed = sequence.cached = len(hits) * self.settings.block_size
            sequence.scheduled = now
            needed = self._blocks(sequence.known) - len(sequence.blocks)
            sequence.blocks += self.pool.take(needed)
            self._loading.add(sequence)
            self.reserved.append(sequence)
