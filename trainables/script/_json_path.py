"""A place in a JSON document: ``a.b[0].c``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainables._trial import Json

_STEP = re.compile(r"\.?([^.\[\]\s][^.\[\]]*)|\[(-?\d+)\]")


def steps(path: str) -> list[str | int]:
    """Keys and positions of a path; negative positions count from the end.

    Raises ``ValueError`` for what is no path.
    """
    found: list[str | int] = []
    place = 0
    while place < len(path):
        match = _STEP.match(path, place)
        if match is None or (match[1] and path[place] != "." and place > 0):
            raise ValueError(f"{path!r} is no path into JSON, such as results[0].score")
        if place == 0 and path[0] == ".":
            raise ValueError(f"{path!r}: a path begins with a key or a position, not with a dot")
        found.append(match[1] or int(match[2]))
        place = match.end()
    return found


def value_at(document: Json, path: str) -> Json:
    """The value at a path. Raises ``LookupError`` that says where it ends."""
    here, gone = document, ""
    for step in steps(path):
        if isinstance(step, int):
            fits = isinstance(here, Sequence) and not isinstance(here, str)
            gone += f"[{step}]"
        else:
            fits = isinstance(here, dict)
            gone += f".{step}" if gone else step
        try:
            if not fits:
                raise LookupError
            here = here[step]
        except LookupError:
            raise LookupError(f"it has no {gone}") from None
    return here
