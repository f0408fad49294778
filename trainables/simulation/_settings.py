"""How an engine's scheduler is set. Names are vLLM's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SchedulerSettings:
    """Of one instance.

    Sources: vLLM V1's ``SchedulerConfig`` and ``CacheConfig`` (0.19 to 0.32).

    Attributes:
        max_num_seqs: Sequences that are admitted at once.
        max_num_batched_tokens: New tokens of one iteration.
        num_blocks: Blocks of the KV cache that sequences can use; vLLM's ``num_gpu_blocks`` has one
            more, a placeholder.
        block_size: Tokens of a block.
        max_model_len: Longest sequence, prompt and output; None: what the KV cache can hold.
        prefix_caching: Whether full blocks are found again by their content.
        chunked_prefill: Whether a prompt may be computed in parts. Without, a prompt waits until
            the whole of it fits into an iteration.
        long_prefill_token_threshold: New tokens of one prompt in an iteration; 0: no limit.
        async_scheduling: Whether an iteration is scheduled while the one before it runs: it then
            cannot react to what that one brings.
        reserve_full_prompt: Whether a sequence is admitted only when all of it so far fits into
            the free blocks, not only its first chunk.
        watermark: Share of the blocks that an admission leaves free while others run.
        separate_prefill: Whether prompts and decodes never share an iteration, prompts first
            (MindIE's default scheduling).
        max_prefill_seqs: Prompts in one iteration, with ``separate_prefill``; None: no limit.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    num_blocks: int = 4096
    block_size: int = 16
    max_model_len: int | None = None
    prefix_caching: bool = True
    chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    async_scheduling: bool = True
    reserve_full_prompt: bool = True
    watermark: float = 0.0
    separate_prefill: bool = False
    max_prefill_seqs: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} has to be 1 at least, it is {getattr(self, name)}")

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that can be served."""
        room = self.num_blocks * self.block_size
        return room if self.max_model_len is None else min(room, self.max_model_len)
