"""What a vLLM command line says about memory. Pure.

Source: ``vllm serve --help=all`` of 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainables._sizes import size
from trainables._trial import Json
from trainables.serving._memory import MemoryPlan

SHORT = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-ep": "enable-expert-parallel",
    "-q": "quantization",
    "-cc": "compilation-config",
    "-O": "compilation-config",
}
"""Names of short options."""


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
        name = SHORT.get(name, name.lstrip("-").replace("_", "-"))
        found[name] = value if equals else following
    return found
