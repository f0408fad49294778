"""Which layers a pattern of a practice speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from wcmatch import fnmatch

FUSED_GROUPS = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
"""Sibling layers that engines run as one matrix: all in integers or all in float."""


def matches(module_name: str, patterns: Iterable[str]) -> bool:
    """Whether any of ``patterns`` covers the module or all that could be inside it.

    Patterns are msModelSlim's: shell globs with ``{a,b}`` over the whole dotted name. One step
    further than msModelSlim goes, ``*mlp.down_proj.*`` covers ``...mlp.down_proj`` itself: its
    documentation writes candidates that way, while its matcher lets them fall through.
    """
    return any(_covers(pattern, module_name) for pattern in patterns)


def is_excluded(module_name: str, patterns: Iterable[str]) -> bool:
    """Whether an exclude list of ``patterns`` keeps the module in float; see :func:`matches`."""
    return matches(module_name, patterns)


def _covers(pattern: str, name: str) -> bool:
    return name == pattern or any(
        regex.fullmatch(name) or regex.fullmatch(f"{name}.") for regex in _regexes(pattern)
    )


@lru_cache(maxsize=4096)
def _regexes(pattern: str) -> tuple[re.Pattern[str], ...]:
    wanted, _ = fnmatch.translate(pattern, flags=fnmatch.BRACE | fnmatch.FORCEUNIX)
    return tuple(re.compile(regex) for regex in wanted)


def unmatched_patterns(patterns: Iterable[str], module_names: Sequence[str]) -> list[str]:
    """The patterns that cover none of ``module_names``, which are misspelt more often than not."""
    return [p for p in patterns if not any(_covers(p, name) for name in module_names)]


def fallback_patterns(layers: Iterable[str]) -> list[str]:
    """Patterns for an exclude list from layer names.

    A name without ``*`` becomes ``*name.*``, and brings along the layers it is fused with. What
    has a ``*`` is taken as it is. Duplicates are dropped, order is kept.
    """
    patterns: list[str] = []
    for layer in layers:
        patterns += [layer] if "*" in layer else [f"*{name}.*" for name in fused_with(layer)]
    return list(dict.fromkeys(patterns))


def fused_with(layer: str) -> tuple[str, ...]:
    """``layer`` and, when it belongs to a fused group, its siblings, in the group's order."""
    parent, dot, leaf = layer.rpartition(".")
    for group in FUSED_GROUPS:
        if leaf in group:
            return tuple(f"{parent}{dot}{sibling}" for sibling in group)
    return (layer,)


def split_groups(quantized: Mapping[str, bool]) -> list[tuple[str, ...]]:
    """Fused groups of which some layers are quantized and some are not.

    Args:
        quantized: Every linear layer's name, and whether it is quantized.
    """
    groups = {tuple(n for n in fused_with(name) if n in quantized) for name in quantized}
    return sorted(group for group in groups if len({quantized[name] for name in group}) > 1)


def engine_patterns(patterns: Iterable[str]) -> list[str]:
    """The same patterns for msModelSlim's own matcher: ``x.*`` is followed by ``x``."""
    spelled = [p for pattern in patterns for p in (pattern, pattern.removesuffix(".*"))]
    return list(dict.fromkeys(spelled))
