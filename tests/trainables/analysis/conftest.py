"""A tiny random Llama with a byte tokenizer and calibration texts, to rank the layers of."""

import json
import random

import pytest


def _tiny_llama():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def _save_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Makes a checkpoint folder of the model, after ``change(model)`` if one is given."""
    import torch

    def build(change=None):
        folder = tmp_path_factory.mktemp("tiny") / "model"
        model = _tiny_llama()
        if change is not None:
            with torch.no_grad():
                change(model)
        model.save_pretrained(folder)
        _save_tokenizer(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def calibration(tmp_path_factory):
    rng = random.Random(0)
    words = ["stone", "river", "add", "the", "of", "quickly", "12", "def", "(x)", "moon", "a"]
    file = tmp_path_factory.mktemp("calibration") / "texts.jsonl"
    texts = [" ".join(rng.choices(words, k=80)) for _ in range(12)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"dataset": str(file), "samples": 8, "length": 64}


@pytest.fixture(scope="session")
def plain_checkpoint(checkpoint):
    return checkpoint()
