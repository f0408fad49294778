"""How often each operator of the tables runs in one iteration of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainables._trial import Json
from trainables.latency._model import LatencyError

Config = Mapping[str, Json]

_ROTARY = re.compile(r"rotary|rope|position")
_NORM = re.compile(r"(rms_?norm|layer_?norm|norm)")
_ONCE = re.compile(
    r"embed|^wte|^wpe|lm_head|logits|sampl|^(final|output)_?\w*norm|^(model_?)?norm_?f?$|^ln_f$"
)
_WHOLE_EXPERTS = re.compile(r"(fused_?)?(sparse_?)?(moe|experts)(_?(block|layer|mlp))?")
_EXPERTS = re.compile(r"moe|expert|router|^gate$|^mlp_gate$")
_MLP = re.compile(
    r"gate_up|gate_proj|up_proj|down_proj|^act|silu|gelu|swiglu|^(mlp|ffn|fc\d?|w[123])(_|$)"
)
_SAME_ON_EVERY_RANK = re.compile(r"norm|embed|^wte|sampl|router|^gate$|^mlp_gate$")

_NORMS_PER_BLOCK = {
    "gemma2": 4,
    "gemma3": 4,
    "gemma3_text": 4,
    "glm4": 4,
    "cohere": 1,
    "cohere2": 1,
    "gptj": 1,
    "phi": 1,
}
"""Norms of a block by ``model_type``, of the models of which it is not two."""


@dataclass(frozen=True)
class Blocks:
    """What a model is made of.

    Attributes:
        count: Transformer blocks.
        hidden: Width of the residual stream.
        vocabulary: Rows of logits.
        experts: Routed experts of a block; 0: there are none.
        top_k: Experts of a token.
        expert_blocks: Blocks with experts; the others have a dense MLP.
        norms: Norms of a block, beside those of queries and keys.
    """

    count: int
    hidden: int
    vocabulary: int
    experts: int = 0
    top_k: int = 0
    expert_blocks: int = 0
    norms: int = 2


def model_blocks(config: Config) -> Blocks:
    """Read a ``config.json``.

    Raises:
        LatencyError: It has no number of layers or no width.
    """
    config = text_config(config)
    count = number(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    hidden = number(config, "hidden_size", "n_embd", "d_model", "dim")
    if not count or not hidden:
        missing = "num_hidden_layers" if not count else "hidden_size"
        raise LatencyError(f"the model's config.json has no {missing}, it has {sorted(config)}")
    vocabulary = number(config, "vocab_size", "padded_vocab_size")
    experts = number(config, "num_experts", "num_local_experts", "n_routed_experts")
    top_k = number(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k")
    kind = str(config.get("model_type", ""))
    norms = 1 if kind == "falcon" and not config.get("new_decoder_architecture") else 2
    norms = _NORMS_PER_BLOCK.get(kind, norms)
    if experts < 2:
        return Blocks(count, hidden, vocabulary, norms=norms)
    blocks = _expert_blocks(config, count)
    return Blocks(count, hidden, vocabulary, experts, max(top_k, 1), blocks, norms)


def text_config(config: Config) -> Config:
    """The language model's part, of a model that also sees or hears."""
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if isinstance(inner, Mapping) and "hidden_size" in inner:
            return inner
    return config


def _expert_blocks(config: Config, count: int) -> int:
    """Blocks with experts, as the configurations of DeepSeek, Qwen and Llama 4 say it."""
    dense = number(config, "first_k_dense_replace")
    every = number(config, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq")
    only = config.get("mlp_only_layers")
    plain = set(only) if isinstance(only, list) else set()
    every = max(every, 1)
    return sum(
        1 for block in range(dense, count) if (block + 1) % every == 0 and block not in plain
    )


def number(config: Config, *names: str) -> int:
    """The first of these that a configuration has, as a whole number; 0 without any."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value)
    return 0


def runs_per_iteration(
    names: Iterable[str], blocks: Blocks, *, moe_table: bool, given: Mapping[str, float]
) -> dict[str, float]:
    """How often each operator of the dense table runs in one iteration.

    Once: embedding, the last norm, head and sampler. In each block: the others; ``layernorm``,
    where all norms of a block share one name, as often as a block has norms; those of experts in
    blocks with experts, those of a dense MLP in the blocks without. What was measured of a block
    of experts beside the table of experts, such as its router, is not in that table.

    Args:
        names: Operators.
        moe_table: Whether blocks of experts are in a table of their own.
        given: Runs per iteration that are known better, by name.
    """
    names = list(names)
    last_norm = any(name != "norm" and _ONCE.search(name) and "norm" in name for name in names)
    found = {name: _runs(name, blocks, moe_table=moe_table, last_norm=last_norm) for name in names}
    return {**found, **{name: runs for name, runs in given.items() if name in found}}


def _runs(name: str, blocks: Blocks, *, moe_table: bool, last_norm: bool) -> int:
    if _ROTARY.search(name):
        return blocks.count
    if _ONCE.search(name) and not (name == "norm" and last_norm):
        return 1
    if _NORM.fullmatch(name):
        return blocks.count * blocks.norms
    if _WHOLE_EXPERTS.fullmatch(name):
        return 0 if moe_table else blocks.expert_blocks
    if _EXPERTS.search(name):
        return blocks.expert_blocks
    if _MLP.search(name):
        return blocks.count - blocks.expert_blocks
    return blocks.count


def same_on_every_rank(name: str) -> bool:
    """Whether an operator takes as long with one rank as with several: none of them shares it."""
    return _SAME_ON_EVERY_RANK.search(name) is not None and not _ROTARY.search(name)


def has_mlp(names: Iterable[str]) -> bool:
    """Whether one of them is of a dense MLP."""
    return any(_MLP.search(name) for name in names)


def has_experts(names: Iterable[str]) -> bool:
    """Whether one of them is a whole block of experts."""
    return any(_WHOLE_EXPERTS.fullmatch(name) for name in names)
