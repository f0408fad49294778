"""What the blocks of all trial types have in common: paths, models, and plug-ins inside them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from trainables._trial import Json, Progress, TrialRun
from trainables.models import (
    ModelError,
    builtin_folder,
    builtin_source,
    describe_model,
    is_builtin,
    is_complete,
)

Problems: TypeAlias = list[tuple[str, str]]
"""(dotted path in the experiment, message) pairs."""

_CONVERSION_S = 1800.0


def _absolute(path: str) -> str:
    """Nodes and later sessions have other working folders."""
    return path if path.startswith("builtin:") else str(Path(path).expanduser().absolute())


PathText = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
"""A path, made absolute, or ``builtin:<name>``."""


def model_folder(model: str) -> Path:
    """Where the checkpoint lies that a trial's ``model`` names."""
    return builtin_folder(model) if is_builtin(model) else Path(model)


def model_ready(trial: TrialRun, model: str) -> Generator[Progress, None, None]:
    """Have a built-in model converted, once for each node's cache."""
    if is_builtin(model) and not is_complete(model_folder(model)):
        request = {"model": model}
        yield from trial.program(
            "convert", "trainables.models.convert", request, timeout=_CONVERSION_S
        )


def model_problems(model: str) -> Problems:
    """Faults of the model itself, seen without a tool."""
    try:
        if is_builtin(model):
            builtin_source(model)
        else:
            describe_model(Path(model))
    except ModelError as error:
        return [("trial.model", str(error))]
    return []


def plugin_problems(path: str, check: Callable[[], Problems]) -> Problems:
    """What ``check`` finds, or why the plug-in of the block at ``path`` cannot be made."""
    try:
        return check()
    except ValidationError as error:
        return [
            (".".join((path, *map(str, fault["loc"]))), fault["msg"]) for fault in error.errors()
        ]
    except KeyError as error:
        return [(f"{path}.type", str(error.args[0]))]
    except ImportError as error:
        return [(f"{path}.type", str(error))]


def typed(block: Mapping[str, Json], name: str, *, required: bool = True) -> dict[str, Json]:
    """The schema of a block whose ``type`` is ``name``."""
    others = {key: value for key, value in block.get("properties", {}).items() if key != "type"}
    needed = [key for key in block.get("required", []) if key != "type"]
    return {
        **block,
        "properties": {"type": {"const": name}, **others},
        "required": [*(["type"] if required else []), *needed],
    }


def plugin_schemas(
    names: Iterable[str],
    find: Callable[[str], Any],
    definitions: dict[str, Json],
    *,
    default: str | None = None,
) -> list[dict[str, Json]]:
    """The schemas of all plug-ins of a sort; those that cannot be loaded are left out.

    Definitions join ``definitions``. The ``default`` type need not be named.
    """
    blocks = []
    for name in names:
        try:
            block = TypeAdapter(find(name).Options).json_schema()
        except ImportError:
            continue
        definitions |= block.pop("$defs", {})
        blocks.append(typed(block, name, required=name != default))
    return blocks
