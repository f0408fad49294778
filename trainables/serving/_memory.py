"""Whether a configuration's KV cache can hold what the engine insists on. Pure arithmetic.

An engine that cannot keep one sequence of the longest permitted length refuses to start, which it
finds out only after loading the weights. The arithmetic here errs on the side of starting: weights
are counted at two bytes at most, activations not at all, so that what it refuses does not start.

Sources: the KV cache holds a key and a value vector per layer, KV head and token (Pope et al.,
"Efficiently scaling transformer inference", 2022), shared out over tensor-parallel ranks while
there are KV heads to share out; models with multi-head latent attention keep one latent vector and
one rotary key per layer and token, on every rank (DeepSeek-V2, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trainables._trial import Json

_MARGIN = 0.98
"""What is less than this share short of its need is not refused: sizes are rounded somewhere."""


@dataclass(frozen=True)
class ModelShape:
    """What decides a model's memory.

    Attributes:
        layers: Transformer blocks.
        kv_heads: KV heads of each; 0 where a latent takes their place.
        head_dim: Elements of a key, and of a value.
        latent: Elements per layer and token of latent attention; 0 for all others.
        parameters: Number of weights.
        weight_bytes: Bytes of the checkpoint's weights.
        longest: Longest sequence the model was made for, in tokens; None if it does not say.
    """

    layers: int
    kv_heads: int
    head_dim: int
    latent: int
    parameters: int
    weight_bytes: int
    longest: int | None

    @classmethod
    def of(
        cls, config: Mapping[str, Json], parameters: int, weight_bytes: int
    ) -> ModelShape | None:
        """From a Hugging Face ``config.json``; None for architectures that keep something else
        than keys and values of all tokens in all layers."""
        config = config.get("text_config", config)
        unusual = (
            "layer_types",
            "sliding_window",
            "mamba_d_state",
            "ssm_state_size",
            "linear_attn",
        )
        if any(config.get(name) for name in unusual) and not _all_full(config):
            return None
        try:
            layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
        except (KeyError, TypeError, ValueError):
            return None
        latent = int(config.get("kv_lora_rank") or 0)
        if latent:
            latent += int(config.get("qk_rope_head_dim") or 0)
        return cls(
            layers,
            0 if latent else int(config.get("num_key_value_heads") or heads),
            int(config.get("head_dim") or hidden // heads),
            latent,
            parameters,
            weight_bytes,
            config.get("max_position_embeddings"),
        )


@dataclass(frozen=True)
class MemoryPlan:
    """What an engine's arguments say about memory.

    Attributes:
        kv_bytes: Bytes of the KV cache on each device, if they are given outright.
        device_bytes: Memory of one device, if it is known.
        utilization: Share of the device's memory that the engine may use.
        tensor_parallel, pipeline_parallel: Devices that share a layer; stages that share layers.
        element_bytes: Bytes of one element of the KV cache.
        block_size: Tokens of a block.
        longest: Longest permitted sequence in tokens; None: what the model was made for.
    """

    kv_bytes: int | None = None
    device_bytes: int | None = None
    utilization: float = 0.9
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    element_bytes: int = 2
    block_size: int = 16
    longest: int | None = None


@dataclass(frozen=True)
class Room:
    """The KV cache in tokens.

    Attributes:
        tokens: What fits at most.
        needed: One sequence of the longest permitted length.
    """

    tokens: int
    needed: int

    @property
    def enough(self) -> bool:
        return self.tokens >= _MARGIN * self.needed


def kv_bytes_per_token(shape: ModelShape, plan: MemoryPlan) -> float:
    """Bytes of one token's keys and values on the device that holds most of them."""
    layers = math.ceil(shape.layers / plan.pipeline_parallel)
    if shape.latent:
        return float(layers * shape.latent * plan.element_bytes)
    heads = max(1, math.ceil(shape.kv_heads / plan.tensor_parallel))
    return float(2 * layers * heads * shape.head_dim * plan.element_bytes)


def room(shape: ModelShape, plan: MemoryPlan) -> Room | None:
    """What fits and what has to; None where the memory or the length is not known."""
    longest = plan.longest or shape.longest
    budget: float | None = plan.kv_bytes
    if budget is None and plan.device_bytes is not None:
        devices = plan.tensor_parallel * plan.pipeline_parallel
        weights = min(shape.weight_bytes, 2 * shape.parameters) / devices
        budget = plan.device_bytes * plan.utilization - weights
    if budget is None or not longest:
        return None
    block = kv_bytes_per_token(shape, plan) * plan.block_size
    blocks = max(0, math.floor(budget / block))
    return Room(blocks * plan.block_size, math.ceil(longest / plan.block_size) * plan.block_size)


def _all_full(config: Mapping[str, Json]) -> bool:
    """Whether windows and layer kinds that are named are not used after all."""
    kinds = set(config.get("layer_types") or ())
    windowed = config.get("sliding_window") and config.get("use_sliding_window", True)
    if kinds:
        return kinds == {"full_attention"}
    others = ("mamba_d_state", "ssm_state_size", "linear_attn")
    return not windowed and not any(config.get(name) for name in others)
