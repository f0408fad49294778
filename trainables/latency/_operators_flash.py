"""What the longest sequence of a batch costs where attention is FlashAttention-2.

That kernel (``csrc/flash_attn`` of vLLM's fork, used by vLLM 0.19 to 0.32 on GPUs of compute
capability 8.x and 12.x) has one thread block for each sequence and head, and starts those of one
head after those of another:

* Where all sequences decode, the query heads that share a KV head share a thread block. If these
  are fewer than 0.8 times twice the multiprocessors, each is split into equal parts of its context
  (``num_splits_heuristic``), and no sequence has to be waited for. A captured graph has the choice
  made for its own size.
* Beside a prompt each query head has a thread block of its own, and nothing is split
  (``mha_varlen_fwd``); nor are the sequences of a model with as many KV heads as query heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables.latency._devices import Device
from trainables.latency._model import Served
from trainables.latency._operators_curve import chord_start
from trainables.latency._operators_layers import number, text_config

WHOLE_FROM = 0.8 * 2
"""Thread blocks per multiprocessor from which on no sequence is split."""

Number = TypeVar("Number", float, NDArray[np.float64])


@dataclass(frozen=True)
class Spread:
    """How thread blocks of attention are spread over a GPU.

    Attributes:
        multiprocessors: Of the GPU.
        slots: Thread blocks that it runs at once.
        heads: Query heads of a rank.
        kv_heads: KV heads of a rank.
        token_us: Microseconds that a thread block which is alone takes for a token of context.
    """

    multiprocessors: int
    slots: int
    heads: float
    kv_heads: float
    token_us: float

    def splits(self, sequences: int) -> bool:
        """Whether so many decoding sequences, with those that pad a graph, are split."""
        few = sequences * self.kv_heads < WHOLE_FROM * self.multiprocessors
        return few and self.kv_heads < self.heads

    def decode_tail(self, sequences: int, mean: Number, longest: Number) -> Number:
        """Microseconds that the longest of decoding sequences takes after the work of all is done,
        in one layer; contexts in tokens."""
        return self._tail(self.kv_heads * sequences, sequences, mean, longest)

    def mixed_tail(self, sequences: int, mean: float, longest: float) -> float:
        """The same, beside a prompt."""
        return self._tail(self.heads * sequences, sequences, mean, longest)

    def _tail(self, blocks: float, sequences: int, mean: Number, longest: Number) -> Number:
        """The last thread block of the longest sequence starts when all have started but those of
        half the sequences, which is what comes after it in its head on average. Until the others
        end it is as fast as they are and so gets through a mean context for each ``slots`` thread
        blocks that run or start then; what is left of it, it computes alone."""
        rounds = max(1.0, min(blocks, self.slots + sequences / 2) / self.slots)
        left = longest - mean * rounds
        return (left + abs(left)) / 2 * self.token_us


def make_spread(device: Device | None, served: Served, token_us: float | None) -> Spread | None:
    """The spread of a model on a device; None where something is not known, or its attention is
    another kernel, as with a latent KV cache or one of 8 bits.

    Args:
        device: Where the tables were measured.
        served: The model.
        token_us: See :class:`Spread` and :func:`alone`.
    """
    config = text_config(served.config)
    heads = number(config, "num_attention_heads", "n_head")
    if device is None or device.multiprocessors is None or not heads or not token_us:
        return None
    if number(config, "kv_lora_rank") or "8" in served.kv_dtype:
        return None
    kv_heads = number(config, "num_key_value_heads") or heads
    ranks = served.tensor_parallel
    slots = device.multiprocessors * device.attention_blocks
    mine = max(heads / ranks, 1.0)
    return Spread(device.multiprocessors, slots, mine, max(kv_heads / ranks, 1.0), token_us)


def alone(points: Mapping[tuple[int, int, int, int], float]) -> float | None:
    """Microseconds per token of context of the fewest sequences beside the smallest chunk, which
    are not split and do not wait for each other; None where that was not measured.

    Args:
        points: (prefill chunk, its context, decodes, their context) to microseconds.
    """
    beside = [point for point in points if point[0] and point[2]]
    if not beside:
        return None
    least = min(point[:3] for point in beside)
    line = sorted(point for point in beside if point[:3] == least)
    contexts = [float(point[3]) for point in line]
    start = chord_start(contexts)
    if start == len(line) - 1:
        return None
    rise = points[line[-1]] - points[line[start]]
    return max(rise / (contexts[-1] - contexts[start]), 0.0)
