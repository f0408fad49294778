"""What may be asked of an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from trainables.quantization import Practice, parse_practice, practice_from_scheme

DISTRIBUTION_METRICS = ("std", "quantile", "kurtosis")
METRICS = ("mse", "fisher", *DISTRIBUTION_METRICS)


class AnalysisOptions(BaseModel):
    """How layers are ranked by their sensitivity to quantization.

    Attributes:
        metric: ``mse``: output error of each layer under the scheme. ``fisher``: what that error
            does to the model's predictions. ``std``, ``quantile``, ``kurtosis``: how far outliers
            stretch the layer's values.
        on: Whose values the last three describe.
        fused: ``auto`` ranks layers that engines run as one matrix as one; ``off`` every layer.
        include: Patterns of the layers that are candidates; a fused group is one if any of its
            layers is.
        calibration: ``dataset``, ``samples``, ``length``, ``seed``, all optional.
        seed: Decides what is drawn at random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: Literal["mse", "fisher", "std", "quantile", "kurtosis"] = "mse"
    on: Literal["activations", "weights"] = "activations"
    fused: Literal["auto", "off"] = "auto"
    include: list[str] = Field(default=["*"], min_length=1)
    calibration: dict[str, Any] = {}
    seed: int = 0

    @model_validator(mode="after")
    def _on_fits(self) -> AnalysisOptions:
        if self.on == "weights" and self.metric not in DISTRIBUTION_METRICS:
            raise ValueError(f"the metric {self.metric} takes weights and activations together")
        return self


class AnalysisRequest(AnalysisOptions):
    """Request document of the stage program.

    Attributes:
        model: Folder of the float checkpoint.
        scheme: Name of the scheme that will be used, such as ``w8a8_static``.
        practice: Or the practice that will be used, as a document. Exactly one of the two.
        device: A torch device such as ``cpu`` or ``npu:0``.
        threads: Processor threads to use; None leaves it to torch.
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
