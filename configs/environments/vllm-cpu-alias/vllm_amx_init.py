"""Asks the kernel for the processor's matrix tiles before vLLM's kernels use them."""


def register() -> None:
    """Called by vLLM in each of its processes. Processors without AMX have nothing to ask for."""
    import torch

    torch.cpu._init_amx()
