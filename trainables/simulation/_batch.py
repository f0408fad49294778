"""What one iteration of an engine computes, as far as its duration can depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Chunk(NamedTuple):
    """A part of a prompt, or a whole one.

    Attributes:
        tokens: New tokens, 1 at least.
        context: Tokens of the same sequence that the KV cache holds already.
    """

    tokens: int
    context: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One iteration: chunks of prompts, and sequences that decode one token each.

    The context of a decoding sequence is the number of its tokens in the KV cache before the
    iteration; in a run of decode iterations it grows by one in each.

    Attributes:
        prefills: Chunks, in the order in which they were scheduled.
        decodes: Sequences that decode.
        context: Sum of their contexts, in tokens.
        context_max, context_min: The longest and the shortest; 0 without any.
    """

    prefills: tuple[Chunk, ...] = ()
    decodes: int = 0
    context: int = 0
    context_max: int = 0
    context_min: int = 0

    @property
    def prefill_tokens(self) -> int:
        return sum(chunk.tokens for chunk in self.prefills)

    @property
    def tokens(self) -> int:
        """New tokens: what the dense layers see."""
        return self.prefill_tokens + self.decodes

    @property
    def sequences(self) -> int:
        """Sequences in the batch, for each of which one row of logits is computed."""
        return len(self.prefills) + self.decodes

    def after(self, iterations: int) -> Batch:
        """The same decoding sequences so many decode iterations later, without the prefills."""
        return Batch(
            (),
            self.decodes,
            self.context + self.decodes * iterations,
            self.context_max + iterations,
            self.context_min + iterations,
        )
