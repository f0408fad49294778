"""Numbers as people write them."""

from __future__ import annotations


def figure(value: float, digits: int = 4) -> str:
    """A number with ``digits`` significant digits, as 16280 rather than 1.628e+04."""
    return f"{float(f'{value:.{digits}g}'):.10g}"
