"""What a vLLM command line says about memory. Pure.

Source: ``vllm serve --help=all`` of 0.32, and its parsing of human-readable sizes: ``k m g t`` are
powers of 1000, ``K M G T`` (also ``Ki Mi Gi``) powers of 1024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trainables._trial import Json
from trainables.serving._memory import MemoryPlan

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtKMGT]?)(i?)[bB]?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHORT = {"-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size"}


def size(text: str) -> int:
    """Bytes or tokens of ``16M``, ``1.5Gi``, ``4096``. Raises ``ValueError`` for anything else."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 16M, 64GiB or a number of bytes")
    number, unit, binary = match.groups()
    base = 1024 if unit.isupper() or binary else 1000
    return int(float(number) * base ** _POWERS[unit.lower()])


def vllm_plan(
    argv: Sequence[str], config: Mapping[str, Json], device_bytes: int | None
) -> MemoryPlan | None:
    """The plan of a command line for a model with this ``config.json``.

    None where it cannot be understood, or leaves to vLLM what matters here.
    """
    given = _flags(argv)
    if "num-gpu-blocks-override" in given or "kv-offloading-size" in given:
        return None
    try:
        longest = given.get("max-model-len")
        fixed = given.get("kv-cache-memory-bytes")
        return MemoryPlan(
            kv_bytes=None if fixed is None else size(fixed),
            device_bytes=device_bytes,
            utilization=float(given.get("gpu-memory-utilization", 0.92)),
            tensor_parallel=int(given.get("tensor-parallel-size", 1)),
            pipeline_parallel=int(given.get("pipeline-parallel-size", 1)),
            element_bytes=_element_bytes(given, config),
            block_size=int(given.get("block-size", 16)),
            longest=None if longest in (None, "auto", "-1") else size(longest),
        )
    except ValueError:
        return None


def _element_bytes(given: Mapping[str, str], config: Mapping[str, Json]) -> int:
    """At least so many: what is not known is taken for the smallest usual type."""
    kind = given.get("kv-cache-dtype", "auto")
    if kind == "auto":
        kind = given.get("dtype", "auto")
    if kind == "auto":
        kind = str(config.get("dtype") or config.get("torch_dtype") or "")
        return 2 if kind in ("float16", "bfloat16", "float32") else 1
    return {"float32": 4, "float": 4, "half": 2, "float16": 2, "bfloat16": 2}.get(kind, 1)


def _flags(argv: Sequence[str]) -> dict[str, str]:
    """The last value of each option, by its name with dashes."""
    found: dict[str, str] = {}
    for index, word in enumerate(argv):
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        following = argv[index + 1] if index + 1 < len(argv) else ""
        name = _SHORT.get(name, name.lstrip("-").replace("_", "-"))
        found[name] = value if equals else following
    return found
