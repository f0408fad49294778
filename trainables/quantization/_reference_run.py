"""The torch part of the quantizer ``torch_reference``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from cluster import write_json
from trainables._program import StageError
from trainables.quantization._compressed import config_groups, ignored, shard_size
from trainables.quantization._fake import Parameters, RangeObserver, quantize as to_integers
from trainables.quantization._fake import weight_parameters
from trainables.quantization._float_model import (
    FloatModel,
    Phases,
    calibration_batches,
    load_float_model,
    run_batches,
    tool_versions,
)
from trainables.quantization._quantizers import Quantized, QuantizeJob


def quantize(job: QuantizeJob, folder: Path) -> Quantized:
    """Quantize as :meth:`ReferenceQuantizer.quantize` promises."""
    phases = Phases()
    with phases("load"):
        loaded = load_float_model(job)
        batches = calibration_batches(loaded, job.calibration)
    with phases("calibrate"):
        ranges = observe_ranges(loaded, batches)
    with phases("quantize"):
        state = quantized_state(loaded, ranges)
    with phases("save"):
        discard = list(getattr(loaded.model, "_tied_weights_keys", None) or ())
        save_torch_state_dict(
            state,
            folder,
            max_shard_size=shard_size(job.practice),
            metadata={"format": "pt"},
            shared_tensors_to_discard=discard,
        )
        _write_config(job.model, loaded, folder)
    return Quantized(
        layers=loaded.layers,
        head=loaded.head,
        seconds=phases.seconds,
        calibration_tokens=sum(ids.numel() for ids in batches) if ranges else 0,
        tools=tool_versions("torch", "transformers"),
    )
