"""What the readers of other tools' results have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

UNITS = {"": 0, "s": 0, "ms": -3, "us": -6}
"""Units of time, by the power of ten that makes them seconds."""


class ResultError(ValueError):
    """A tool's result that holds no measurement; the message says which file, and why."""


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``. Raises :class:`ResultError`."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(f"there is no result {file}") from error
    except (OSError, ValueError) as error:
        raise ResultError(f"the result {file} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ResultError(f"the result {file} is no object")
    return document


def number(value: Any) -> float | None:
    """A finite number, or a text that is one; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def in_seconds(value: float, unit: str = "ms") -> float:
    """A duration in one of the :data:`UNITS`, with the digits that were recorded: 12.2 ms are
    0.0122 s, where the product of two binary fractions is often a digit beside it."""
    return float(Decimal(repr(value)).scaleb(UNITS[unit]))


def required(document: Mapping[str, Any], name: str, file: Path) -> float:
    """The number ``name``. Raises :class:`ResultError` when it is not there, or is none."""
    found = number(document.get(name))
    if found is None:
        said = f"is {document[name]!r}" if name in document else "is missing"
        raise ResultError(f"{name} {said} in {file}")
    return found
