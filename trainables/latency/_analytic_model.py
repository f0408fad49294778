"""Durations of iterations from a device's peaks and a model's shapes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables.latency._analytic_shapes import Shapes
from trainables.latency._devices import Device
from trainables.latency._model import Served
from trainables.latency._operators_comm import ACTIVATION_BYTES, communication
from trainables.latency._operators_graphs import padded
from trainables.latency._operators_moe import distinct_experts
from trainables.simulation import Batch, LatencyModel

KERNELS = 9
"""Kernels of a block: two norms, four products, rotary embedding, attention, activation."""
LOGIT_PASSES = 4
"""How often sampling reads or writes the logits, which are 32 bit."""

_WEIGHT_BITS = {
    "int4": 4,
    "w4": 4,
    "awq": 4,
    "gptq": 4,
    "fp8": 8,
    "int8": 8,
    "w8": 8,
    "float32": 32,
}
_FALLBACKS = {"fp8": ("bf16", "fp16"), "int8": ("fp16", "bf16"), "bf16": ("fp16", "fp32")}

Number = TypeVar("Number", float, NDArray[np.float64])


def weight_bits(dtype: str) -> int:
    """Bits of one weight, by what engines call the type; 16 unless the name tells otherwise."""
    name = dtype.lower()
    return next((bits for key, bits in _WEIGHT_BITS.items() if key in name), 16)


def peak(device: Device, dtype: str) -> float:
    """Operations per second of matrix products of that type, or of the next one it has."""
    name = dtype.lower()
    kind = "fp8" if "fp8" in name else "int8" if "a8" in name or "int8" in name else "bf16"
    kind = "fp16" if name in ("float16", "half", "fp16") else kind
    rates = device.tflops
    for choice in (kind, *_FALLBACKS.get(kind, ())):
        if choice in rates:
            return rates[choice] * 1e12
    return max(rates.values()) * 1e12


class AnalyticLatency(LatencyModel):
    """A roofline."""

    def __init__(
        self, device: Device, shapes: Shapes, served: Served, sizes: tuple[int, ...]
    ) -> None:
        self._shapes, self._sizes = shapes, sizes
        operations = peak(device, served.dtype) * 1e-6
        self._compute = operations * device.compute_efficiency
        self._attend = peak(device, "bfloat16") * 1e-6 * device.attention_efficiency
        self._read = device.memory_gb_per_s * 1e3 * device.memory_efficiency
        self._weight_bytes = _weight_bytes(shapes, served)
        self._kv_bytes = shapes.kv_values * (1 if "8" in served.kv_dtype else 2)
        self._kernel = device.kernel_us
        self._ranks, self._link = served.tensor_parallel, device.link
        self._communication = communication(shapes.blocks, served, device.link)
        self._expert_ranks = max(served.expert_parallel, 1)
        self._rest: dict[tuple[int, int], float] = {}

    def seconds(self, batch: Batch) -> float:
        time = self._rest_us(batch.tokens, batch.sequences)
        pairs = read = 0.0
        for tokens, context in batch.prefills:
            pairs += tokens * (context + tokens / 2)
            read += context + tokens
        blocks = self._shapes.blocks.count
        if pairs:
            operations = pairs * self._shapes.prefill_operations
            time += blocks * max(operations / self._attend, read * self._kv_bytes / self._read)
        if batch.decodes:
            time += blocks * self._decode_us(float(batch.context + batch.decodes))
        return time * 1e-6

    def decode_seconds(self, batch: Batch, iterations: int) -> NDArray[np.float64]:
        count = batch.decodes
        pairs = (batch.context + count + count * np.arange(iterations)).astype(np.float64)
        time = self._rest_us(count, count) + self._shapes.blocks.count * self._decode_us(pairs)
        return np.asarray(time * 1e-6)

    def _decode_us(self, pairs: Number) -> Number:
        """Of one block, for the sum of contexts. Both bounds rise with it alike."""
        operations = self._shapes.decode_operations / self._attend
        return pairs * max(operations, self._kv_bytes / self._read)

    def _rest_us(self, tokens: int, sequences: int) -> float:
        """All but attention over the KV cache."""
        time = self._rest.get((tokens, sequences))
        if time is None:
            computed = padded(tokens, self._sizes)
            time = self._blocks_us(computed) + self._communication(computed)
            time += self._logits_us(sequences)
            self._rest[tokens, sequences] = time
        return time

    def _blocks_us(self, tokens: int) -> float:
        shapes, blocks = self._shapes, self._shapes.blocks
        each = self._product(tokens, shapes.attention_weights)
        each += tokens * shapes.activations * ACTIVATION_BYTES / self._read
        each += KERNELS * self._kernel
        time = blocks.count * each
        dense = blocks.count - blocks.expert_blocks
        time += dense * self._product(tokens, shapes.mlp_weights)
        if blocks.expert_blocks:
            time += blocks.expert_blocks * self._experts(tokens)
        return time

    def _experts(self, tokens: int) -> float:
        shapes, blocks = self._shapes, self._shapes.blocks
        reached = distinct_experts(tokens, blocks.top_k, blocks.experts)
        computed = 2.0 * tokens * blocks.top_k * shapes.expert_weights / self._compute
        read = reached * shapes.expert_weights * self._weight_bytes / self._read
        return max(computed, read) + self._product(tokens, shapes.always_weights)

    def _logits_us(self, sequences: int) -> float:
        logits = sequences * self._shapes.blocks.vocabulary
        time = self._product(sequences, self._shapes.head_weights)
        time += logits * 4.0 * LOGIT_PASSES / self._read + 2 * self._kernel
        return time + self._link.gather(logits * ACTIVATION_BYTES, self._ranks)

    def _product(self, tokens: int, weights: float) -> float:
        """Of matrix products with so many weights in all."""
        computed = 2.0 * tokens * weights / self._compute
        return max(computed, weights * self._weight_bytes / self._read)


def _weight_bytes(shapes: Shapes, served: Served) -> float:
    """Of one weight: from the size of the files where it is known, else from the type."""
    if served.weight_bytes is None:
        return weight_bits(served.dtype) / 8
    embedding = shapes.blocks.hidden * shapes.blocks.vocabulary
    whole = shapes.weights * served.tensor_parallel + embedding
    return min(max(served.weight_bytes / whole, 0.25), 4.0)
