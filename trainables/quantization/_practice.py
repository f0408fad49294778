"""The practice: a quantization configuration in the form of msModelSlim's PracticeConfig.

The same document drives every quantizer and is delivered with the weights, so what a run found
can be repeated with ``msmodelslim quant --config_path`` too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError


class PracticeError(ValueError):
    """A practice is wrong, or asks for what is not known here; the message says where."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QConfig(_Model):
    """How one tensor of a linear layer is quantized."""

    scope: str
    dtype: str
    symmetric: bool = True
    method: str = "minmax"
    ext: dict[str, Any] | None = None


class LinearQConfig(_Model):
    """Both tensors of a linear layer; no ``act`` leaves activations in float."""

    act: QConfig | None = None
    weight: QConfig


class LinearQuant(_Model):
    """Quantize the linear layers that match ``include`` and do not match ``exclude``."""

    type: Literal["linear_quant"] = "linear_quant"
    qconfig: LinearQConfig
    include: list[str] = Field(default_factory=lambda: ["*"])
    exclude: list[str] = Field(default_factory=list)


class OtherProcess(BaseModel):
    """A processor that only the quantizer understands, such as an outlier suppression."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str = Field(min_length=1)


class Group(_Model):
    """Processors that share one pass over the model."""

    type: Literal["group"] = "group"
    configs: list[Process]


def _process_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("linear_quant", "group") else "other"


Process = Annotated[
    Annotated[LinearQuant, Tag("linear_quant")]
    | Annotated[Group, Tag("group")]
    | Annotated[OtherProcess, Tag("other")],
    Discriminator(_process_kind),
]


class Metadata(_Model):
    """Name and labels; no part of what decides the weights."""

    config_id: str = Field(default="Unknown", max_length=200)
    score: float = Field(default=100.0, ge=0)
    label: dict[str, Any] = Field(default_factory=dict)
    verified_model_types: list[str] = Field(default_factory=list)
    verified_tags: dict[str, list[list[str]]] = Field(default_factory=dict)


class Spec(_Model):
    """What is done to the model, in order, and with which calibration data."""

    runner: Literal["auto", "model_wise", "layer_wise", "dp_layer_wise"] = "auto"
    prior: list[dict[str, Any]] = Field(default_factory=list)
    process: list[Process] = Field(default_factory=list)
    save: list[OtherProcess] = Field(default_factory=list)
    dataset: str = Field(default="mix_calib.jsonl", max_length=4096)


class Practice(_Model):
    """One complete quantization configuration."""

    apiversion: Literal["modelslim_v1"] = "modelslim_v1"
    metadata: Metadata = Field(default_factory=Metadata)
    spec: Spec

    def document(self) -> dict[str, Any]:
        """The practice as JSON-ready document, defaults filled in, keys in declared order."""
        return self.model_dump(mode="json", exclude_none=True)

    def yaml(self) -> str:
        """The practice as YAML text, the same for equal practices."""
        return yaml.safe_dump(self.document(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """SHA-256 of what decides the weights: everything but the metadata."""
        decisive = {k: v for k, v in self.document().items() if k != "metadata"}
        text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def parse_practice(document: Any) -> Practice:
    """A practice from its document. Raises :class:`PracticeError` naming every fault."""
    try:
        return Practice.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(_steps(fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise PracticeError(f"the practice is not valid: {faults}") from error


def _steps(location: Sequence[int | str]) -> Iterator[str]:
    """The path a user sees, without the tag pydantic puts behind an index of ``process``."""
    after_index = False
    for step in location:
        if not (after_index and step in ("linear_quant", "group", "other")):
            yield str(step)
        after_index = isinstance(step, int)


def processes(practice: Practice) -> Iterator[tuple[str, LinearQuant | OtherProcess]]:
    """Dot path and processor, in order, groups unfolded."""

    def walk(items: Sequence[Any], path: str) -> Iterator[tuple[str, Any]]:
        for index, item in enumerate(items):
            here = f"{path}.{index}"
            if isinstance(item, Group):
                yield from walk(item.configs, f"{here}.configs")
            else:
                yield here, item

    return walk(practice.spec.process, "spec.process")
