"""The part of the quantizer ``llmcompressor`` that imports it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from llmcompressor import oneshot
from llmcompressor.modeling.moe.linearize import linearize_moe
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from torch import Tensor
from torch.utils.data import DataLoader

from trainables.quantization._compressed import config_groups, ignored, shard_size
from trainables.quantization._float_model import (
    calibration_batches,
    load_float_model,
)
from trainables.quantization._llmcompressor import smoothing_strength
from trainables.quantization._phases import Phases
from trainables.quantization._practice import OtherProcess, processes
from trainables.quantization._quantizers import Quantized, QuantizeJob


def quantize_llmcompressor(job: QuantizeJob, folder: Path, pipeline: str) -> Quantized:
    """What :meth:`LlmCompressorQuantizer.quantize` promises.

    SmoothQuant has a pass of its own before quantization. In one recipe both watch the same pass,
    and static activation scales are those of the activations before smoothing.
    """
    phases = Phases()
    smoothing = [
        smoothing_strength(process)
        for _, process in processes(job.practice)
        if isinstance(process, OtherProcess)
    ]
    with phases("load"):
        loaded = load_float_model(job, prepare=linearize_moe, whole=pipeline == "basic")
        calibrated = bool(smoothing) or loaded.needs_ranges
        batches = calibration_batches(loaded, job.calibration) if calibrated else []
    shared = {"model": loaded.model, "tokenizer": loaded.tokenizer, "log_dir": None}
    data = {"dataset": _loader(batches), "pipeline": pipeline}
    with phases("smooth"):
        for strength in smoothing:
            oneshot(recipe=SmoothQuantModifier(smoothing_strength=strength), **shared, **data)
    with phases("quantize"):
        recipe = QuantizationModifier(
            config_groups=config_groups(loaded.layers), ignore=ignored(loaded.layers, loaded.head)
        )
        oneshot(recipe=recipe, **shared, **(data if loaded.needs_ranges else {}))
    with phases("save"):
        loaded.model.save_pretrained(
            folder, save_compressed=True, max_shard_size=shard_size(job.practice)
        )
        (folder / "recipe.yaml").unlink(missing_ok=True)
    return Quantized(
        layers=loaded.layers,
        head=loaded.head,
        seconds=phases.seconds,
        calibration_tokens=sum(ids.numel() for ids in batches),
    )


def _loader(batches: list[Tensor]) -> DataLoader[dict[str, Any]]:
    """The batches as llm-compressor wants them; one position of logits is as good as all."""
    last = torch.tensor([-1])
    rows = [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "logits_to_keep": last}
        for ids in batches
    ]
    return DataLoader(rows, batch_size=None)
