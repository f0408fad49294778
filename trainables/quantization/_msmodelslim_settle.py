"""Making what msModelSlim's compressed-tensors saver writes say what it means.

The saver of msModelSlim 26.1 describes every static activation as shifted, leaves out zero points
that are 0, and names all linear layers as the target of every scheme. Engines then allocate zero
points that no file fills, and take the first scheme for all layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from cluster import write_json
from trainables.quantization._compressed import config_groups, ignored
from trainables.quantization._scheme import LinearScheme
from trainables.quantization._verify import listed, tensor_headers

_ZERO_POINTS = "model-zero-points.safetensors"
_INDEX = "model.safetensors.index.json"


def settle_compressed(
    folder: Path, layers: Mapping[str, LinearScheme | None], head: str | None
) -> None:
    """Write schemes, targets and ignored layers into ``config.json``, and absent zero points.

    Changes no tensor that is there, and adds nothing where the tool wrote no configuration.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    described = config.get("quantization_config")
    quantized = [name for name, scheme in layers.items() if scheme is not None]
    if not (quantized and isinstance(described, dict)):
        return
    entries = [
        entry
        for entry in described.get("ignore") or ()
        if not any(listed(name, [entry]) for name in quantized)
    ]
    described["ignore"] = list(dict.fromkeys([*entries, *ignored(layers, head)]))
    described["config_groups"] = config_groups(layers)
    write_json(file, config)
    _add_zero_points(folder, layers)


def _add_zero_points(folder: Path, layers: Mapping[str, LinearScheme | None]) -> None:
    shifted = [
        f"{name}.input_zero_point"
        for name, scheme in layers.items()
        if scheme and scheme.activation and not scheme.activation.symmetric
    ]
    present = tensor_headers(folder).keys()
    absent = [name for name in shifted if name not in present]
    if not absent:
        return
    zeros = {name: np.zeros(1, dtype=np.int8) for name in absent}
    save_file(zeros, folder / _ZERO_POINTS, metadata={"format": "pt"})
    index = folder / _INDEX
    if index.exists():
        document = json.loads(index.read_text(encoding="utf-8"))
        document["weight_map"] |= dict.fromkeys(absent, _ZERO_POINTS)
        write_json(index, document)
