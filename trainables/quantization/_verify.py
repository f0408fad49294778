"""Whether a quantized checkpoint on disk is what its practice asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from trainables.models import ModelError, read_header, weight_files
from trainables.quantization._quantizers import Quantized
from trainables.quantization._scheme import LinearScheme

_EXPERT = re.compile(r"(.+)\.\d+\.[^.]+")
_FLOATS = frozenset({"F32", "F16", "BF16"})


def verify_artifact(folder: Path, source: Path, quantized: Quantized) -> list[str]:
    """What is wrong with the weights in ``folder``; empty when nothing is.

    Looks at the tensors themselves, not at what the configuration claims of them: all files of
    the index are there and whole, every layer is in integers or in float as planned, all scales
    are positive and finite, and nothing the float checkpoint has is missing.
    """
    try:
        tensors = _tensors(folder)
        known = _tensors(source)
    except ModelError as error:
        return [str(error)]
    problems = [
        f"{name} {fault}"
        for name, scheme in quantized.layers.items()
        for fault in _layer_faults(name, scheme, tensors)
    ]
    problems += _missing(known, tensors, quantized)
    problems += _config_faults(folder, quantized)
    return problems + list(_scale_faults(folder))


def _tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """Header entries of all safetensors files of a checkpoint; files of other forms have none."""
    found: dict[str, dict[str, Any]] = {}
    for name in weight_files(folder):
        if name.endswith(".safetensors"):
            found |= read_header(folder / name)
    return found


def _missing(
    known: dict[str, dict[str, Any]], tensors: dict[str, dict[str, Any]], quantized: Quantized
) -> Iterator[str]:
    """Tensors of the float checkpoint that should be in the other just as they are, and are not.

    Apart from the head, which may be tied, and from experts joined in one tensor, which are
    quantized one by one.
    """
    changed = {f"{name}.weight" for name, scheme in quantized.layers.items() if scheme}
    experts = {match[1] for name in quantized.layers if (match := _EXPERT.fullmatch(name))}
    for name, tensor in known.items():
        same = tensors.get(name, {}).get("shape") == tensor["shape"]
        joined = name.rpartition(".")[0] in experts
        if not (same or joined or name in changed or name == f"{quantized.head}.weight"):
            yield f"{name} is missing or has another shape"


def _layer_faults(
    name: str, scheme: LinearScheme | None, tensors: dict[str, dict[str, Any]]
) -> Iterator[str]:
    present = {suffix for suffix in _SUFFIXES if f"{name}.{suffix}" in tensors}
    kind = tensors.get(f"{name}.weight", {}).get("dtype")
    if scheme is None:
        if present != {"weight"} or kind not in _FLOATS:
            yield f"should be in float, but has {_content(present, kind)}"
        return
    activation = scheme.activation
    packed = activation is None
    expected = {"weight_packed" if packed else "weight", "weight_scale"}
    if activation is not None and not activation.dynamic:
        expected |= {"input_scale"} | (set() if activation.symmetric else {"input_zero_point"})
    if not scheme.weight.symmetric:
        expected |= {"weight_zero_point"}
    if not expected <= present or (not packed and kind != "I8"):
        yield f"should have {', '.join(sorted(expected))}, but has {_content(present, kind)}"


_SUFFIXES = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "input_scale",
    "input_zero_point",
)


def _content(present: set[str], kind: str | None) -> str:
    return f"{', '.join(sorted(present)) or 'nothing'} ({kind or 'no weight'})"


def _config_faults(folder: Path, quantized: Quantized) -> list[str]:
    """Layers the configuration tells engines to take for something else than they are.

    It may ignore more than linear layers: routers, which engines implement as such.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    listed = set((config.get("quantization_config") or {}).get("ignore") or ())
    integer = {name for name, scheme in quantized.layers.items() if scheme is not None}
    floats = quantized.layers.keys() - integer
    floats |= set() if quantized.head is None else {quantized.head}
    return [f"config.json ignores {name}" for name in sorted(listed & integer)] + [
        f"config.json does not ignore {name}" for name in sorted(floats - listed)
    ]


def _scale_faults(folder: Path) -> Iterator[str]:
    for file in weight_files(folder):
        with safe_open(folder / file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name.endswith("_scale"):
                    scale = tensors.get_tensor(name)
                    if not bool(torch.isfinite(scale).all() and (scale > 0).all()):
                        yield f"{name} is not positive and finite everywhere"
