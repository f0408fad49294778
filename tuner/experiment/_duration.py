"""Durations as people write them: ``3D4H``, ``1D2H30M15S``, or seconds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_FORM = re.compile(r"(?:(\d+)D)?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")
_UNITS = (86400, 3600, 60, 1)


def parse_duration(value: Any) -> float:
    """Seconds of ``3D4H``-like text (days, hours, minutes, seconds, in this order, upper case,
    at least one of them), or of a number of seconds.

    Raises:
        ValueError: It is neither, or negative.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value >= 0:
            return float(value)
    elif isinstance(value, str) and value and (match := _FORM.fullmatch(value)):
        return float(
            sum(int(part or 0) * unit for part, unit in zip(match.groups(), _UNITS, strict=True))
        )
    raise ValueError(
        f"{value!r} is no duration; write 3D4H, 1D2H30M15S, 45M or a number of seconds"
    )


def format_duration(seconds: float) -> str:
    """Two leading units, for people: ``2 d 3 h``, ``4 min 10 s``, ``12 s``."""
    rest = round(seconds)
    parts: list[str] = []
    for unit, name in zip(_UNITS, ("d", "h", "min", "s"), strict=True):
        count, rest = divmod(rest, unit)
        if count or parts or unit == 1:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^(\d+D)?(\d+H)?(\d+M)?(\d+S)?$"},
                {"type": "number", "minimum": 0},
            ]
        }
    ),
]
"""Seconds; in YAML ``3D4H``-like text or a number."""
