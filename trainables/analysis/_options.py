"""What may be asked of an analysis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from trainables.quantization import (
    MsModelSlimOptions,
    Practice,
    parse_practice,
    practice_from_scheme,
)
from trainables.quantization._msmodelslim_tool import installation

DISTRIBUTION_METRICS = ("std", "quantile", "kurtosis")
METRICS = ("mse", "fisher", *DISTRIBUTION_METRICS)
SCOPE_METRICS: Mapping[str, tuple[str, ...]] = {
    "linear": DISTRIBUTION_METRICS,
    "layer": ("mse", "mse_layer_wise", "mse_model_wise"),
}
"""Metrics of ``msmodelslim analyze``, by scope; ``mse`` is its ``mse_layer_wise``."""

Metric = Literal["mse", "fisher", "std", "quantile", "kurtosis", "mse_layer_wise", "mse_model_wise"]


class AnalysisOptions(BaseModel):
    """How layers are ranked by their sensitivity to quantization.

    Attributes:
        source: ``builtin`` measures here, under the practice's own schemes. ``msmodelslim`` calls
            ``msmodelslim analyze``, whose ``mse`` always quantizes to MXFP4.
        scope: What ``msmodelslim analyze`` ranks: ``layer``, decoder blocks; ``linear``, linear
            layers. No part of a built-in analysis.
        metric: ``mse``: output error under the scheme. ``fisher``: what that error does to the
            model's predictions. ``std``, ``quantile``, ``kurtosis``: how far outliers stretch the
            values; the worst of a unit decides. ``mse_layer_wise`` and ``mse_model_wise`` belong to
            scope ``layer``.
        on: Whose values ``std``, ``quantile`` and ``kurtosis`` describe.
        unit: What is ranked as one, and goes back to float as one: ``fused``, the layers that
            engines run as one matrix; ``layer``, every linear layer; ``block``, a decoder block,
            named ``model.layers.N`` in the ranking. Scope ``layer`` ranks blocks.
        include: Patterns of the layers that are candidates; a unit is one if any of its layers is.
        calibration: ``dataset``, ``samples``, ``length``, ``seed``, all optional.
        seed: Decides what is drawn at random.
        msmodelslim: ``command``, ``model_type`` and ``env`` of ``msmodelslim analyze``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["builtin", "msmodelslim"] = "builtin"
    scope: Literal["linear", "layer"] | None = None
    metric: Metric = "mse"
    on: Literal["activations", "weights"] = "activations"
    unit: Literal["fused", "layer", "block"] = "fused"
    include: list[str] = Field(default=["*"], min_length=1)
    calibration: dict[str, Any] = {}
    seed: int = 0
    msmodelslim: MsModelSlimOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _scope_and_unit(cls, given: Any) -> Any:
        """Each of scope and unit follows from the other where it was not given."""
        if not isinstance(given, dict) or given.get("source") != "msmodelslim":
            return given
        scope = given.get("scope")
        if scope is None:
            linear = given.get("metric") in DISTRIBUTION_METRICS
            scope = "layer" if given.get("unit") == "block" or not linear else "linear"
        fitting = "block" if scope == "layer" else "fused"
        return {**given, "scope": scope, "unit": given.get("unit", fitting)}

    @model_validator(mode="after")
    def _fits(self) -> AnalysisOptions:
        if self.source == "builtin":
            if self.scope is not None:
                raise ValueError("scope belongs to source msmodelslim; unit says what is ranked")
            if self.metric not in METRICS:
                raise ValueError(f"the metric {self.metric} belongs to source msmodelslim")
            if self.on == "weights" and self.metric not in DISTRIBUTION_METRICS:
                raise ValueError(f"the metric {self.metric} takes weights and activations together")
            return self
        known = SCOPE_METRICS[str(self.scope)]
        if self.metric not in known:
            raise ValueError(f"scope {self.scope} knows {', '.join(known)}, not {self.metric}")
        if (self.scope == "layer") != (self.unit == "block"):
            raise ValueError(f"scope {self.scope} does not rank by unit {self.unit}")
        if self.on == "weights":
            raise ValueError("msmodelslim analyzes activations only")
        return self

    def tools(self) -> dict[str, str]:
        """Versions of the tool that ranks, where it is not this package's own environment."""
        if self.source == "builtin":
            return {}
        options = self.msmodelslim or MsModelSlimOptions()
        return dict(installation(options.command).versions) or {"msmodelslim": "unknown"}

    def identity(self) -> dict[str, Any]:
        """What decides a ranking, apart from the calibration data and where a tool lies."""
        options = self.msmodelslim or MsModelSlimOptions()
        rest = self.model_dump(mode="json", exclude={"calibration", "msmodelslim"})
        if self.source == "builtin":
            return rest
        tool = options.model_dump(mode="json", exclude={"command"})
        return {**rest, "msmodelslim": {**tool, "versions": self.tools()}}


class AnalysisRequest(AnalysisOptions):
    """Request document of the stage program.

    Attributes:
        model: Folder of the float checkpoint.
        scheme: Name of the scheme that will be used, such as ``w8a8_static``.
        practice: Or the practice that will be used, as a document. Exactly one of the two.
        device: A device such as ``cpu`` or ``npu:0``.
        threads: Processor threads to use; None leaves it to the tool.
        trust_remote_code: Whether Python code that comes with the checkpoint may run.
    """

    model: Path
    scheme: str | None = None
    practice: dict[str, Any] | None = None
    device: str = "cpu"
    threads: PositiveInt | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> AnalysisRequest:
        if (self.scheme is None) == (self.practice is None):
            raise ValueError("exactly one of `scheme` and `practice` says how to quantize")
        return self

    def resolved_practice(self) -> Practice:
        """The practice to analyze for. Raises ``ValueError`` when it is wrong."""
        if self.practice is not None:
            return parse_practice(self.practice)
        return practice_from_scheme(str(self.scheme))
