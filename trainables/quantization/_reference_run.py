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
from trainables.quantization._fake import Parameters, RangeObserver, weight_parameters
from trainables.quantization._fake import quantize as integers
from trainables.quantization._float_model import (
    FloatModel,
    calibration_batches,
    load_float_model,
    run_batches,
)
from trainables.quantization._phases import Phases
from trainables.quantization._quantizers import Quantized, QuantizeJob


def quantize_reference(job: QuantizeJob, folder: Path) -> Quantized:
    """What :meth:`ReferenceQuantizer.quantize` promises."""
    phases = Phases()
    with phases("load"):
        loaded = load_float_model(job)
        if any(parameter.ndim > 2 for parameter in loaded.model.parameters()):
            message = "torch_reference knows no models with joined experts or convolutions"
            raise StageError("input", message, "use the quantizer llmcompressor")
        batches = calibration_batches(loaded, job.calibration) if loaded.needs_ranges else []
    with phases("calibrate"):
        ranges = _observe(loaded, batches)
    with phases("quantize"):
        state = _quantized_state(loaded, ranges)
    with phases("save"):
        save_torch_state_dict(
            state,
            folder,
            max_shard_size=shard_size(job.practice),
            metadata={"format": "pt"},
            shared_tensors_to_discard=list(loaded.model._tied_weights_keys or ()),
        )
        _write_config(job.model, loaded, folder)
    return Quantized(
        layers=loaded.layers,
        head=loaded.head,
        seconds=phases.seconds,
        calibration_tokens=sum(ids.numel() for ids in batches),
    )


def _observe(loaded: FloatModel, batches: list[Tensor]) -> dict[str, Parameters]:
    """Scale and zero point of the input of every layer with a static activation."""
    static = {
        name: scheme.activation
        for name, scheme in loaded.layers.items()
        if scheme and scheme.activation and not scheme.activation.dynamic
    }
    observers = {name: RangeObserver() for name in static}

    def watch(name: str) -> Any:
        return lambda module, inputs: observers[name].update(inputs[0])

    hooks = [
        loaded.model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in static
    ]
    run_batches(loaded.model, batches)
    for hook in hooks:
        hook.remove()
    return {name: observers[name].parameters(scheme) for name, scheme in static.items()}


def _quantized_state(loaded: FloatModel, ranges: Mapping[str, Parameters]) -> dict[str, Tensor]:
    """The model's tensors, quantized layers in their compressed form."""
    state: dict[str, Tensor] = dict(loaded.model.state_dict())
    for name, scheme in loaded.layers.items():
        if scheme is None:
            continue
        weight = state[f"{name}.weight"]
        scale, zero_point = weight_parameters(weight, scheme.weight)
        state[f"{name}.weight"] = integers(weight, scheme.weight, scale, zero_point)
        state[f"{name}.weight_scale"] = scale
        if name in ranges:
            state[f"{name}.input_scale"], offset = ranges[name]
            if scheme.activation is not None and not scheme.activation.symmetric:
                state[f"{name}.input_zero_point"] = offset
    return state


def _write_config(source: Path, loaded: FloatModel, folder: Path) -> None:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": config_groups(loaded.layers),
        "ignore": ignored(loaded.layers, loaded.head),
    }
    write_json(folder / "config.json", config)
