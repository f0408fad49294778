"""Loading of a checkpoint, and proof that what was loaded is what the checkpoint declares.

Loaders are forgiving: missing tensors are initialised at random, and a layer whose activations
should be quantized may compute in float. Either would pass for a measurement, so both end the
stage instead.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from trainables._program import StageError
from trainables.models import ModelError, read_header, weight_files
from trainables.quantization import LinearScheme, TensorScheme
from trainables.quantization._fake import Parameters, fake_activation, quantize_dequantize

_PROBE_ROWS = 8
_CHECKED_ROWS = 8
_LARGEST_SHARE = 0.5
"""Of the error that quantizing the activation makes, how much a layer may miss: implementations
round differently in 16 bits, but a layer that does not quantize misses all of it."""
_LARGEST_STEP = 0.1
"""How far, in quantization steps and on average, weights may be from their grid. Weights that are
not on it are a quarter of a step away."""


def load_model(
    folder: str,
    *,
    dtype: Literal["float32", "bfloat16", "float16", "auto"],
    device: str,
    trust_remote_code: bool,
) -> tuple[Any, Any]:
    """Model, in evaluation mode on ``device``, and tokenizer of a checkpoint folder.

    Raises:
        StageError: It cannot be loaded, or its files lack tensors of the model.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise StageError("input", f"{folder} cannot be loaded: {error}") from error
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise StageError(
            "input",
            f"{folder} lacks {len(absent)} tensors of its model or has them in another shape, "
            f"the first is {absent[0]}",
        )
    return _on_device(model.eval(), device), tokenizer


def _on_device(model: Any, device: str) -> Any:
    try:
        if device.startswith("npu"):
            importlib.import_module("torch_npu")
        return model.to(device)
    except (ImportError, RuntimeError, AssertionError) as error:
        if "out of memory" in str(error).lower():
            raise
        message = f"the device {device!r} cannot be used: {error}"
        raise StageError("device", message, "look at the devices with: tuner doctor") from error


def context_length(model: Any) -> int:
    """Longest sequence the model's configuration allows, in tokens."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else 1 << 30


def verify_scheme(model: Any, folder: Path) -> dict[str, Any]:
    """Check, layer by layer, that the loaded model computes as its configuration declares.

    Every layer the configuration declares quantized is given a small random input. Its output
    must be that of the declared activation quantization, recomputed here, and its weights must lie
    on the declared grid. Schemes this package cannot compute (FP8, say) are only checked for
    having an effect on the activation. Weights that are still compressed are decompressed.

    Returns:
        ``{"scheme": quant_method or "float", "layers": checked, "activations": of these with
        quantized activations}``; no counts for methods other than compressed-tensors, which are
        not checked.

    Raises:
        StageError: Some layer does not, or the configuration declares more than is checked here.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    declared = config.get("quantization_config")
    if not declared:
        return {"scheme": "float"}
    method = str(declared.get("quant_method"))
    if method != "compressed-tensors":
        return {"scheme": method}
    _refuse_unchecked(declared)
    _decompress(model)
    layers = _declared_layers(model, declared)
    activations = sum(bool(group.get("input_activations")) for _, group in layers.values())
    _check_count(folder, len(layers), quantizes_activations=activations > 0)
    with torch.inference_mode():
        faults = [
            f"{name} {fault}"
            for name, (module, group) in layers.items()
            if (fault := _fault(module, group))
        ]
    if faults:
        raise StageError(
            "tool",
            f"the loaded model does not compute as its quantization_config declares: "
            f"{len(faults)} of {len(layers)} layers are wrong, the first: {faults[0]}",
            "check that the installed compressed-tensors and transformers support this scheme",
        )
    return {"scheme": method, "layers": len(layers), "activations": activations}


def _refuse_unchecked(declared: Mapping[str, Any]) -> None:
    found = [key for key in ("kv_cache_scheme", "transform_config") if declared.get(key)]
    if any(group.get("output_activations") for group in declared["config_groups"].values()):
        found.append("output_activations")
    if found:
        raise StageError(
            "input",
            f"whether {', '.join(found)} of the quantization_config takes effect in transformers "
            "cannot be verified",
            "evaluate this model with an engine that supports it",
        )


def _decompress(model: Any) -> None:
    """Some releases of transformers decompress weights at the first forward pass only."""
    with torch.no_grad():
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device))


def _declared_layers(model: Any, declared: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Name to (module, config group) of every layer that should be quantized."""
    from compressed_tensors.utils import match_named_modules

    return {
        name: (module, group)
        for group in declared["config_groups"].values()
        for name, module in match_named_modules(model, group["targets"], declared.get("ignore"))
    }


def _check_count(folder: Path, declared: int, *, quantizes_activations: bool) -> None:
    """A loader may merge layers (experts, say), and what it merged computes in float."""
    try:
        keys = {key for name in weight_files(folder) for key in _keys(folder / name)}
    except ModelError as error:
        raise StageError("input", str(error)) from error
    stored = sum(key.endswith(".weight_scale") for key in keys)
    if declared == 0 or (quantizes_activations and declared < stored):
        raise StageError(
            "tool",
            f"{folder} holds the scales of {stored} quantized layers, "
            f"but only {declared} layers of the loaded model are quantized",
            "evaluate this model with an engine that supports it",
        )


def _keys(file: Path) -> list[str]:
    return list(read_header(file)) if file.suffix == ".safetensors" else []


def _fault(module: Any, group: Mapping[str, Any]) -> str:
    """What is wrong with one quantized linear layer; empty when nothing is."""
    scheme = _linear_scheme(group)
    weight: Tensor = module.weight
    given = _qparams(module, "input")
    probe = torch.randn(
        (1, _PROBE_ROWS, weight.shape[-1]), generator=torch.Generator().manual_seed(0)
    ).to(weight)
    if given is not None:
        probe = probe * (given[0] * 2.0 ** (group["input_activations"]["num_bits"] - 2))
    output = module(probe)
    plain = torch.nn.functional.linear(probe, weight, module.bias)
    if scheme is None:
        same = bool(group.get("input_activations")) and torch.equal(output, plain)
        return "does not quantize its activations" if same else ""
    if scheme.activation is not None:
        quantized = fake_activation(probe, scheme.activation, given)
        expected = torch.nn.functional.linear(quantized, weight, module.bias)
        error, miss = (plain - expected).norm(), (output - expected).norm()
        if error == 0 or miss > _LARGEST_SHARE * error:
            return "does not quantize its activations"
    return _weight_fault(module, scheme.weight)


def _weight_fault(module: Any, scheme: TensorScheme) -> str:
    weight = module.weight[:_CHECKED_ROWS].float()
    found = _qparams(module, "weight")
    if found is None:
        return "has no weight scale"
    scale, zero_point = (
        each if scheme.granularity == "tensor" else each[:_CHECKED_ROWS] for each in found
    )
    distance = (quantize_dequantize(weight, scheme, scale.float(), zero_point) - weight).abs()
    if distance.mean() > _LARGEST_STEP * scale.float().mean():
        return "has weights that are not quantized"
    return ""


def _qparams(module: Any, name: Literal["weight", "input"]) -> Parameters | None:
    scale = getattr(module, f"{name}_scale", None)
    if scale is None:
        return None
    zero_point = getattr(module, f"{name}_zero_point", None)
    return scale, torch.zeros_like(scale) if zero_point is None else zero_point


def _linear_scheme(group: Mapping[str, Any]) -> LinearScheme | None:
    """The scheme of a config group, if this package can compute it."""
    try:
        activation = group.get("input_activations")
        return LinearScheme(
            _tensor_scheme(group["weights"]), _tensor_scheme(activation) if activation else None
        )
    except (ValueError, TypeError):
        return None


def _tensor_scheme(arguments: Mapping[str, Any]) -> TensorScheme:
    if arguments["type"] != "int":
        raise ValueError("only integers are computed here")
    return TensorScheme(
        arguments["num_bits"],
        arguments["strategy"],
        symmetric=arguments["symmetric"],
        dynamic=bool(arguments.get("dynamic")),
        group_size=arguments.get("group_size"),
    )
