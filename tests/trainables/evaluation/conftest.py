"""A tiny random Llama with a byte tokenizer, as a checkpoint folder."""

from pathlib import Path

import pytest


def _byte_tokenizer(*, merges=(), bos=False):
    """One token per byte, joined by ``merges``; ``bos`` puts ``<s>`` before every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary += [left + right for left, right in merges]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: n for n, token in enumerate(vocabulary)}, merges=list(merges))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def _tiny_llama(seed=0, context=128):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def byte_tokenizer():
    return _byte_tokenizer


@pytest.fixture(scope="session")
def tiny_llama():
    return _tiny_llama


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    _tiny_llama().save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder
