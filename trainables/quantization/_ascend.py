"""The AscendV1 form of a quantized checkpoint, which vLLM-Ascend and MindIE load.

``quant_model_description*.json`` gives every tensor of the ``*.safetensors`` files its type:
``FLOAT``, or how the layer it belongs to is quantized. ``config.json`` is that of the float model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.models import ModelError
from trainables.quantization._practice import LinearQConfig
from trainables.quantization._quantizers import Quantized
from trainables.quantization._verify import (
    FLOATS,
    index_faults,
    missing_tensors,
    scale_faults,
    tensor_headers,
)

QUANTIZED = "quantized"
"""Stands for any type but ``FLOAT``, for combinations whose type is not known here."""

_F32 = frozenset({"F32"})
_TYPES: Mapping[tuple[str, str | None, str | None], str] = {
    ("int8", "int8", "per_tensor"): "W8A8",
    ("int8", "int8", "per_token"): "W8A8_DYNAMIC",
    ("int8", "int8", "pd_mix"): "W8A8_MIX",
    ("int8", None, None): "W8A16",
    ("int4", "int8", "per_token"): "W4A8_DYNAMIC",
    ("int4", "int4", "per_token"): "W4A4_DYNAMIC",
}
_SCALED = {"weight_scale": _F32, "weight_offset": _F32}
_PARTS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "W8A8": {
        "weight": frozenset({"I8"}),
        "quant_bias": frozenset({"I32"}),
        "input_scale": _F32,
        "input_offset": _F32,
        "deq_scale": frozenset({"I64", "F32"}),
    },
    "W8A8_DYNAMIC": {"weight": frozenset({"I8"}), **_SCALED},
    "W8A16": {"weight": frozenset({"I8"}), **_SCALED},
    "W4A8_DYNAMIC": {"weight": frozenset({"I8"}), **_SCALED, "scale_bias": _F32},
    "W4A4_DYNAMIC": {"weight": frozenset({"I8"}), **_SCALED},
}
"""Tensors of a quantized layer and the dtypes they may have, in the names of safetensors."""
_UNDESCRIBED = ("rotation", "inv_freq")
"""Tensors that go with the whole model and have no type."""


def ascend_type(qconfig: LinearQConfig) -> str:
    """The type a ``linear_quant`` gives its layers, or ``QUANTIZED``."""
    act = qconfig.act
    if act is None or act.dtype == "float":
        return _TYPES.get((qconfig.weight.dtype, None, None), QUANTIZED)
    return _TYPES.get((qconfig.weight.dtype, act.dtype, act.scope), QUANTIZED)


def quantized_layers(folder: Path) -> set[str]:
    """Names of the layers whose weights are not in float. Raises as :func:`read_description`."""
    return {
        name.removesuffix(".weight")
        for name, kind in read_description(folder).items()
        if name.endswith(".weight") and kind != "FLOAT"
    }


def read_description(folder: Path) -> dict[str, str]:
    """Type of every tensor.

    Raises:
        ModelError: There is no description, or it cannot be read.
    """
    files = sorted(folder.glob("quant_model_description*.json"))
    if not files:
        raise ModelError(f"{folder} has no quant_model_description*.json")
    found: dict[str, Any] = {}
    for file in files:
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{file} is no valid JSON: {error}") from error
        if not isinstance(document, dict):
            raise ModelError(f"{file} holds no object")
        found |= document
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, str) and "." in name and not name.endswith("quant_type")
    }


def verify_ascend(
    folder: Path, source: Path, quantized: Quantized, spare: Callable[[str], bool]
) -> list[str]:
    """What is wrong with the AscendV1 weights in ``folder``; empty when nothing is.

    Description and tensors agree name by name, every layer has the type and the tensors that were
    planned, all scales are positive and finite, and nothing the float checkpoint has is missing,
    except tensors for which ``spare`` is true.
    """
    try:
        tensors, known = tensor_headers(folder), tensor_headers(source)
        description = read_description(folder)
    except ModelError as error:
        return [str(error)]
    problems = [
        f"{name} {fault}"
        for name, kind in quantized.layers.items()
        for fault in _layer_faults(name, kind, description, tensors)
    ]
    problems += [f"{name} is described and not there" for name in description.keys() - tensors]
    problems += [
        f"{name} has no type in the description"
        for name in tensors.keys() - description
        if not any(word in name for word in _UNDESCRIBED)
    ]
    problems += index_faults(folder, tensors)
    problems += missing_tensors(known, tensors, quantized, spare)
    return problems + list(scale_faults(folder))


def _layer_faults(
    name: str, wanted: object, description: Mapping[str, str], tensors: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    kind = description.get(f"{name}.weight", "without a type")
    if wanted is None:
        dtype = tensors.get(f"{name}.weight", {}).get("dtype")
        if kind != "FLOAT" or dtype not in FLOATS:
            yield f"should be in float, but is {kind} ({dtype or 'no weight'})"
        return
    if wanted != kind and (wanted != QUANTIZED or kind == "FLOAT"):
        yield f"should be {wanted}, but is {kind}"
        return
    for part, dtypes in _PARTS.get(kind, {}).items():
        whole = f"{name}.{part}"
        dtype = tensors.get(whole, {}).get("dtype")
        if description.get(whole) != kind:
            yield f"is {kind}, but its {part} is {description.get(whole, 'not described')}"
        elif dtype not in dtypes:
            yield f"has {part} in {dtype}, not {' or '.join(sorted(dtypes))}"
