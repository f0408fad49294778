"""A Qwen3 checkpoint small enough for every tool: random float32 weights, a byte-level tokenizer.

msModelSlim loads the slow tokenizer, so it is ``vocab.json`` and ``merges.txt`` and nothing else.
Made without torch or transformers, because both forms of the latter (4 and 5) must read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_qwen3(
    folder: Path, *, hidden: int = 128, head_dim: int = 32, layers: int = 4, seed: int = 0
) -> Path:
    """Write the checkpoint into ``folder``, which is made, and return it.

    The default is the smallest that vLLM quantized to INT8 runs on a processor; ``hidden=64,
    head_dim=16`` is a quarter of that. Two input channels of every block are 20 times the others,
    as outliers of real models are. Equal arguments give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = _byte_characters()
    vocabulary = {token: number for number, token in enumerate([*alphabet, *SPECIAL])}
    size = -(-len(vocabulary) // 64) * 64
    config = _config(hidden, head_dim, layers, size, vocabulary)
    weights = _weights(np.random.default_rng(seed), config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    _write(folder / "vocab.json", {token: vocabulary[token] for token in alphabet})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write(folder / "tokenizer_config.json", _tokenizer_config(vocabulary))
    return folder


def _byte_characters() -> list[str]:
    """The printable character that byte-level BPE writes for each byte, by byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _config(
    hidden: int, head_dim: int, layers: int, size: int, vocabulary: dict[str, int]
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary["<|endoftext|>"],
        "eos_token_id": vocabulary["<|im_end|>"],
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 2048,
        "num_attention_heads": hidden // head_dim,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": size,
    }


def _weights(random: np.random.Generator, config: dict[str, Any]) -> dict[str, Any]:
    hidden, wide, head = (config[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    queries = config["num_attention_heads"] * head
    keys = config["num_key_value_heads"] * head
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }

    def normal(*shape: int) -> Any:
        return (0.1 * random.standard_normal(shape)).astype(np.float32)

    def ones(length: int) -> Any:
        return np.ones(length, dtype=np.float32)

    found = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        block = f"model.layers.{number}"
        found |= {f"{block}.{name}.weight": normal(*shape) for name, shape in shapes.items()}
        outliers = ones(hidden)
        outliers[[3, 17]] = 20.0
        found[f"{block}.input_layernorm.weight"] = outliers
        found[f"{block}.post_attention_layernorm.weight"] = ones(hidden)
        found[f"{block}.self_attn.q_norm.weight"] = ones(head)
        found[f"{block}.self_attn.k_norm.weight"] = ones(head)
    found["model.norm.weight"] = ones(hidden)
    found["lm_head.weight"] = normal(config["vocab_size"], hidden)
    return found


def _tokenizer_config(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(vocabulary[token]): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in SPECIAL
        },
        "bos_token": None,
        "chat_template": _TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }


def _write(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
