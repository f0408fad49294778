"""The tiny Qwen3 that tests of all tools share is a checkpoint like any other."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny_qwen3 import write_tiny_qwen3
from trainables.models import describe_model, model_fingerprint


def test_it_loads_speaks_and_is_the_same_every_time(tmp_path):
    folder = write_tiny_qwen3(tmp_path / "a")
    facts = describe_model(folder)
    assert (facts.layers, facts.hidden_size, facts.dtype) == (4, 128, "float32")
    assert model_fingerprint(folder) == model_fingerprint(write_tiny_qwen3(tmp_path / "b"))
    assert model_fingerprint(folder) != model_fingerprint(write_tiny_qwen3(tmp_path / "c", seed=1))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "wörld <|im_end|>"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == text
    assert ids.shape == (1, 8)
    chat = [{"role": "user", "content": "hi"}]
    shown = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(ids).logits
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert logits.std() > 0.1
