"""What one transformer block of a model computes and reads, from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.latency._operators_layers import Blocks, Config, model_blocks, number, text_config


@dataclass(frozen=True)
class Shapes:
    """Of one block, on one rank.

    Attributes:
        blocks: The model's blocks.
        attention_weights: Parameters of the projections around attention.
        mlp_weights: Parameters of a dense MLP.
        expert_weights: Parameters of one routed expert.
        always_weights: Parameters of a block of experts that every token passes: router and
            shared experts.
        head_weights: Parameters of the output projection.
        prefill_operations: Operations of attention per pair of tokens of a prompt.
        decode_operations: The same, of a decoding sequence.
        kv_values: Values of the KV cache per token.
        activations: Values per token that kernels between matrix products read or write.
    """

    blocks: Blocks
    attention_weights: float
    mlp_weights: float
    expert_weights: float
    always_weights: float
    head_weights: float
    prefill_operations: float
    decode_operations: float
    kv_values: float
    activations: float

    @property
    def weights(self) -> float:
        """Parameters of the whole model on this rank, input embedding left out."""
        blocks = self.blocks
        experts = self.expert_weights * blocks.experts + self.always_weights
        return (
            blocks.count * self.attention_weights
            + (blocks.count - blocks.expert_blocks) * self.mlp_weights
            + blocks.expert_blocks * experts
            + self.head_weights
        )


def model_shapes(config: Config, ranks: int) -> Shapes:
    """Shapes with so many tensor-parallel ranks.

    Raises:
        LatencyError: The configuration does not say how large the model is.
    """
    blocks = model_blocks(config)
    config = text_config(config)
    heads = number(config, "num_attention_heads", "n_head") or 1
    if number(config, "kv_lora_rank"):
        attention = _latent(config, blocks.hidden, heads, ranks)
    else:
        attention = _grouped(config, blocks.hidden, heads, ranks)
    weights, prefill, decode, kv_values = attention
    inner = number(config, "intermediate_size", "n_inner", "ffn_dim") or 4 * blocks.hidden
    expert = number(config, "moe_intermediate_size") or inner
    shared = number(config, "shared_expert_intermediate_size")
    shared = shared or expert * number(config, "n_shared_experts")
    gated = 3 * blocks.hidden
    return Shapes(
        blocks,
        weights,
        gated * inner / ranks,
        gated * expert / ranks,
        gated * shared / ranks + blocks.hidden * blocks.experts,
        blocks.hidden * blocks.vocabulary / ranks,
        prefill,
        decode,
        kv_values,
        8.0 * blocks.hidden
        + 3.0 * (inner if not blocks.experts else expert * blocks.top_k) / ranks,
    )


def _grouped(config: Config, hidden: int, heads: int, ranks: int) -> tuple[float, ...]:
    """Attention with as many heads of keys and values as of queries, or fewer."""
    width = number(config, "head_dim") or hidden // heads
    kv_heads = max((number(config, "num_key_value_heads") or heads) / ranks, 1.0)
    mine = heads / ranks
    weights = hidden * width * (2 * mine + 2 * kv_heads)
    pairs = 4.0 * mine * width
    return weights, pairs, pairs, 2.0 * kv_heads * width


def _latent(config: Config, hidden: int, heads: int, ranks: int) -> tuple[float, ...]:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): all ranks hold the latent KV
    cache; decoding absorbs the up-projections and attends in the latent space."""
    latent, rope = number(config, "kv_lora_rank"), number(config, "qk_rope_head_dim")
    nope, value = number(config, "qk_nope_head_dim"), number(config, "v_head_dim")
    mine = heads / ranks
    query = number(config, "q_lora_rank")
    queries = mine * (nope + rope)
    weights = hidden * query + query * queries if query else hidden * queries
    weights += hidden * (latent + rope) + latent * mine * (nope + value) + mine * value * hidden
    prefill = 2.0 * mine * (nope + rope + value)
    decode = 2.0 * mine * (2 * latent + rope)
    return weights, prefill, decode, float(latent + rope)
