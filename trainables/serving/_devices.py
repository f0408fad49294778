"""How many accelerators an engine will take, as its own settings say. Changes nothing anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines import Deployment, Engine
from trainables.serving._command_line import CommandLine
from trainables.serving._vllm_memory import SHORT

_PARALLEL = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "prefill-context-parallel-size",
)
"""Their product is vLLM's number of workers (``ParallelConfig``, 0.32)."""
_LOCAL = "data-parallel-size-local"
_WORLD = "BackendConfig.ModelDeployConfig.ModelConfig.0.worldSize"


def devices_of(engine: Engine, deployment: Deployment) -> int | None:
    """Accelerators of one instance on its node; None where its settings do not say."""
    try:
        if engine.options.type.startswith("vllm"):
            return _of_command(engine.launch(deployment).argv)
        if engine.configurable and _WORLD in deployment.config:
            return _whole(deployment.config[_WORLD])
        own = getattr(engine.options, "config", {})
        if _WORLD in own:
            return _whole(own[_WORLD])
        said = engine.configured([_WORLD]).get(_WORLD) or engine.serves().get("devices")
        return None if said is None else _whole(said)
    except StageError:
        return None


def _of_command(argv: Sequence[str]) -> int | None:
    line = CommandLine(argv, SHORT)
    given = {name: line.text(name) or "1" for name in _PARALLEL}
    given["data-parallel-size"] = line.text(_LOCAL) or given["data-parallel-size"]
    sizes = [_whole(text) for text in given.values()]
    known = [size for size in sizes if size is not None]
    return prod(known) if len(known) == len(sizes) else None


def _whole(value: Json) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if number > 0 else None
