"""The work of the quantizer ``msmodelslim``: its inputs, its run, and what it was to do."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cluster import write_atomic
from trainables._program import StageError
from trainables.models import ModelError, describe_model
from trainables.quantization._ascend import ascend_type, quantized_layers, verify_ascend
from trainables.quantization._checkpoint import check_groups
from trainables.quantization._device import parse_device
from trainables.quantization._msmodelslim_call import engine_dataset, flag, run_msmodelslim
from trainables.quantization._msmodelslim_plan import (
    ASCEND,
    LinearNames,
    compressed_scheme,
    covered_by,
    engine_practice,
)
from trainables.quantization._msmodelslim_settle import settle_compressed
from trainables.quantization._msmodelslim_tool import MsModelSlimOptions
from trainables.quantization._phases import Phases
from trainables.quantization._practice import LinearQConfig, LinearQuant, PracticeError
from trainables.quantization._quantizers import Quantized, QuantizeJob
from trainables.quantization._verify import tensor_headers, verify_artifact

T = TypeVar("T")


def quantize_msmodelslim(job: QuantizeJob, folder: Path, options: MsModelSlimOptions) -> Quantized:
    """What :meth:`MsModelSlimQuantizer.quantize` promises."""
    phases, names = Phases(), _linear_names(job.model)
    _check_groups(job, names)
    with _inputs(job, folder) as config, phases("quantize"):
        arguments = {
            "model_path": str(job.model.resolve()),
            "save_path": str(folder.resolve()),
            "device": str(parse_device(job.device)),
            "model_type": options.model_type,
            "config_path": str(config),
            "trust_remote_code": flag(job.trust_remote_code),
        }
        command = [text for key, value in arguments.items() for text in (f"--{key}", value)]
        run_msmodelslim(options, ["quant", *command], threads=job.threads)
    for copied in folder.glob("*_best_practice.yaml"):
        copied.unlink()  # the practice once more, with the paths of this run in it
    with phases("settle"):
        try:
            describe_model(folder)
            return _quantized(job, folder, names, phases)
        except ModelError as error:
            message = f"msmodelslim reports success, but left no whole checkpoint: {error}"
            raise StageError("tool", message, "see the stage's log") from error


def verify_msmodelslim(job: QuantizeJob, folder: Path, quantized: Quantized) -> list[str]:
    """What is wrong with the weights in ``folder``, in the form of the practice's saver."""
    spare = _linear_names(job.model).is_spare
    check = verify_ascend if _writes_ascend(job) else verify_artifact
    return check(folder, job.model, quantized, spare)


def _writes_ascend(job: QuantizeJob) -> bool:
    return any(saver.type == ASCEND for saver in job.practice.spec.save)


def _linear_names(model: Path) -> LinearNames:
    try:
        return LinearNames.of(tensor_headers(model), describe_model(model).layers)
    except ModelError as error:
        raise StageError("input", str(error)) from error


def _check_groups(job: QuantizeJob, names: LinearNames) -> None:
    covered = covered_by(job.practice, names.layers)
    try:
        check_groups({name: target is not None for name, target in covered.items()})
    except PracticeError as error:
        raise StageError("input", str(error)) from error


@contextmanager
def _inputs(job: QuantizeJob, folder: Path) -> Iterator[Path]:
    """The practice file for the tool, and the calibration file it names, while the block runs.

    They lie beside ``folder`` under its name, so that what a killed run leaves is found again.
    """
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as made:
        config = Path(made).resolve() / "practice.yaml"
        dataset = engine_dataset(job.practice, job.calibration, config.parent)
        write_atomic(config, engine_practice(job.practice, dataset).yaml())
        yield config


def _quantized(job: QuantizeJob, folder: Path, names: LinearNames, phases: Phases) -> Quantized:
    """What the tool was to do, layer by layer; the configuration is made to say the same."""
    if _writes_ascend(job):
        found = quantized_layers(folder)
        plan = Quantized(_planned(job, names, found, ascend_type), _head(names, found))
    else:
        headers = tensor_headers(folder).items()
        found = {n.removesuffix(".weight") for n, tensor in headers if tensor["dtype"] == "I8"}
        layers, head = _planned(job, names, found, compressed_scheme), _head(names, found)
        settle_compressed(folder, layers, head)
        plan = Quantized(layers, head)
    return Quantized(plan.layers, plan.head, phases.seconds, calibration_tokens=None)


def _head(names: LinearNames, found: set[str]) -> str | None:
    return None if names.head in found else names.head


def _planned(
    job: QuantizeJob,
    names: LinearNames,
    found: set[str],
    scheme_of: Callable[[LinearQConfig], T | None],
) -> dict[str, T | None]:
    """The scheme every layer has to have, given which the tool ``found`` to quantize.

    In float are the layers no ``linear_quant`` takes, and those that may be linear for us and are
    not for the tool.
    """
    every = [*names.layers, *sorted(found - {*names.layers})]
    covered = covered_by(job.practice, every)
    taken = {name: target for name, target in covered.items() if isinstance(target, LinearQuant)}
    quantized = names.must_be_quantized(taken, found) | found
    return {
        name: scheme_of(taken[name].qconfig) if name in taken and name in quantized else None
        for name in every
    }
