"""What a checkpoint folder says about itself, without loading it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.models._builtin import ModelError

_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_HEADER_LIMIT = 100 << 20


@dataclass(frozen=True)
class ModelFacts:
    """Facts from ``config.json`` and the weight files.

    Attributes:
        architecture: First entry of ``architectures``; empty when there is none.
        layers: Decoder layers; None when the configuration does not say.
        hidden_size: Width of the residual stream; None when the configuration does not say.
        dtype: Type the weights are meant to be loaded in, such as ``bfloat16``; empty if unsaid.
        quantization: ``quant_method`` of a quantized checkpoint; None for a float one.
        weight_bytes: Size of all weight files in bytes.
        weight_files: Names of the weight files.
    """

    architecture: str
    layers: int | None
    hidden_size: int | None
    dtype: str
    quantization: str | None
    weight_bytes: int
    weight_files: tuple[str, ...]


def describe_model(folder: Path) -> ModelFacts:
    """Read what the checkpoint in ``folder`` is, and check that its weight files are whole.

    Raises:
        ModelError: There is no such folder, its configuration or index cannot be read, a weight
            file is missing, or a safetensors file is shorter or longer than its header says.
    """
    if not folder.is_dir():
        raise ModelError(f"the model folder {folder} does not exist")
    config = _read_json(folder / "config.json")
    names = weight_files(folder)
    for name in names:
        if name.endswith(".safetensors"):
            read_header(folder / name)
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, dict) else config
    architectures = config.get("architectures") or [""]
    return ModelFacts(
        architecture=str(architectures[0]),
        layers=text.get("num_hidden_layers"),
        hidden_size=text.get("hidden_size"),
        dtype=str(text.get("dtype") or text.get("torch_dtype") or ""),
        quantization=(config.get("quantization_config") or {}).get("quant_method"),
        weight_bytes=sum((folder / name).stat().st_size for name in names),
        weight_files=names,
    )


def weight_files(folder: Path) -> tuple[str, ...]:
    """Names of the weight files of a checkpoint: those its index lists, else those there are.

    Raises:
        ModelError: The index lists a file that is not there, or there are no weights.
    """
    for index in _INDEX_FILES:
        if (folder / index).exists():
            listed = _read_json(folder / index).get("weight_map")
            if not isinstance(listed, dict) or not listed:
                raise ModelError(f"{folder / index} has no weight_map; download the model again")
            names = tuple(sorted({str(name) for name in listed.values()}))
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise ModelError(
                    f"{folder}: {len(missing)} of {len(names)} weight files of {index} are "
                    f"missing, the first is {missing[0]}; download the model again"
                )
            return names
    for pattern in ("*.safetensors", "*.bin"):
        if names := tuple(sorted(path.name for path in folder.glob(pattern))):
            return names
    raise ModelError(f"{folder} has no weights (no *.safetensors, no *.bin)")


def read_header(file: Path) -> dict[str, dict[str, Any]]:
    """Tensors of a safetensors file: name to ``{dtype, shape, data_offsets}``.

    Raises:
        ModelError: The file is not safetensors, or its size is not what its header says.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_HEADER_LIMIT, size):
                raise ModelError(f"{file} is truncated or no safetensors file")
            header: dict[str, Any] = json.loads(stream.read(length))
    except (struct.error, ValueError) as error:
        raise ModelError(f"{file} is truncated or no safetensors file: {error}") from error
    header.pop("__metadata__", None)
    expected = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
    if size != expected:
        raise ModelError(
            f"{file} has {size} bytes where its header says {expected}; "
            "it was not written or downloaded to its end"
        )
    return header


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{file} is missing: this is no Hugging Face checkpoint") from error
    except ValueError as error:
        raise ModelError(f"{file} is no valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{file} holds a {type(document).__name__} where an object is expected")
    return document
