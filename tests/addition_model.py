"""A Qwen3 that has learned to add: small enough to train in a test, and hurt by quantization.

It answers ``7+15=`` with ``22``. In some blocks a few channels are blown up and shrunk back behind
the next layer, which changes nothing in float; but activations in 8 bits lose everything beside
those channels, as large models do with their outliers. Leaving the blocks in float repairs it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.tiny_qwen3 import write_tiny_qwen3

LARGEST = 19
_PROMPT = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
_END = "<|im_end|>"
_STEPS = 400
_BATCH = 64
_BLOW_UP = 400.0


def questions(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Distinct (question, answer) pairs."""
    pairs = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]
    chosen = random.Random(seed).sample(pairs, count)
    return [(f"{a}+{b}=", str(a + b)) for a, b in chosen]


def write_addition_model(folder: Path, *, outliers: Sequence[int] = (), threads: int = 1) -> Path:
    """Train the model and write its checkpoint (float32) into ``folder``, which is made.

    ``outliers`` are the blocks that get outlier channels. Takes about a minute on one core.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    write_tiny_qwen3(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        torch.nn.init.ones_(parameter) if "norm" in name else torch.nn.init.normal_(
            parameter, std=0.05
        )
    _train(model.train(), tokenizer)
    model.eval()
    for block in outliers:
        _blow_up(model, tokenizer, block)
    _save(model, folder)
    return folder


def _train(model: Any, tokenizer: Any) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=_STEPS)
    draw = random.Random(0)
    for _ in range(_STEPS):
        texts = [_example(draw) for _ in range(_BATCH)]
        ids, labels = _batch(tokenizer, texts)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _example(draw: random.Random) -> tuple[str, str]:
    a, b = draw.randint(0, LARGEST), draw.randint(0, LARGEST)
    return _PROMPT.format(question=f"{a}+{b}="), f"{a + b}{_END}"


def _batch(tokenizer: Any, texts: list[tuple[str, str]]) -> tuple[Any, Any]:
    """Token ids padded on the right, and labels that only count the answers."""
    import torch

    rows = [(tokenizer.encode(prompt), tokenizer.encode(answer)) for prompt, answer in texts]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for index, (prompt, answer) in enumerate(rows):
        row = torch.tensor([*prompt, *answer])
        ids[index, : len(row)] = row
        labels[index, len(prompt) : len(row)] = row[len(prompt) :]
    return ids, labels


def _blow_up(model: Any, tokenizer: Any, block: int) -> None:
    """Make outliers of the strongest channel of the MLP and of one channel of each value head."""
    import torch

    layer = model.model.layers[block]
    with torch.no_grad():
        channel = _strongest_input(model, tokenizer, layer.mlp.down_proj)
        layer.mlp.up_proj.weight[channel] *= _BLOW_UP
        layer.mlp.down_proj.weight[:, channel] /= _BLOW_UP
        width = model.config.head_dim
        shared = model.config.num_attention_heads // model.config.num_key_value_heads
        for head in range(model.config.num_attention_heads):
            layer.self_attn.o_proj.weight[:, head * width] /= _BLOW_UP
            if head % shared == 0:
                layer.self_attn.v_proj.weight[head // shared * width] *= _BLOW_UP


def _strongest_input(model: Any, tokenizer: Any, linear: Any) -> int:
    draw = random.Random(2)
    ids, _ = _batch(tokenizer, [_example(draw) for _ in range(_BATCH)])
    peaks: list[Any] = []
    hook = linear.register_forward_pre_hook(
        lambda _, inputs: peaks.append(inputs[0].abs().amax(dim=(0, 1)))
    )
    model(input_ids=ids)
    hook.remove()
    return int(peaks[0].argmax())


def _save(model: Any, folder: Path) -> None:
    """Only the weights: configuration and tokenizer stay in the form that old releases read too."""
    from safetensors.torch import save_file

    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
