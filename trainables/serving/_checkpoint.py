"""What a checkpoint weighs, read from its headers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from trainables._trial import Json
from trainables.models import ModelError, read_header, weight_files
from trainables.serving._memory import ModelShape


def weigh(folder: Path) -> tuple[Mapping[str, Json], ModelShape] | None:
    """The checkpoint's ``config.json`` and its shape; None where memory cannot be judged."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = [
            tensor
            for name in weight_files(folder)
            if name.endswith(".safetensors")
            for tensor in read_header(folder / name).values()
        ]
    except (OSError, ValueError, ModelError):
        return None
    if not isinstance(config, dict) or not tensors:
        return None
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors)
    ends = (tensor["data_offsets"] for tensor in tensors)
    shape = ModelShape.of(config, parameters, sum(end - begin for begin, end in ends))
    return None if shape is None else (config, shape)
