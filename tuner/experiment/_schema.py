"""The JSON schema of experiment files, put together from all registered plug-ins."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from searchers import Space, strategy_options, strategy_types
from trainables import trial_type, trial_types
from tuner.experiment._channels import CHANNELS
from tuner.experiment._models import Budget, Cluster, Objective
from tuner.experiment._prior import BELIEVING, PriorOptions
from tuner.views import view_type, view_types


def experiment_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12). Plug-ins that cannot be loaded are left out."""
    definitions: dict[str, Any] = {}
    trials: list[dict[str, Any]] = []
    search_keys: dict[str, Any] = {}
    for name in trial_types():
        try:
            cls = trial_type(name)
        except ImportError:
            continue
        trials.append(_typed(_hoisted(cls.schema(), definitions), name))
        if cls.SearchOptions is not None:
            search_keys |= _block(cls.SearchOptions, definitions).get("properties", {})
    searches = []
    for name in strategy_types():
        try:
            block = _block(strategy_options(name), definitions)
        except ImportError:
            continue
        block["properties"] = block.get("properties", {}) | search_keys | _common(definitions)
        if name in BELIEVING:
            block["properties"]["prior"] = _block(PriorOptions, definitions)
        searches.append(_typed(block, name))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Experiment",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "trial", "search", "objective"],
        "properties": {
            "name": {"type": "string", "pattern": r"^[^\s/._-][^\s/]{0,99}$"},
            "trial": {"oneOf": trials},
            "search": {"oneOf": searches},
            "objective": _block(Objective, definitions),
            "budget": _block(Budget, definitions),
            "cluster": _block(Cluster, definitions),
            "storage": {"type": "string", "default": "./results"},
            "views": {"type": "array", "items": {"oneOf": _views(definitions)}},
            "notify": {
                "type": "array",
                "items": {
                    "oneOf": [
                        _typed(_block(model, definitions), name) for name, model in CHANNELS.items()
                    ]
                },
            },
        },
        "$defs": definitions,
    }


def _views(definitions: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in view_types():
        try:
            found.append(_typed(_block(view_type(name).Options, definitions), name))
        except ImportError:
            continue
    return found


def _block(model: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    return _hoisted(TypeAdapter(model).json_schema(), definitions)


def _hoisted(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema without its definitions, which join the others."""
    definitions.update(schema.pop("$defs", {}))
    return schema


def _common(definitions: dict[str, Any]) -> dict[str, Any]:
    """Keys of every ``search`` block."""
    paths = {"type": "array", "items": {"type": "string"}}
    return {
        "seed": {"type": "integer", "minimum": 0},
        "space": _block(Space, definitions),
        "known": {"anyOf": [{"type": "string"}, paths]},
    }


def _typed(block: dict[str, Any], name: str) -> dict[str, Any]:
    properties = {"type": {"const": name}} | {
        key: value for key, value in block.get("properties", {}).items() if key != "type"
    }
    required = [key for key in block.get("required", []) if key != "type"]
    return {**block, "properties": properties, "required": ["type", *required]}
