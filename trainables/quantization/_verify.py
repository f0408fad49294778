"""Whether a quantized checkpoint on disk is what its practice asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from trainables.models import ModelError, read_header, weight_files
from trainables.quantization._quantizers import Quantized
from trainables.quantization._scheme import LinearScheme

_EXPERT = re.compile(r"(.+)\.\d+\.[^.]+")
FLOATS = frozenset({"F32", "F16", "BF16"})
_NUMPY_TYPES = frozenset({"F64", "F32", "F16", "I64", "U8"})


def verify_artifact(
    folder: Path,
    source: Path,
    quantized: Quantized,
    spare: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """What is wrong with the compressed-tensors weights in ``folder``; empty when nothing is.

    Looks at the tensors themselves, not at what the configuration claims of them: all files of
    the index are there and whole, every layer is in integers or in float as planned, all scales
    are positive and finite, and nothing the float checkpoint has is missing, except tensors for
    which ``spare`` is true.
    """
    try:
        tensors = tensor_headers(folder)
        known = tensor_headers(source)
    except ModelError as error:
        return [str(error)]
    problems = [
        f"{name} {fault}"
        for name, scheme in quantized.layers.items()
        for fault in _layer_faults(name, scheme, tensors)
    ]
    problems += index_faults(folder, tensors)
    problems += missing_tensors(known, tensors, quantized, spare)
    problems += _config_faults(folder, quantized)
    problems += _bias_faults(folder, tensors.keys() - known.keys())
    return problems + list(scale_faults(folder))


def tensor_headers(folder: Path) -> dict[str, dict[str, Any]]:
    """Header entries of all safetensors files of a checkpoint; files of other forms have none."""
    found: dict[str, dict[str, Any]] = {}
    for name in weight_files(folder):
        if name.endswith(".safetensors"):
            found |= read_header(folder / name)
    return found


def index_faults(folder: Path, tensors: Mapping[str, Any]) -> Iterator[str]:
    """Tensors that an index lists and no file has."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for name in sorted(listed.keys() - tensors.keys()):
            yield f"{index.name} lists {name}, which no file has"


def missing_tensors(
    known: Mapping[str, dict[str, Any]],
    tensors: Mapping[str, dict[str, Any]],
    quantized: Quantized,
    spare: Callable[[str], bool],
) -> Iterator[str]:
    """Tensors of the float checkpoint that should be in the other just as they are, and are not.

    Apart from the head, which may be tied, and from experts joined in one tensor, which are
    quantized one by one.
    """
    changed = {f"{name}.weight" for name, scheme in quantized.layers.items() if scheme}
    experts = {match[1] for name in quantized.layers if (match := _EXPERT.fullmatch(name))}
    for name, tensor in known.items():
        same = tensors.get(name, {}).get("shape") == tensor["shape"]
        joined = name.rpartition(".")[0] in experts
        expected = not (joined or name in changed or name == f"{quantized.head}.weight")
        if expected and not same and not spare(name):
            yield f"{name} is missing or has another shape"


def _layer_faults(
    name: str, scheme: LinearScheme | str | None, tensors: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    if isinstance(scheme, str):
        yield f"should be {scheme}, which compressed-tensors does not know"
        return
    present = {suffix for suffix in _SUFFIXES if f"{name}.{suffix}" in tensors}
    kind = tensors.get(f"{name}.weight", {}).get("dtype")
    if scheme is None:
        if present != {"weight"} or kind not in FLOATS:
            yield f"should be in float, but has {_content(present, kind)}"
        return
    activation = scheme.activation
    packed = activation is None
    expected = {"weight_packed" if packed else "weight", "weight_scale"}
    if activation is not None and not activation.dynamic:
        expected |= {"input_scale"} | (set() if activation.symmetric else {"input_zero_point"})
    if not scheme.weight.symmetric:
        expected |= {"weight_zero_point"}
    shifted = activation is not None and activation.symmetric and "input_zero_point" in present
    if not expected <= present or shifted or (not packed and kind != "I8"):
        yield f"should have {', '.join(sorted(expected))}, but has {_content(present, kind)}"


_SUFFIXES = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "input_scale",
    "input_zero_point",
)


def _content(present: set[str], kind: str | None) -> str:
    return f"{', '.join(sorted(present)) or 'nothing'} ({kind or 'no weight'})"


def _config_faults(folder: Path, quantized: Quantized) -> list[str]:
    """Layers the configuration tells engines to take for something else than they are.

    It may ignore more than linear layers: routers, which engines implement as such. Where nothing
    is quantized, it needs to say nothing.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    integer = {name for name, scheme in quantized.layers.items() if scheme is not None}
    if integer and "quantization_config" not in config:
        return ["config.json has no quantization_config, so engines take integers for floats"]
    entries = (config.get("quantization_config") or {}).get("ignore") or ()
    floats = quantized.layers.keys() - integer if integer else set()
    floats |= {quantized.head} if integer and quantized.head is not None else set()
    return [f"config.json ignores {name}" for name in sorted(integer) if listed(name, entries)] + [
        f"config.json does not ignore {name}"
        for name in sorted(floats)
        if not listed(name, entries)
    ]


def _bias_faults(folder: Path, added: set[str]) -> Iterator[str]:
    """Biases the float checkpoint has not, and engines therefore would not load."""
    for name, bias in _tensors(folder, lambda name: name in added and name.endswith(".bias")):
        if bool(bias.any()):
            yield f"{name} is not 0, but the model has no such bias for engines to load"


def listed(name: str, entries: Iterable[str]) -> bool:
    """Whether ``ignore`` of a quantization config covers a layer: by name, or by a regular
    expression after ``re:``, which has to match at the start only."""
    return any(
        re.match(entry[3:], name) is not None if entry.startswith("re:") else entry == name
        for entry in entries
    )


def scale_faults(folder: Path) -> Iterator[str]:
    """Scales that no engine could compute with."""
    for name, scale in _tensors(folder, lambda name: name.endswith("_scale")):
        exponents = str(scale.dtype).endswith("uint8")  # of powers of two
        if not exponents and not bool(((scale > 0) & (scale < math.inf)).all()):
            yield f"{name} is not positive and finite everywhere"


def _tensors(folder: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """Wanted tensors by name, as arrays of NumPy where it has their types: importing torch takes
    longer than reading them."""
    for file in weight_files(folder):
        header = read_header(folder / file)
        names = [name for name in header if wanted(name)]
        numpy = _NUMPY_TYPES.issuperset(header[name]["dtype"] for name in names)
        with safe_open(folder / file, framework="np" if numpy else "pt") as tensors:
            for name in names:
                yield name, tensors.get_tensor(name)
