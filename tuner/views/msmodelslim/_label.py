"""The label by which ``msmodelslim quant --quant_type`` finds a practice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from searchers import Json

_BITS = re.compile(r"(?:int|fp)(\d+)")
_FLOAT_BITS = 16


def right_label(practice: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """The practice's own label, completed and where it is wrong corrected; what was corrected.

    Widths are those of the narrowest linear layers. A width that the practice gives to any of its
    layers stands: of mixed ones the user may choose the name.
    """
    given = dict(practice.get("metadata", {}).get("label", {}))
    label, corrected = dict(given), []
    for name, widths in _widths(practice).items():
        if widths and given.get(name) not in widths:
            label[name] = min(widths)
    processors = list(_processors(practice["spec"].get("process", [])))
    kinds = {processor["type"] for processor in processors}
    label["is_sparse"] = given.get("is_sparse") is True or "float_sparse" in kinds
    label["kv_cache"] = given.get("kv_cache") is True or "dynamic_cache" in kinds
    if "fa3_quant" in kinds:
        label = {**label, "fa_quant": True, **_attention_bits(processors)}
    for name, value in label.items():
        if name in given and given[name] != value:
            corrected.append(f"{name} {given[name]} is {value}")
    return label, corrected


def _widths(practice: Mapping[str, Json]) -> dict[str, set[int]]:
    """Bits of weights and activations over all linear layers that are quantized."""
    found: dict[str, set[int]] = {"w_bit": set(), "a_bit": set()}
    for processor in _processors(practice["spec"].get("process", [])):
        if processor["type"] == "linear_quant":
            qconfig = processor["qconfig"]
            found["w_bit"] |= _bits(qconfig["weight"])
            found["a_bit"] |= _bits(qconfig["act"]) if qconfig.get("act") else {_FLOAT_BITS}
    return found


def _attention_bits(processors: list[Mapping[str, Json]]) -> dict[str, int]:
    """``fa_bit`` where attention is quantized to anything but the usual 8 bits."""
    found = [
        _bits(processor.get("qconfig") or {"dtype": "int8"})
        for processor in processors
        if processor["type"] == "fa3_quant"
    ]
    bits = min((width for widths in found for width in widths), default=8)
    return {} if bits == 8 else {"fa_bit": bits}


def _bits(qconfig: Mapping[str, Json]) -> set[int]:
    dtype = str(qconfig["dtype"])
    if dtype == "float":
        return {_FLOAT_BITS}
    match = _BITS.search(dtype)
    return {int(match[1])} if match else set()


def _processors(items: list[Mapping[str, Json]]) -> Iterator[Mapping[str, Json]]:
    """All processors, groups unfolded."""
    for item in items:
        if item["type"] == "group":
            yield from _processors(item["configs"])
        else:
            yield item
