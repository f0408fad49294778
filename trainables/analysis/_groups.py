"""Layers that must go back to float together, and where they sit in the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainables.quantization import fused_with

_OTHER_NAMINGS = (("w1", "w3"), ("wq", "wk", "wv"), ("query", "key", "value"))
_EXPERTS = re.compile(r"(.*\.experts)\.\d+\..+")


def fused_groups(layers: Sequence[str]) -> list[tuple[str, ...]]:
    """``layers`` in groups that engines run as one matrix, in order of first appearance.

    Siblings with the names of a known fusion (``q_proj, k_proj, v_proj``; ``gate_proj, up_proj``;
    ``w1, w3``; ...) belong together, and so do all projections of all experts of a block, which a
    fused mixture-of-experts kernel takes in one type. Every other layer is a group of its own.
    """
    groups: dict[str, list[str]] = {}
    for layer in layers:
        groups.setdefault(_group_key(layer), []).append(layer)
    return [tuple(group) for group in groups.values()]


def block_groups(layers: Sequence[str]) -> list[tuple[str, ...]]:
    """``layers`` in groups of one decoder block each; a layer outside of blocks stays alone."""
    groups: dict[str, list[str]] = {}
    for layer in layers:
        groups.setdefault(block_name(layer) or layer, []).append(layer)
    return [tuple(group) for group in groups.values()]


def groups_of(layers: Sequence[str], unit: str) -> list[tuple[str, ...]]:
    """``layers`` as they are ranked by a ``unit``: ``fused``, ``block`` or ``layer``."""
    if unit == "layer":
        return [(name,) for name in layers]
    return fused_groups(layers) if unit == "fused" else block_groups(layers)


def block_name(layer: str) -> str | None:
    """Name of the decoder block a layer is in, such as ``model.layers.3``; None for none."""
    found = re.match(r".*?(?:^|\.)\d+(?=\.)", layer)
    return found[0] if found else None


def _group_key(layer: str) -> str:
    if match := _EXPERTS.fullmatch(layer):
        return match[1]
    parent, _, leaf = layer.rpartition(".")
    siblings = next((names for names in _OTHER_NAMINGS if leaf in names), None)
    return f"{parent}.{siblings[0]}" if siblings else fused_with(layer)[0]


def block_number(group: Sequence[str]) -> int | None:
    """Number of the decoder block a group is in: the first whole part of its name that is one."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", group[0])
    return int(found[1]) if found else None


def short_name(group: Sequence[str]) -> str:
    """What a group is within its block, such as ``self_attn.q/k/v_proj`` or ``mlp.experts``."""
    if group[0].rpartition(".")[2].isdigit():
        return "whole block"
    names = [re.sub(r"^.*?(?:^|\.)\d+\.", "", name) for name in group]
    if match := _EXPERTS.fullmatch(f".{names[0]}"):
        return match[1][1:]
    parent, dot, _ = names[0].rpartition(".")
    leaves = [name.rpartition(".")[2] for name in names]
    tail = _common_tail(leaves)
    heads = "/".join(leaf.removesuffix(tail) for leaf in leaves)
    return f"{parent}{dot}{heads}{tail}"


def _common_tail(leaves: Sequence[str]) -> str:
    """``_proj`` of ``q_proj, k_proj``; empty for one leaf or leaves that do not share a word."""
    tails = {leaf[leaf.rindex("_") :] if "_" in leaf else "" for leaf in leaves}
    return tails.pop() if len(leaves) > 1 and len(tails) == 1 else ""
