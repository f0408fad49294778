"""The float model a quantizer starts from, and the tokens it is shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainables._program import StageError
from trainables.models import ModelError
from trainables.quantization._calibration import Calibration, CalibrationError, shuffled_texts
from trainables.quantization._checkpoint import check_groups, describe_float_model
from trainables.quantization._practice import PracticeError
from trainables.quantization._quantizers import QuantizeJob
from trainables.quantization._scheme import LinearScheme
from trainables.quantization._targets import layer_schemes

_TOKENS_PER_PASS = 2048


@dataclass(frozen=True)
class FloatModel:
    """A loaded checkpoint and what the practice makes of its linear layers.

    Attributes:
        model: In evaluation mode, in the dtype of the checkpoint.
        tokenizer: The checkpoint's.
        layers: Every linear layer but the output head, and its scheme; None for float.
        head: Name of the output head; None when there is none.
    """

    model: Any
    tokenizer: Any
    layers: Mapping[str, LinearScheme | None]
    head: str | None

    @property
    def needs_ranges(self) -> bool:
        """Whether any activation has a static scale, which takes calibration."""
        activations = (scheme.activation for scheme in self.layers.values() if scheme)
        return any(scheme is not None and not scheme.dynamic for scheme in activations)


def load_float_model(
    job: QuantizeJob,
    *,
    prepare: Callable[[Any], Any] = lambda model: model,
    whole: bool = True,
) -> FloatModel:
    """Load the checkpoint of ``job`` and plan its layers.

    Args:
        job: What is to be quantized.
        prepare: Applied to the loaded model; takes joined experts apart into linear layers, say.
        whole: Move the model to the device as a whole. Otherwise it stays in main memory, for
            tools that move its layers one by one.

    Raises:
        StageError: The checkpoint is unreadable or quantized already, the device is not there,
            or the practice does not fit the layers.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    try:
        describe_float_model(job.model)
        options = {"trust_remote_code": job.trust_remote_code, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(job.model, **options)
        model = prepare(AutoModelForCausalLM.from_pretrained(job.model, dtype="auto", **options))
    except (ModelError, OSError, ValueError, ImportError) as error:
        raise StageError("input", f"the model cannot be loaded: {error}") from error
    device = _device(job.device)
    model = (model.to(device) if whole else model).eval().requires_grad_(False)
    model.config.use_cache = False
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    output = model.get_output_embeddings()
    head = next((name for name, module in linears.items() if module is output), None)
    linears.pop(head, None)
    try:
        layers = layer_schemes(job.practice, linears)
        _check_layers(layers, linears)
    except PracticeError as error:
        raise StageError("input", str(error)) from error
    return FloatModel(model, tokenizer, layers, head)


def _device(name: str) -> torch.device:
    """The device, the first one where several are named."""
    try:
        if name.startswith("npu"):
            importlib.import_module("torch_npu")
        device = torch.device(name.partition(",")[0])
        torch.empty(0, device=device)
    except (ImportError, RuntimeError, AssertionError) as error:
        message = f"the device {name!r} cannot be used: {error}"
        raise StageError("device", message, "look at the devices with: tuner doctor") from error
    return device


def _check_layers(layers: Mapping[str, LinearScheme | None], linears: Mapping[str, Any]) -> None:
    if not any(layers.values()):
        raise PracticeError("the practice leaves every linear layer of the model in float")
    check_groups({name: scheme is not None for name, scheme in layers.items()})
    for name, scheme in layers.items():
        inputs = linears[name].in_features
        size = scheme.weight.group_size if scheme else None
        if size and inputs % size:
            fitting = [known for known in (128, 64, 32) if inputs % known == 0]
            raise PracticeError(
                f"{name} has {inputs} inputs, which groups of {size} do not divide; "
                f"use a group size of {' or '.join(map(str, fitting)) or 'another scheme'}"
            )


def calibration_batches(model: FloatModel, calibration: Calibration) -> list[Tensor]:
    """Token ids, each ``(sequences, length)``: the shuffled texts end to end, cut into sequences.

    Without padding, which would count as activations; texts are parted by the end-of-text token.
    Fewer sequences when the texts do not suffice, one shorter one when they fill none.

    Raises:
        StageError: The data cannot be read.
    """
    try:
        stream = list(_tokens(model.tokenizer, calibration))
    except CalibrationError as error:
        raise StageError("input", str(error)) from error
    length = min(calibration.length, len(stream))
    count = min(calibration.samples, len(stream) // length)
    ids = torch.tensor(stream[: count * length], device=model.model.device).view(count, length)
    return list(ids.split(max(1, _TOKENS_PER_PASS // length)))


def _tokens(tokenizer: Any, calibration: Calibration) -> Iterator[int]:
    wanted = calibration.samples * calibration.length
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for text in shuffled_texts(calibration):
        ids = [*tokenizer(text)["input_ids"], *end]
        yield from ids[:wanted]
        wanted -= len(ids)
        if wanted <= 0:
            return


def run_batches(model: Any, batches: list[Tensor]) -> None:
    """Show the model its calibration tokens; only hooks see what comes of it."""
    with torch.inference_mode():
        for ids in batches:
            model(input_ids=ids, logits_to_keep=1)
