"""The error of whole decoder blocks, with all their candidate layers quantized at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from trainables.analysis._groups import block_name
from trainables.analysis._measure import FakeLayers, Group, OutputError, Subject, mean_error
from trainables.analysis._ranking import Scored


def block_mse_scores(subject: Subject) -> list[Scored]:
    """Groups, each the candidates of one block, by the mean squared error of the block's output.

    Every block gets the inputs it has in the float model, and is run on them a second time with
    its candidates quantized; errors of its layers meet as they do in the quantized model. A group
    outside of blocks is its own block.
    """
    fake = FakeLayers(subject)
    errors = {group: OutputError() for group in subject.groups}
    second_run = False

    def lossy(name: str) -> Any:
        def hook(_layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + fake.error(name, inputs[0], output) if second_run else None

        return hook

    def compare(group: Group) -> Any:
        def hook(block: Any, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            nonlocal second_run
            if second_run:
                return
            second_run = True
            try:
                quantized = _first(block(*given, **named))
            finally:
                second_run = False
            exact = _first(output)
            errors[group].add(quantized - exact, exact)

        return hook

    with ExitStack() as stack, torch.inference_mode():
        for group in subject.groups:
            for name in group:
                hooked = subject.layer(name).register_forward_hook(lossy(name))
                stack.callback(hooked.remove)
            block = subject.layer(block_name(group[0]) or group[0])
            hooked = block.register_forward_hook(compare(group), with_kwargs=True)
            stack.callback(hooked.remove)
        for ids in subject.batches:
            subject.model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return [mean_error(group, [error]) for group, error in errors.items()]


def _first(output: Any) -> Tensor:
    tensor: Tensor = output if isinstance(output, Tensor) else output[0]
    return tensor
