"""What is known to work for which part of a model, after msModelSlim's expert experience."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, TypeAlias

from searchers._contract import Json

QuantType: TypeAlias = Literal["w8a8", "w4a8"]
Structure: TypeAlias = Literal["MHA", "GQA", "MLA", "FFN", "MoE", "DSA", "SWA", "GatedDeltaNet"]


def _tensor(scope: str, dtype: str = "int8", method: str = "minmax") -> dict[str, Json]:
    return {"scope": scope, "dtype": dtype, "symmetric": True, "method": method}


_W8A8_STATIC: Json = {"act": _tensor("per_tensor"), "weight": _tensor("per_channel")}
_W8A8_DYNAMIC: Json = {"act": _tensor("per_token"), "weight": _tensor("per_channel")}
_W4A8_DYNAMIC: Json = {
    "act": _tensor("per_token"),
    "weight": _tensor("per_channel", "int4", "ssz"),
}
_FLEX_AWQ_SSZ: Json = {
    "type": "flex_awq_ssz",
    "qconfig": {
        "act": _tensor("per_token"),
        "weight": _tensor("per_channel", "int4", "ssz") | {"ext": {"step": 10}},
    },
    "enable_subgraph_type": ["norm-linear", "linear-linear", "ov", "up-down"],
}
_ATTENTION: dict[Structure, Json] = {
    "MHA": _W8A8_STATIC,
    "GQA": _W8A8_STATIC,
    "MLA": _W8A8_STATIC,
    "DSA": None,
    "SWA": None,
    "GatedDeltaNet": None,
}

QCONFIGS: MappingProxyType[QuantType, dict[Structure, Json]] = MappingProxyType(
    {
        "w8a8": _ATTENTION | {"FFN": _W8A8_DYNAMIC, "MoE": _W8A8_DYNAMIC},
        "w4a8": _ATTENTION | {"MoE": _W4A8_DYNAMIC},
    }
)
"""``qconfig`` of a ``linear_quant`` by quantization type and structure.

None: the structure stays in bfloat16. Missing: the combination is not supported.
"""

ANTI_OUTLIER: MappingProxyType[QuantType, list[list[dict[str, Json]]]] = MappingProxyType(
    {
        "w8a8": [[{"type": "flex_smooth_quant"}], [{"type": "iter_smooth"}]],
        "w4a8": [[_FLEX_AWQ_SSZ]],
    }
)
"""Outlier strategies by quantization type, in the order in which they are tried."""
