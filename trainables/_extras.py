"""Optional dependencies: which feature needs which packages, and how to get them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

DISTRIBUTION = "npu-tuner"

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "quantize": ("torch", "transformers", "llmcompressor", "compressed_tensors", "gguf"),
    "dashboard": ("aiohttp", "prometheus_client"),
    "picture": ("matplotlib",),
    "simulate": ("xgboost", "matplotlib"),
    "bench": ("ais_bench",),
    "npu": ("torch_npu", "vllm_ascend"),
}
"""Extra to the modules it brings."""


def missing_modules(extra: str) -> list[str]:
    """Modules of an extra that are not installed here, without importing any of them."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def how_to_install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
