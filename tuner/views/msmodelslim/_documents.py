"""Documents as msModelSlim 26.1 writes them: every default filled in, its keys in its order.

The MD5 keys of ``accuracy.yaml`` are made from these documents, so a default that is missing here
would be a measurement that neither tool finds again. A processor not listed below is written as
it was given.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from searchers import Json

_SUBGRAPHS = ["norm-linear", "linear-linear", "ov", "up-down"]
_SELECTION = {"include": None, "exclude": None}
_FLOAT_ACTIVATION = {"dtype": "float", "scope": "per_tensor", "symmetric": True, "method": "none"}
_FLEX = {"alpha": None, "beta": None, "enable_subgraph_type": _SUBGRAPHS, **_SELECTION}
_DEFAULTS: dict[str, dict[str, Json]] = {
    "linear_quant": {"qconfig": None, "include": ["*"], "exclude": []},
    "iter_smooth": {
        "alpha": 0.9,
        "scale_min": 1e-05,
        "symmetric": True,
        "enable_subgraph_type": _SUBGRAPHS,
        **_SELECTION,
    },
    "flex_smooth_quant": _FLEX,
    "flex_awq_ssz": {**_FLEX, "qconfig": None},
    "smooth_quant": {"alpha": 0.5, "symmetric": True, **_SELECTION},
    "quarot": {
        "online": False,
        "block_size": -1,
        "down_proj_online_layers": [],
        "max_tp_size": 4,
        "export_extra_info": True,
    },
    "online_quarot": {**_SELECTION, "block_size": -1},
    "dynamic_cache": {"qconfig": None, "include": [], "exclude": []},
    "fa3_quant": {
        "qconfig": {"dtype": "int8", "scope": "per_head", "symmetric": True, "method": "minmax"},
        "include": ["*"],
        "exclude": [],
        "details": None,
    },
    "float_sparse": {"sparse_ratio": 0.3, "include": [], "exclude": []},
    "svd_res": {"rank": 32, "include": ["*"], "exclude": []},
    "ascendv1_saver": {"part_file_size": 4},
    "compressed_tensors": {"part_file_size": 4},
    "mindie_format_saver": {"part_file_size": 4},
}


def practice_document(practice: Mapping[str, Json], config_id: str) -> dict[str, Json]:
    """A practice with another ``config_id``, as a file of the tool's history."""
    metadata = practice.get("metadata", {})
    return {
        **quantization_document(practice),
        "metadata": {
            "config_id": config_id,
            "score": float(metadata.get("score", 100.0)),
            "label": dict(metadata.get("label", {})),
            "verified_model_types": list(metadata.get("verified_model_types", [])),
            "verified_tags": dict(metadata.get("verified_tags", {})),
        },
    }


def quantization_document(practice: Mapping[str, Json]) -> dict[str, Json]:
    """What of a practice decides the weights."""
    spec = practice["spec"]
    return {
        "apiversion": practice["apiversion"],
        "spec": {
            "runner": spec.get("runner", "auto"),
            "prior": [_prior(stage) for stage in spec.get("prior", [])],
            "process": _processors(spec.get("process", [])),
            "save": _processors(spec.get("save", [])),
            "dataset": spec.get("dataset", "mix_calib.jsonl"),
        },
    }


def evaluation_document(evaluation: Mapping[str, Json]) -> dict[str, Json]:
    """The evaluation block of a plan, its demands as the decimals a person reads."""
    document = copy.deepcopy(dict(evaluation))
    document["demand"]["expectations"] = expectations(evaluation)
    return document


def expectations(evaluation: Mapping[str, Json]) -> list[dict[str, str]]:
    """``{dataset, target, tolerance}`` each, in the order of the plan.

    Raises:
        ValueError: The block has no such list.
    """
    try:
        return [
            {
                "dataset": str(item["dataset"]),
                "target": str(Decimal(str(item["target"]))),
                "tolerance": str(Decimal(str(item["tolerance"]))),
            }
            for item in evaluation["demand"]["expectations"]
        ]
    except (KeyError, TypeError, InvalidOperation) as error:
        said = "demand.expectations has to be a list of {dataset, target, tolerance}"
        raise ValueError(said) from error


def quantization_md5(practice: Mapping[str, Json]) -> str:
    """The second half of a key of ``accuracy.yaml``."""
    return _md5(quantization_document(practice))


def evaluation_md5(evaluation: Mapping[str, Json]) -> str:
    """The first half of a key of ``accuracy.yaml``, of a block with all defaults filled in."""
    return _md5(evaluation_document(evaluation))


def dump(document: Json) -> str:
    """YAML text as the tool writes it."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out each time: the tool never writes anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _md5(document: Json) -> str:
    text = json.dumps(document, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _prior(stage: Mapping[str, Json]) -> dict[str, Json]:
    return {"process": _processors(stage.get("process", [])), "dataset": stage.get("dataset")}


def _processors(items: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    return [_processor(item) for item in items]


def _processor(given: Mapping[str, Json]) -> dict[str, Json]:
    kind = given["type"]
    if kind == "group":
        return {"type": kind, "configs": _processors(given["configs"])}
    defaults = copy.deepcopy(_DEFAULTS.get(kind, {}))
    document = {"type": kind, **defaults, **given}
    for name, default in defaults.items():
        if isinstance(default, float) and isinstance(document[name], int):
            document[name] = float(document[name])
    qconfig = document.get("qconfig")
    if isinstance(qconfig, Mapping):
        document["qconfig"] = _qconfig(qconfig)
        if kind == "linear_quant":
            document["qconfig"] = {"act": dict(_FLOAT_ACTIVATION), **document["qconfig"]}
    return document


def _qconfig(given: Mapping[str, Json]) -> dict[str, Json]:
    """How one tensor is quantized, or both of a linear layer."""
    if "weight" in given or "act" in given:
        halves = (name for name in ("act", "weight") if given.get(name) is not None)
        return {name: _qconfig(given[name]) for name in halves}
    document = {name: given[name] for name in ("dtype", "scope", "symmetric", "method")}
    return document | ({"ext": given["ext"]} if given.get("ext") else {})
