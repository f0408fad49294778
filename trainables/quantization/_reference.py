"""Round-to-nearest INT8 in plain torch: quantizer ``torch_reference``.

A second, small implementation of what llm-compressor does for W8A8. It agrees with it on every
weight and needs nothing but torch and transformers.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trainables.quantization._compressed import practice_problems
from trainables.quantization._practice import Practice, PracticeError
from trainables.quantization._quantizers import (
    Quantized,
    QuantizeJob,
    Quantizer,
    register_quantizer,
)
from trainables.quantization._targets import linear_targets


class ReferenceOptions(BaseModel):
    """There is nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@register_quantizer("torch_reference")
class ReferenceQuantizer(Quantizer):
    """W8A8, static or dynamic, without outlier suppression."""

    Options = ReferenceOptions

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("torch", "transformers")}

    def problems(self, practice: Practice) -> list[str]:
        found = practice_problems(practice, (), "torch_reference")
        try:
            targets = linear_targets(practice)
        except PracticeError as error:
            return [*found, str(error)]
        return found + [
            f"{target.path}.qconfig: torch_reference does W8A8 with weights per channel only"
            for target in targets
            if target.scheme.activation is None
            or target.scheme.weight.granularity != "channel"
            or not target.scheme.weight.symmetric
            or (target.scheme.weight.bits, target.scheme.activation.bits) != (8, 8)
        ]

    def quantize(self, job: QuantizeJob, folder: Path) -> Quantized:
        from trainables.quantization._reference_run import quantize_reference

        return quantize_reference(job, folder)
