"""A request on its way through one instance."""

from __future__ import annotations

from collections.abc import Hashable

from trainables.simulation._request import Request


class Sequence:
    """Mutable state; who changes it is the scheduler.

    A decoding sequence advances with the instance's ticks, see
    :class:`~trainables.simulation._decoding.Decoding`; ``computed`` is then not kept up.

    Attributes:
        request: What was asked.
        sent: When the client sent it, in seconds.
        order: Rank among those that ever arrived at the instance.
        known: Tokens of prompt and answer so far, those being computed included.
        computed: Of them, how many are in the KV cache or being computed.
        generated: Tokens of the answer so far, those being computed included.
        blocks: Its blocks of the KV cache, in the order of its tokens.
        named: Of them, how many are findable by their content.
        base: While it decodes: ``computed`` minus the tick.
        joined: While it decodes: tick of its first token since.
        tokens: Its tokens' times: each the end of an iteration, or a range of ticks.
        scheduled: When it was first in a batch; None: not yet.
        cached: Tokens of its prompt that were found in the prefix cache then.
        preemptions: How often it lost its KV cache.
    """

    __slots__ = (
        "base",
        "blocks",
        "cached",
        "computed",
        "decoding",
        "finishing",
        "generated",
        "joined",
        "known",
        "named",
        "order",
        "preemptions",
        "request",
        "scheduled",
        "sent",
        "tokens",
    )

    def __init__(self, request: Request, sent: float, order: int) -> None:
        self.request = request
        self.sent = sent
        self.order = order
        self.known = request.input_tokens
        self.computed = 0
        self.generated = 0
        self.blocks: list[int] = []
        self.named = 0
        self.base = 0
        self.joined = 0
        self.decoding = False
        self.finishing = False
        self.tokens: list[int | tuple[int, int]] = []
        self.scheduled: float | None = None
        self.cached = 0
        self.preemptions = 0

    @property
    def missing(self) -> int:
        """Known tokens that are still to be computed."""
        return self.known - self.computed

    def key(self, block: int, block_size: int) -> Hashable:
        """Content of its block of that rank: equal for prompts that are equal up to its end."""
        request = self.request
        if block < self.shared(block_size):
            last = ((block + 1) * block_size - 1) // request.prefix_block
            return (request.prefix[last], block)
        return (-1 - request.number, block)

    def shared(self, block_size: int) -> int:
        """Full blocks of its prompt with which others may begin as well."""
        request = self.request
        hashed = len(request.prefix) * request.prefix_block
        return min(hashed, request.input_tokens) // block_size
