"""A llama model in a GGUF file as a Hugging Face checkpoint.

Written in the keys that transformers 4 and 5 both read: engines bring their own release, and one
that overlooks the rope base answers with another model without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from cluster import write_json

DTYPE = torch.bfloat16
_CONTROL_TOKEN = 3
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


class GgufModel:
    """The metadata and tensors of one GGUF file.

    Raises:
        ValueError: The file is not a whole GGUF file of a llama model with a BPE vocabulary.
    """

    def __init__(self, file: Path) -> None:
        self._reader = gguf.GGUFReader(file)
        for key, known in (("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2")):
            if self.field(key) != known:
                raise ValueError(f"{file}: {key} is {self.field(key)!r}, only {known!r} is known")

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as Python object."""
        found = self._reader.get_field(key)
        return default if found is None else found.contents()

    def write(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer into ``folder``."""
        self._write_weights(folder)
        self._write_config(folder)
        self._write_tokenizer(folder)

    def _write_weights(self, folder: Path) -> None:
        heads = {
            "attn_q": self.field("llama.attention.head_count"),
            "attn_k": self.field("llama.attention.head_count_kv"),
        }
        tensors = {}
        for tensor in self._reader.tensors:
            values = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
            kind = tensor.name.split(".")[-2]
            if kind in heads:
                values = _half_rotation(values, heads[kind])
            tensors[_checkpoint_name(tensor.name)] = values.to(DTYPE).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def _write_config(self, folder: Path) -> None:
        tokens = {
            f"{name}_token_id": self.field(f"tokenizer.ggml.{key}_token_id")
            for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        }
        heads = self.field("llama.attention.head_count")
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            **tokens,
            "head_dim": self.field("llama.embedding_length") // heads,
            "hidden_act": "silu",
            "hidden_size": self.field("llama.embedding_length"),
            "initializer_range": 0.02,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "max_position_embeddings": self.field("llama.context_length"),
            "mlp_bias": False,
            "num_attention_heads": heads,
            "num_hidden_layers": self.field("llama.block_count"),
            "num_key_value_heads": self.field("llama.attention.head_count_kv"),
            "rms_norm_eps": round(self.field("llama.attention.layer_norm_rms_epsilon"), 12),
            "rope_scaling": None,
            "rope_theta": self.field("llama.rope.freq_base"),
            "tie_word_embeddings": not self._has("output.weight"),
            "torch_dtype": str(DTYPE).removeprefix("torch."),
            "use_cache": True,
            "vocab_size": self.field("llama.vocab_size"),
        }
        write_json(folder / "config.json", config)
        write_json(folder / "generation_config.json", tokens)

    def _has(self, name: str) -> bool:
        return any(tensor.name == name for tensor in self._reader.tensors)

    def _write_tokenizer(self, folder: Path) -> None:
        tokens: list[str] = self.field("tokenizer.ggml.tokens")
        merges = [tuple(pair.split(" ")) for pair in self.field("tokenizer.ggml.merges")]
        kinds = self.field("tokenizer.ggml.token_type")
        control = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = self._pre_tokenizer()
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
        tokenizer.save(str(folder / "tokenizer.json"))
        special = {
            f"{name}_token": tokens[self.field(f"tokenizer.ggml.{key}_token_id")]
            for name, key in (
                ("bos", "bos"),
                ("eos", "eos"),
                ("pad", "padding"),
                ("unk", "unknown"),
            )
        }
        special["additional_special_tokens"] = control
        write_json(folder / "special_tokens_map.json", special)
        configuration = {
            **special,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.field("llama.context_length"),
            "chat_template": self.field("tokenizer.chat_template"),
        }
        write_json(folder / "tokenizer_config.json", configuration)

    def _pre_tokenizer(self) -> Any:
        name = self.field("tokenizer.ggml.pre")
        if name != "smollm":
            raise ValueError(f"the pre-tokenizer {name!r} is not known")
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )


def _checkpoint_name(name: str) -> str:
    """``blk.3.ffn_up.weight`` is ``model.layers.3.mlp.up_proj.weight``."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_BLOCK_NAMES[parts[2]]}.{parts[3]}"
    return f"{_OTHER_NAMES[parts[0]]}.{parts[1]}"


def _half_rotation(weight: Any, heads: int) -> Any:
    """Rows of a query or key projection from GGUF's rotary order to Hugging Face's.

    llama.cpp rotates neighbouring rows of a head as a pair, transformers a row of the first half
    with its partner in the second half.
    """
    return weight.reshape(heads, -1, 2, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
