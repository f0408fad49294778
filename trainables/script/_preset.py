"""The preset ``rouge``: what ``auto_tune.py`` has built in, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from trainables._trial import Json

_FILE = Path(__file__).with_name("rouge.yaml")


@dataclass(frozen=True)
class RougePreset:
    """Treat it as immutable: all callers share one.

    Attributes:
        trial: Defaults of the ``trial`` block.
        unless_set: Variables of the start command where the node's environment has them not.
        base: The configuration to start from, as text.
        candidates: The values of each parameter, in the order in which they are explored.
        patterns: Metric to the regular expression whose first group is its value.
    """

    trial: Mapping[str, Json]
    unless_set: Mapping[str, str]
    base: Mapping[str, str]
    candidates: Mapping[str, Sequence[str]]
    patterns: Mapping[str, str]

    def search(
        self,
        base: Mapping[str, str] | None = None,
        candidates: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Json]:
        """A ``search`` block: coordinate ascent over ``candidates`` from ``base``.

        Args:
            base: Where it starts, over the preset's own base.
            candidates: Further values, which come after the preset's; new parameters come last.
                One that has no base starts at its first value.

        A value of ``base`` that is no candidate joins the values, at their head; one that is the
        same number as another is left out, so that 0.1 and 0.10 are not measured both.
        """
        start = {**self.base, **(base or {})}
        more = candidates or {}
        space: dict[str, Json] = {}
        for name in dict.fromkeys((*self.candidates, *more)):
            here = [start[name]] if name in start else []
            known, new = self.candidates.get(name, ()), more.get(name, ())
            values = _distinct((*known, *new), here)
            space[name] = {"type": "enum", "values": values}
            start.setdefault(name, values[0])
        return {
            "type": "coordinate_ascent",
            "start": {name: start[name] for name in space},
            "space": space,
        }


@cache
def rouge_preset() -> RougePreset:
    """The preset ``rouge``."""
    document = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    metrics = document["trial"]["metrics"]
    return RougePreset(
        trial=document["trial"],
        unless_set=document["unless_set"],
        base=document["base"],
        candidates=document["candidates"],
        patterns={name: metric["pattern"] for name, metric in metrics.items()},
    )


def with_preset(block: Any) -> Any:
    """A ``trial`` block with its preset's defaults filled in; what the block says goes first.

    The base is a default of ``constants``, so that what is not searched is as in the original.
    """
    if not isinstance(block, dict) or block.get("preset") != "rouge":
        return block
    preset = rouge_preset()
    defaults = {**preset.trial, "constants": preset.base}
    return {**block, **{key: _over(block, key, value) for key, value in defaults.items()}}


def _over(block: Mapping[str, Json], key: str, default: Json) -> Json:
    given = block.get(key, default)
    both = isinstance(given, dict) and isinstance(default, Mapping)
    return {**default, **given} if both else given


def _distinct(values: Sequence[str], here: Sequence[str]) -> list[str]:
    """``values`` without those equal to another one; ``here`` goes first where it is not one."""
    found = [] if set(here) <= set(values) else list(here)
    seen = {_number(value) for value in here}
    for value in values:
        if value in here or _number(value) not in seen:
            seen.add(_number(value))
            found += [value] if value not in found else []
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
