"""Stage program: quantize a model.

Request::

    {"model": folder, "practice": document, "output": folder,
     "quantizer": {"type": ..., ...options}, "calibration": {"dataset", "samples", "length",
     "seed"}, "device": "cpu", "threads": null, "trust_remote_code": false}

``calibration`` may be left out or name less; its dataset is then the practice's. ``threads`` null
leaves their number to the tool. Result::

    {"artifact": folder, "quantized_layers": [...], "fallback_layers": [...],
     "files": {name: sha256}, "sizes": {name: bytes}, "bytes": int, "compression": float,
     "calibration": {"tokens", "digest"}, "seconds": {phase: float},
     "tools": {name: version}, "unmatched_patterns": [...]}

``tokens`` and ``digest`` are null where the tool keeps them to itself. ``unmatched_patterns`` are
those of the practice that cover no layer. The output folder appears when the weights in it are
complete and verified, not before.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster import write_atomic
from trainables._program import StageError, run_program
from trainables.models import (
    WEIGHT_SUFFIXES,
    ModelError,
    checkpoint_digest,
    describe_model,
    new_folder,
    remove_unfinished,
)
from trainables.quantization._calibration import Calibration, CalibrationError
from trainables.quantization._checkpoint import describe_float_model
from trainables.quantization._patterns import unmatched_patterns
from trainables.quantization._practice import (
    LinearQuant,
    PracticeError,
    parse_practice,
    processes,
)
from trainables.quantization._quantizers import (
    Quantized,
    QuantizeJob,
    Quantizer,
    make_quantizer,
)

_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
"""Threads that wait leave their core to other trials. Models and data are on disk, so nothing has
to ask the network, nor to draw bars in a log."""


def quantize(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out ``request``.

    Raises:
        StageError: With class ``input`` for whatever another attempt would not change.
    """
    started = time.monotonic()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quantizer = _quantizer(request["quantizer"])
    output = Path(request["output"])
    job = _job(request)
    digest = _check(job, quantizer, output)
    remove_unfinished(output)
    _check_space(job, output)
    with new_folder(output) as building:
        quantized = quantizer.quantize(job, building)
        checking = time.monotonic()
        _complete(job, building)
        _verify(job, quantizer, building, quantized)
        checked = time.monotonic() - checking
    phases = {**quantized.seconds, "verify": round(checked, 3)}
    total = time.monotonic() - started
    phases["other"] = round(total - sum(phases.values()), 3)
    return _result(job, output, quantized, phases) | {
        "calibration": {"tokens": quantized.calibration_tokens, "digest": digest},
        "tools": quantizer.versions(),
    }


def _check(job: QuantizeJob, quantizer: Quantizer, output: Path) -> str | None:
    """SHA-256 of the calibration data, if everything is there that the work needs."""
    problems = quantizer.problems(job.practice)
    problems += quantizer.obstacles(job.model, output, job.device)
    if problems:
        raise StageError("input", "; ".join(problems), "change the practice or the quantizer")
    try:
        identity = quantizer.calibration_identity(job.practice, job.calibration)
    except CalibrationError as error:
        raise StageError("input", str(error)) from error
    digest: str | None = identity["content"]
    return digest


def _check_space(job: QuantizeJob, output: Path) -> None:
    """Better now than after an hour of work; no quantization is larger than its model."""
    output.parent.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(output.parent).free, describe_model(job.model).weight_bytes
    if free < needed:
        raise StageError(
            "tool",
            f"{output.parent} has {free >> 20} MiB free, the quantized weights may take "
            f"{needed >> 20} MiB",
            "free space there, or choose another storage",
        )


def _job(request: Mapping[str, Any]) -> QuantizeJob:
    try:
        practice = parse_practice(request["practice"])
        wanted = {"dataset": practice.spec.dataset, **(request.get("calibration") or {})}
        calibration = Calibration.model_validate(wanted)
        describe_float_model(Path(request["model"]))
    except (PracticeError, ModelError, ValidationError) as error:
        raise StageError("input", str(error)) from error
    return QuantizeJob(
        model=Path(request["model"]),
        practice=practice,
        calibration=calibration,
        device=request.get("device", "cpu"),
        trust_remote_code=bool(request.get("trust_remote_code", False)),
        threads=request.get("threads"),
    )


def _quantizer(block: Mapping[str, Any]) -> Quantizer:
    try:
        return make_quantizer(block)
    except (KeyError, ImportError, ValidationError) as error:
        said = error.args[0] if isinstance(error, KeyError) else error
        raise StageError("input", f"quantizer: {said}") from error


def _complete(job: QuantizeJob, folder: Path) -> None:
    """Put tokenizer, generation settings and the practice beside the weights.

    The float checkpoint's own files, not what a library makes of them when it saves them again.
    """
    for path in job.model.iterdir():
        own = path.name == "config.json" or path.name.endswith(".index.json")
        if path.is_file() and not (own or path.suffix in WEIGHT_SUFFIXES or path.name[0] == "."):
            shutil.copyfile(path, folder / path.name)
    write_atomic(folder / "practice.yaml", job.practice.yaml())


def _verify(job: QuantizeJob, quantizer: Quantizer, folder: Path, quantized: Quantized) -> None:
    if problems := quantizer.verify(job, folder, quantized):
        raise StageError(
            "tool",
            f"the quantized weights are not what was asked for: {'; '.join(problems[:5])}"
            + (f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""),
            "report this with the stage's log; the weights were not kept",
        )


def _result(
    job: QuantizeJob, output: Path, quantized: Quantized, seconds: Mapping[str, float]
) -> dict[str, Any]:
    size = describe_model(output).weight_bytes
    layers = quantized.layers.items()
    return {
        "artifact": str(output),
        "quantized_layers": [name for name, scheme in layers if scheme is not None],
        "fallback_layers": [name for name, scheme in layers if scheme is None],
        "files": checkpoint_digest(output),
        "sizes": {path.name: path.stat().st_size for path in sorted(output.iterdir())},
        "bytes": size,
        "compression": round(describe_model(job.model).weight_bytes / size, 4),
        "seconds": dict(seconds),
        "unmatched_patterns": _unmatched(job, quantized),
    }


def _unmatched(job: QuantizeJob, quantized: Quantized) -> list[str]:
    names = [*quantized.layers, *([] if quantized.head is None else [quantized.head])]
    return [
        pattern
        for _, process in processes(job.practice)
        if isinstance(process, LinearQuant)
        for pattern in unmatched_patterns((*process.include, *process.exclude), names)
    ]


if __name__ == "__main__":
    run_program(quantize)
