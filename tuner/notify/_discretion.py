"""Keeping secrets out of what is said about a failed send."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote, urlsplit

_MASK = "***"
_SHORTEST = 6
"""Parts of an address that are shorter than this give nothing away."""
_SHORTEST_PASSWORD = 3
_PARTS = re.compile(r"[/:@?&=;,+\s]+")


class Discretion:
    """Masks secrets, and the parts of secret addresses, in texts.

    Args:
        secrets: As they are, addresses among them. The host of an http address is no secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        hidden: set[str] = set()
        for secret in secrets:
            hidden |= _telling(secret)
        self._hidden = sorted(hidden, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._hidden:
            text = text.replace(secret, _MASK)
        return text


def _telling(secret: str) -> set[str]:
    found = {secret} | {part for part in _PARTS.split(secret) if len(part) >= _SHORTEST}
    try:
        address = urlsplit(secret)
        if len(address.password or "") >= _SHORTEST_PASSWORD:
            found.add(address.password or "")
        host = address.hostname if address.scheme in ("http", "https") else None
    except ValueError:
        host = None
    found |= {unquote(part) for part in found}
    found |= {quote(part, safe="") for part in found}
    return {part for part in found if part and part != host}
