"""Models small enough to quantize in a second, float32, with byte-level tokenizers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_qwen3 import write_tiny_qwen3

STUB = Path(__file__).parents[2] / "stubs" / "msmodelslim.py"


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, 64 wide, 128 in the MLP; two input channels are 30 times the others."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate([*alphabet, "<end>"])}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,
            eos_token_id=256,
            tie_word_embeddings=True,
        )
    )
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight[[3, 17]] = 30.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps([f"Sentence {n} of the texts for calibration." for n in range(100)]))
    return file


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, 64 wide."""
    return write_tiny_qwen3(tmp_path_factory.mktemp("tiny-qwen3"), hidden=64, head_dim=16)


@pytest.fixture
def msmodelslim_stub() -> Any:
    """The quantizer's block that calls the stub, whose behaviour keywords change."""

    def block(**behaviour: Any) -> dict[str, Any]:
        env = {f"MSMODELSLIM_STUB_{k.upper()}": json.dumps(v) for k, v in behaviour.items()}
        return {"type": "msmodelslim", "command": [sys.executable, str(STUB)], "env": env}

    return block
