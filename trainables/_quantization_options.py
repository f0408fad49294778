"""The ``trial`` block of a quantization experiment."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator

from trainables._blocks import PathText
from trainables.analysis import AnalysisOptions
from trainables.quantization import Calibration


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PracticeOptions(_Block):
    """Which quantization; exactly one of scheme, template and file.

    Attributes:
        scheme: A named scheme, applied to all linear layers.
        smoothquant: With a scheme: True, or the migration strength alpha in 0..1.
        template: A practice (PracticeConfig) document.
        file: A YAML file with such a document.
    """

    scheme: str | None = None
    smoothquant: bool | float = False
    template: dict[str, Any] | None = None
    file: PathText | None = None

    @model_validator(mode="after")
    def _one_source(self) -> PracticeOptions:
        given = [self.scheme, self.template, self.file]
        if sum(source is not None for source in given) != 1:
            raise ValueError("give exactly one of scheme, template and file")
        if self.smoothquant is not False and self.scheme is None:
            raise ValueError("smoothquant goes with scheme; a template has processors of its own")
        return self


class CalibrationOptions(Calibration):
    """The texts that static ranges are taken from; a repeated measurement adds its number to the
    seed."""

    dataset: PathText = "builtin:calibration"


class Timeouts(_Block):
    """Seconds that a stage may take."""

    quantize: PositiveFloat = 4 * 3600
    evaluate: PositiveFloat = 4 * 3600
    analyze: PositiveFloat = 4 * 3600


class QuantizationOptions(_Block):
    """See the attributes' own models.

    Attributes:
        model: Folder of the float checkpoint, or ``builtin:<name>``.
        quantizer: The quantizer's block: ``type`` and its options.
        evaluation: The evaluator's block: ``type``, ``datasets`` and its options.
        fast_fail: Whether a candidate ends at the first dataset that fails its demand.
        verify: What is asked of the winner before it is delivered. ``measure``: its weights are
            measured once more. ``digest``: they are, byte for byte, those that were measured.
        device: Torch device that quantizes and evaluates.
        threads: Processor threads of a stage; None leaves it to the tool.
        trust_remote_code: Whether Python code that comes with the checkpoint may run.
    """

    type: Literal["quantization"] = "quantization"
    model: PathText
    practice: PracticeOptions
    quantizer: dict[str, Any] = {"type": "llmcompressor"}
    calibration: CalibrationOptions = CalibrationOptions()
    evaluation: dict[str, Any]
    fast_fail: bool = True
    verify: Literal["measure", "digest"] = "measure"
    device: str = "cpu"
    threads: PositiveInt | None = None
    trust_remote_code: bool = False
    timeouts: Timeouts = Timeouts()


class QuantizationSearch(_Block):
    """Keys of the ``search`` block that concern the model and not the strategy.

    Attributes:
        rollback_path: Dot path of a list in the practice that takes the fallback layers, such as
            ``spec.process.1.exclude``; by default the exclude list of the last ``linear_quant``.
        analysis: How layers are ranked. Its calibration is the trial's unless it names its own.
    """

    rollback_path: str | None = None
    analysis: AnalysisOptions = AnalysisOptions()
