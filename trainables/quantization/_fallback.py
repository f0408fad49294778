"""Practices that leave layers in float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.quantization._patterns import fallback_patterns, is_excluded
from trainables.quantization._practice import (
    LinearQuant,
    Practice,
    PracticeError,
    parse_practice,
    processes,
)


def default_rollback_path(practice: Practice) -> str:
    """Where fallback layers go: the exclude list of the last ``linear_quant``.

    Raises:
        PracticeError: The practice quantizes no linear layer.
    """
    found = [path for path, process in processes(practice) if isinstance(process, LinearQuant)]
    if not found:
        raise PracticeError("the practice has no linear_quant that could leave layers in float")
    return f"{found[-1]}.exclude"


def check_rollback_path(practice: Practice, path: str) -> None:
    """Raises :class:`PracticeError` unless ``path`` leads to a list of strings."""
    _rollback_list(practice.document(), path)


def with_fallback(practice: Practice, rollback_path: str, layers: Sequence[str]) -> Practice:
    """The practice that leaves ``layers`` in float, and no others.

    Args:
        practice: Left as it is.
        rollback_path: Dot path of a list, such as ``spec.process.1.exclude``; digits are indices.
            What the list held before is replaced.
        layers: Module names or patterns, see :func:`fallback_patterns`.

    Raises:
        PracticeError: The path does not lead to a list.
    """
    document = practice.document()
    _rollback_list(document, rollback_path)[:] = fallback_patterns(layers)
    return parse_practice(document)


def with_added_fallback(practice: Practice, layers: Sequence[str]) -> Practice:
    """The practice that leaves ``layers`` in float besides those it leaves so already.

    They join the exclude list of every ``linear_quant``, except patterns that list covers.
    """
    document = practice.document()
    for path, process in processes(practice):
        if isinstance(process, LinearQuant):
            patterns = [p for p in fallback_patterns(layers) if not is_excluded(p, process.exclude)]
            _rollback_list(document, f"{path}.exclude").extend(patterns)
    return parse_practice(document)


def _rollback_list(document: dict[str, Any], path: str) -> list[Any]:
    current: Any = document
    steps = path.split(".")
    for position, step in enumerate(steps):
        here = ".".join(steps[:position]) or "the practice"
        if isinstance(current, list) and step.isdigit() and int(step) < len(current):
            current = current[int(step)]
        elif isinstance(current, dict) and step in current:
            current = current[step]
        else:
            raise PracticeError(f"{path!r} leads nowhere: {here} {_inventory(current)}")
    if not isinstance(current, list) or not all(isinstance(item, str) for item in current):
        raise PracticeError(
            f"{path!r} must lead to a list of layer patterns; it {_inventory(current)}"
        )
    return current


def _inventory(value: Any) -> str:
    if isinstance(value, dict):
        return f"has the keys {', '.join(map(str, value))}"
    if isinstance(value, list):
        return f"is a list of {len(value)}: " + ", ".join(
            str(item["type"]) if isinstance(item, dict) and "type" in item else repr(item)
            for item in value
        )
    return f"is {value!r}"
