"""Sizes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtKMGT]?)(i?)[bB]?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(text: str) -> int:
    """Bytes or tokens of ``16M``, ``1.5Gi``, ``4096``, as vLLM reads them: ``k m g t`` are powers
    of 1000, ``K M G T`` (also ``Ki Mi Gi``) powers of 1024. Raises ``ValueError`` for anything
    else."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write 16M, 64GiB or a number of bytes")
    number, unit, binary = match.groups()
    base = 1024 if unit.isupper() or binary else 1000
    return int(float(number) * base ** _POWERS[unit.lower()])
