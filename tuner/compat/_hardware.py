"""What one trial of a plan occupies, and which NPUs the run may use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.quantization import Device
from tuner.compat._options import Problems
from tuner.compat._reading import ENGINE

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
_PARALLEL = (
    *("tensor-parallel-size", "tp", "data-parallel-size", "dp"),
    *("pipeline-parallel-size", "pp"),
)
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def engine_width(args: Mapping[str, Any]) -> tuple[int, Problems]:
    """Devices that one instance of the engine occupies, by its arguments."""
    width, problems = 1, []
    for key, value in args.items():
        if key.lstrip("-").replace("_", "-") not in _PARALLEL or value is None:
            continue
        if isinstance(value, bool) or not str(value).isdecimal() or int(value) < 1:
            problems.append((f"{ENGINE}.args.{key}", f"must be 1 or more, not {value!r}"))
        else:
            width *= int(value)
    return width, problems


def resources(device: Device, width: int) -> dict[str, int]:
    """What Ray reserves for a trial: all of the machine's CPUs, or some NPUs."""
    if device.kind == "cpu":
        return {"CPU": machine_cpus()}
    return {"NPU": max(1, len(device.indices or ()), width)}


def usable_cards(
    device: Device, width: int, engine_cards: Any, visible: str | None
) -> tuple[tuple[str, ...], Problems]:
    """Numbers of the NPUs the user named, for quantization or the engine; none: any may be used.

    Args:
        device: Its indices refer to ``visible``.
        width: Cards that the engine needs.
        engine_cards: ``ASCEND_RT_VISIBLE_DEVICES`` of the engine in the plan.
        visible: The same variable of the caller.
    """
    named, problems = _numbers(device.indices or (), visible)
    theirs = [] if engine_cards is None else _items(str(engine_cards))
    if theirs and len(theirs) < width:
        said = f"names {len(theirs)} of the {width} cards that the engine's arguments ask for"
        problems.append((f"{ENGINE}.env_vars.{VISIBLE}", said))
    if not theirs and len(named) < width:
        return (), problems
    return tuple(dict.fromkeys([*theirs, *named])), problems


def machine_cpus() -> int:
    """CPUs that this process may use, a container's quota included."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        return count


def _numbers(cards: Sequence[int], visible: str | None) -> tuple[list[str], Problems]:
    if visible is None:
        return [str(card) for card in cards], []
    numbers = _items(visible)
    if beyond := [card for card in cards if card >= len(numbers)]:
        return [], [("--device", f"there is no card {beyond[0]}: {VISIBLE} shows {len(numbers)}")]
    return [numbers[card] for card in cards], []


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
