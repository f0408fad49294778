"""Quantizer ``llmcompressor``: the tool of the vLLM project, which writes what vLLM loads."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainables.quantization._compressed import practice_problems
from trainables.quantization._practice import OtherProcess, Practice, PracticeError, processes
from trainables.quantization._quantizers import (
    Quantized,
    QuantizeJob,
    Quantizer,
    register_quantizer,
)
from trainables.quantization._targets import linear_targets

_SMOOTH_OPTIONS = frozenset({"type", "alpha", "symmetric", "include", "exclude"})


class LlmCompressorOptions(BaseModel):
    """Options of the quantizer.

    Attributes:
        pipeline: ``basic`` keeps the whole model on the device; ``sequential`` moves one decoder
            layer after the other there, for models that do not fit, and calibrates each with
            what the quantized layers before it put out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["basic", "sequential"] = "basic"


@register_quantizer("llmcompressor")
class LlmCompressorQuantizer(Quantizer):
    """Weights and activations in integers by llm-compressor, with SmoothQuant if asked for."""

    Options = LlmCompressorOptions

    def versions(self) -> dict[str, str]:
        packages = ("llmcompressor", "compressed-tensors", "torch", "transformers")
        return {name: version(name) for name in packages}

    def problems(self, practice: Practice) -> list[str]:
        found = practice_problems(practice, ("smooth_quant",), "llmcompressor")
        try:
            linear_targets(practice)
        except PracticeError as error:
            found.append(str(error))
        return found + [
            f"{path}: {fault}"
            for path, process in processes(practice)
            if isinstance(process, OtherProcess) and process.type == "smooth_quant"
            for fault in _smooth_faults(process)
        ]

    def quantize(self, job: QuantizeJob, folder: Path) -> Quantized:
        from trainables.quantization._llmcompressor_run import quantize_llmcompressor

        return quantize_llmcompressor(job, folder, self.options.pipeline)


def smoothing_strength(process: OtherProcess) -> float:
    """Alpha of a ``smooth_quant`` processor; msModelSlim's default when it names none."""
    return float((process.model_extra or {}).get("alpha", 0.5))


def _smooth_faults(process: OtherProcess) -> list[str]:
    extra = process.model_extra or {}
    faults = [f"{key} is not an option of smooth_quant" for key in extra.keys() - _SMOOTH_OPTIONS]
    if extra.get("symmetric", True) is not True:
        faults.append("llmcompressor smooths without a shift: symmetric must be true")
    if extra.get("include") or extra.get("exclude"):
        faults.append("llmcompressor smooths all decoder layers: no include or exclude")
    try:
        strength = smoothing_strength(process)
    except (TypeError, ValueError):
        return [*faults, f"alpha must be a number, not {extra['alpha']!r}"]
    if not 0 <= strength <= 1:
        faults.append(f"alpha must be between 0 and 1, not {strength:g}")
    return faults
