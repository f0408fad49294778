"""What the stub of msModelSlim makes of weights: W8A8 by nearest integer, in both forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save_file
from wcmatch import fnmatch

Plan = Mapping[str, Mapping[str, Any]]
"""Quantized layer to its activation's settings."""


class Behaviour(Protocol):
    """See the stub's own."""

    forget: tuple[str, ...]
    float_too: tuple[str, ...]
    integer_too: tuple[str, ...]


def _in_block(name: str) -> bool:
    return re.search(r"\.\d+\.", name) is not None


def linear_layers(weights: Mapping[str, Any]) -> list[str]:
    """Linear layers of the decoder blocks, which are all that msModelSlim visits."""
    return [
        name.removesuffix(".weight")
        for name, tensor in weights.items()
        if name.endswith(".weight") and tensor.ndim == 2 and _in_block(name)
    ]


def matches(name: str, patterns: Iterable[str]) -> bool:
    return fnmatch.fnmatch(name, list(patterns), flags=fnmatch.BRACE)


def plan_of(
    practice: Mapping[str, Any], weights: Mapping[str, Any], how: Behaviour
) -> dict[str, dict[str, Any]]:
    """Quantized layer to the activation's settings."""
    found: dict[str, dict[str, Any]] = {}
    targets = [p for p in practice["spec"]["process"] if p["type"] == "linear_quant"]
    for name in linear_layers(weights):
        for target in targets:
            excluded = matches(name, target.get("exclude") or ["-"])
            if how.integer_too and matches(name, how.integer_too):
                excluded = False
            if matches(name, target.get("include", ["*"])) and not excluded:
                found.setdefault(name, target["qconfig"]["act"])
    return {n: act for n, act in found.items() if not matches(n, how.float_too or ["-"])}


def _integers(weight: Any) -> tuple[Any, Any]:
    scale = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-6) / 127.5
    return np.clip(np.round(weight / scale), -128, 127).astype(np.int8), scale.astype(np.float32)


def save_ascend(folder: Path, weights: Mapping[str, Any], plan: Plan, how: Behaviour) -> None:
    tensors: dict[str, Any] = {}
    types: dict[str, Any] = {}
    for name, tensor in weights.items():
        layer = name.removesuffix(".weight")
        if not name.endswith(".weight") or layer not in plan:
            tensors[name], types[name] = tensor, "FLOAT"
            continue
        static = plan[layer]["scope"] == "per_tensor"
        integers, scale = _integers(tensor)
        parts = {"weight": integers}
        if static:
            one = np.array([0.05], dtype=np.float32)
            bits = (one * scale[:, 0]).astype(np.float32).view(np.int32).astype(np.int64)
            parts |= {"quant_bias": np.zeros(len(integers), np.int32), "input_scale": one}
            parts |= {"input_offset": np.zeros(1, np.float32), "deq_scale": bits}
        else:
            parts |= {"weight_scale": scale, "weight_offset": np.zeros_like(scale)}
        for part, value in parts.items():
            tensors[f"{layer}.{part}"] = value
            types[f"{layer}.{part}"] = "W8A8" if static else "W8A8_DYNAMIC"
    used = [kind for kind in ("W8A8", "W8A8_DYNAMIC", "FLOAT") if kind in types.values()]
    types |= {"version": "1.0.0", "model_quant_type": used[0], "metadata": {}}
    types |= {"group_size": 0, "optional": {}}
    (folder / "quant_model_description.json").write_text(json.dumps(types, indent=4))
    _write(folder, "quant_model_weights", tensors, how)


def save_compressed(folder: Path, weights: Mapping[str, Any], plan: Plan, how: Behaviour) -> None:
    tensors: dict[str, Any] = {}
    for name, tensor in weights.items():
        layer = name.removesuffix(".weight")
        if not name.endswith(".weight") or layer not in plan:
            tensors[name] = tensor
            continue
        tensors[name], tensors[f"{layer}.weight_scale"] = _integers(tensor)
        if plan[layer]["scope"] == "per_tensor":
            tensors[f"{layer}.input_scale"] = np.array([0.05], dtype=np.float32)
            if not plan[layer]["symmetric"] and "up_proj" not in layer:
                offset = np.array([-7], dtype=np.float32)
                tensors[f"{layer}.input_zero_point"] = offset
    if plan:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = _quantization_config(weights, plan)
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    _write(folder, "model", tensors, how)


def _quantization_config(weights: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    floats = [name for name in [*linear_layers(weights), "lm_head"] if name not in plan]
    groups: dict[str, Any] = {}
    for scope in dict.fromkeys(act["scope"] for act in plan.values()):
        static = scope == "per_tensor"
        shared = {"num_bits": 8, "type": "int", "group_size": None}
        groups[f"group_{len(groups)}"] = {
            "targets": ["Linear"],
            "weights": {**shared, "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                **shared,
                "symmetric": not static,
                "strategy": "tensor" if static else "token",
                "dynamic": not static,
            },
            "output_activations": None,
            "format": "int-quantized",
        }
    return {
        "quant_method": "compressed-tensors",
        "config_groups": groups,
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": [f"re:(?:{'|'.join(map(re.escape, floats))})(?![.\\w])"],
    }


def _write(folder: Path, prefix: str, tensors: dict[str, Any], how: Behaviour) -> None:
    file = f"{prefix}-00001-of-00001.safetensors"
    index = dict.fromkeys(tensors, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    kept = {n: t for n, t in tensors.items() if not matches(n, how.forget or ["-"])}
    save_file(kept, folder / file)
    document = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / f"{prefix}.safetensors.index.json").write_text(json.dumps(document, indent=2))
