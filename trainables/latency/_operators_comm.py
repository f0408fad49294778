"""What ranks exchange in one iteration."""

from __future__ import annotations

from collections.abc import Callable

from trainables.latency._devices_link import Link
from trainables.latency._model import Served
from trainables.latency._operators_layers import Blocks

ACTIVATION_BYTES = 2
"""Of one value between layers: 16 bit, also where weights are quantized."""


def communication(blocks: Blocks, served: Served, link: Link) -> Callable[[int], float]:
    """Microseconds over the tokens of a batch.

    An all-reduce after attention and one after the MLP of each block, one after the embedding
    (Megatron-LM, arXiv:1909.08053); the sends between pipeline stages; where experts are shared by
    several instances, sending tokens to them and back in place of the second all-reduce.
    """
    ranks, row = served.tensor_parallel, blocks.hidden * ACTIVATION_BYTES
    stages = served.pipeline_parallel
    exchanged = blocks.expert_blocks if served.expert_parallel > ranks else 0
    reductions = 2 * blocks.count + 1 - exchanged

    def time(tokens: int) -> float:
        size = float(tokens * row)
        total = reductions * link.all_reduce(size, ranks)
        if exchanged:
            total += 2 * exchanged * link.gather(size * blocks.top_k, served.expert_parallel)
        return total + ((stages - 1) * link.send(size) if stages > 1 else 0.0)

    return time
