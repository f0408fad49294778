"""A ranking as text: YAML for programs and users' editors, a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster import write_atomic

_BAR = 24


def write_table(result: Mapping[str, Any], path: Path) -> str:
    """Write an analysis result as YAML, and return it as a table for the terminal."""
    text = yaml.safe_dump(dict(result), sort_keys=False, allow_unicode=True, width=100)
    write_atomic(path, text)
    return table(result)


def table(result: Mapping[str, Any], top: int | None = None) -> str:
    """Steps of a ranking, one a line, worst first; at most ``top`` of them."""
    steps = result["ranking"]
    shown = steps[:top]
    largest = max((step["score"] for step in steps), default=0.0)
    lines = [f"{'step':>4}  {'score (' + result['metric'] + ')':>18}  {'':{_BAR}}  layers"]
    for number, step in enumerate(shown, start=1):
        share = step["score"] / largest if largest > 0 else 0.0
        bar = "#" * round(_BAR * max(0.0, share))
        names = ", ".join(compact(step["layers"]))
        lines.append(f"{number:>4}  {step['score']:>18.6g}  {bar:{_BAR}}  {names}")
    if len(shown) < len(steps):
        lines.append(f"      ... and {len(steps) - len(shown)} more")
    return "\n".join(lines)


def compact(layers: list[str]) -> list[str]:
    """Layer names with siblings written as one: ``a.{q_proj,k_proj}``."""
    children: dict[str, list[str]] = {}
    for layer in layers:
        parent, _, leaf = layer.rpartition(".")
        children.setdefault(parent, []).append(leaf)
    found = []
    for parent, leaves in children.items():
        name = leaves[0] if len(leaves) == 1 else "{" + ",".join(leaves) + "}"
        found.append(f"{parent}.{name}" if parent else name)
    return found
