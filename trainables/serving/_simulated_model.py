"""What the simulator has to know of a checkpoint; a folder with a ``config.json`` is enough.

The estimate of the number of weights counts the matrices of a decoder as Hugging Face
configurations name their sizes: attention with grouped KV heads or with latents (DeepSeek-V2),
gated feed-forward layers, routed and shared experts, and embeddings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables._program import StageError
from trainables._trial import Json
from trainables.serving._checkpoint import weigh
from trainables.serving._memory import ModelShape

_DESCRIPTION = "quant_model_description.json"
_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")
_FLOATS = frozenset({"bfloat16", "float16", "float32"})
_WEIGHT_BITS = re.compile(r"w(\d+)a\d+")


@dataclass(frozen=True)
class SimulatedModel:
    """A checkpoint.

    Attributes:
        config: Its ``config.json``.
        weight_bytes: Bytes of its weights.
        parameters: Number of its weights.
        dtype: Of the weights, as engines call it: ``bfloat16``, ``w8a8``.
        estimated: Whether the two numbers were computed from the configuration alone.
    """

    config: Mapping[str, Json]
    weight_bytes: int
    parameters: int
    dtype: str
    estimated: bool

    @property
    def quantized(self) -> bool:
        """Whether an engine's ``dtype`` says nothing about its weights."""
        return self.dtype not in _FLOATS

    @property
    def shape(self) -> ModelShape | None:
        """What decides its memory; None where it keeps something else than keys and values."""
        return ModelShape.of(self.config, self.parameters, self.weight_bytes)

    @property
    def longest(self) -> int | None:
        """The longest sequence it was made for, in tokens."""
        found = text_config(self.config).get("max_position_embeddings")
        return found if isinstance(found, int) else None


def read_model(folder: Path) -> SimulatedModel:
    """The checkpoint in a folder. Raises ``StageError`` where its configuration cannot be read."""
    config = read_config(folder)
    dtype = weight_dtype(folder, config)
    weighed = weigh(folder)
    if weighed is not None:
        _, shape = weighed
        return SimulatedModel(config, shape.weight_bytes, shape.parameters, dtype, False)
    try:
        count = parameters_of(config)
    except (KeyError, TypeError, ValueError) as error:
        said = f"{folder / 'config.json'} does not say how large the model is: {error}"
        raise StageError("input", said, "give the folder of a whole checkpoint") from error
    return SimulatedModel(config, round(count * bytes_per_weight(dtype)), count, dtype, True)


def read_config(folder: Path) -> dict[str, Json]:
    """The ``config.json`` in a folder. Raises ``StageError`` where it cannot be read."""
    file = folder / "config.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        said = f"{file} cannot be read: {error.strerror or error}"
        raise StageError("input", said, "simulations need the model's config.json") from error
    except ValueError as error:
        raise StageError("input", f"{file} is no valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise StageError("input", f"{file} holds no JSON object")
    return document


def text_config(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """The part that describes the language model, where a model of several modalities has one."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def parameters_of(config: Mapping[str, Json]) -> int:
    """Number of weights, estimated.

    Raises:
        KeyError, TypeError, ValueError: The configuration lacks a size.
    """
    text = text_config(config)
    hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    inner = int(text["intermediate_size"])
    dense = layers
    count = 0
    if experts := next((int(text[name]) for name in _EXPERTS if text.get(name)), 0):
        dense = min(layers, int(text.get("first_k_dense_replace") or 0))
        each = int(text.get("moe_intermediate_size") or inner)
        shared = int(text.get("n_shared_experts") or 0) * each
        shared += int(text.get("shared_expert_intermediate_size") or 0)
        count += (layers - dense) * hidden * (3 * (experts * each + shared) + experts)
    count += dense * 3 * hidden * inner + layers * _attention(text, hidden)
    embeddings = 1 if text.get("tie_word_embeddings") else 2
    return count + embeddings * int(text["vocab_size"]) * hidden


def _attention(text: Mapping[str, Any], hidden: int) -> int:
    """Weights of one attention layer."""
    heads = int(text["num_attention_heads"])
    if latent := int(text.get("kv_lora_rank") or 0):
        plain, rotary = int(text["qk_nope_head_dim"]), int(text["qk_rope_head_dim"])
        value, rank = int(text["v_head_dim"]), int(text.get("q_lora_rank") or 0)
        width = heads * (plain + rotary)
        query = rank * (hidden + width) if rank else hidden * width
        keys = hidden * (latent + rotary) + latent * heads * (plain + value)
        return query + keys + heads * value * hidden
    size = int(text.get("head_dim") or hidden // heads)
    kv_heads = int(text.get("num_key_value_heads") or heads)
    return 2 * hidden * size * (heads + kv_heads)


def weight_dtype(folder: Path, config: Mapping[str, Json]) -> str:
    """Type of the weights: ``w8a8`` and such where they are quantized, else ``bfloat16``."""
    quantized = _described(folder) or config.get("quantize")
    if isinstance(quantized, str) and (found := re.match(r"w\d+a\d+", quantized.lower())):
        return found[0]
    block = config.get("quantization_config")
    if isinstance(block, dict) and (named := _quantized(block)):
        return named
    text = text_config(config)
    return str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")


def bytes_per_weight(dtype: str) -> float:
    """Bytes of one weight of a type."""
    if bits := _WEIGHT_BITS.fullmatch(dtype):
        return int(bits[1]) / 8
    return {"float32": 4.0, "fp8": 1.0, "int8": 1.0}.get(dtype, 2.0)


def _described(folder: Path) -> str | None:
    """What msModelSlim says beside the weights."""
    try:
        document = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = document.get("model_quant_type") if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def _quantized(block: Mapping[str, Any]) -> str | None:
    """The type that a ``quantization_config`` speaks of; None where it does not say."""
    groups = block.get("config_groups")
    if isinstance(groups, dict) and groups:
        group = next(iter(groups.values()))
        weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
        if weights.get("type") == "float" and weights.get("num_bits") == 8:
            return "fp8"
        return f"w{weights.get('num_bits', 16)}a{inputs.get('num_bits', 16)}"
    if block.get("quant_method") == "fp8":
        return "fp8"
    bits = block.get("bits") or block.get("w_bit")
    return f"w{bits}a16" if isinstance(bits, int) else None
