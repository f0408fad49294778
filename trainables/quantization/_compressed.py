"""The compressed-tensors form of a quantized checkpoint, which vLLM and transformers load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.quantization._practice import OtherProcess, Practice, processes
from trainables.quantization._scheme import LinearScheme, TensorScheme

FORMAT = "compressed_tensors"
_DEFAULT_SHARD_GB = 4


def tensor_arguments(scheme: TensorScheme, observer: str) -> dict[str, Any]:
    """``QuantizationArgs`` of one tensor; ``observer`` is llm-compressor's name for the method."""
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "strategy": scheme.granularity,
        "group_size": scheme.group_size,
        "symmetric": scheme.symmetric,
        "dynamic": scheme.dynamic,
        "observer": None if scheme.dynamic else observer,
    }


def config_groups(layers: Mapping[str, LinearScheme | None]) -> dict[str, dict[str, Any]]:
    """``config_groups`` of a quantization config: one group for every scheme in use.

    A single group targets every linear layer, so that engines need no names; several name theirs.
    """
    schemes = list(dict.fromkeys(scheme for scheme in layers.values() if scheme is not None))
    return {
        f"group_{number}": {
            "targets": ["Linear"]
            if len(schemes) == 1
            else [name for name, used in layers.items() if used == scheme],
            "weights": tensor_arguments(scheme.weight, f"memoryless_{scheme.weight.method}"),
            "input_activations": scheme.activation
            and tensor_arguments(scheme.activation, "static_minmax"),
        }
        for number, scheme in enumerate(schemes)
    }


def ignored(layers: Mapping[str, LinearScheme | None], head: str | None) -> list[str]:
    """``ignore`` of a quantization config: every linear layer that stays in float."""
    floats = [name for name, scheme in layers.items() if scheme is None]
    return floats if head is None else [*floats, head]


def shard_size(practice: Practice) -> str:
    """Largest size of a weight file, from ``part_file_size`` (GB) of the practice's saver."""
    sizes = [(saver.model_extra or {}).get("part_file_size") for saver in practice.spec.save]
    return f"{next((size for size in sizes if size), _DEFAULT_SHARD_GB)}GB"


def practice_problems(practice: Practice, processors: Sequence[str], tool: str) -> list[str]:
    """What a quantizer that writes this form and knows ``processors`` cannot do of ``practice``."""
    problems = [
        f"spec.save.{index}.type: {tool} writes {FORMAT}, not {saver.type}"
        for index, saver in enumerate(practice.spec.save)
        if saver.type != FORMAT
    ]
    if practice.spec.prior:
        problems.append(f"spec.prior: {tool} knows no prior stages")
    known = ", ".join(["linear_quant", *processors])
    return problems + [
        f"{path}.type: {tool} cannot do {process.type}, only {known}"
        for path, process in processes(practice)
        if isinstance(process, OtherProcess) and process.type not in processors
    ]
