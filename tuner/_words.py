"""Numbers as people read them. Pure."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def five_digits(value: float) -> str:
    """A number of a result: five digits, large ones whole and in groups of three."""
    return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:.5g}"
