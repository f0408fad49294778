"""What a stage of a trial is for, as far as the accelerators' time goes. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

Phase: TypeAlias = Literal["starting", "producing", "measuring"]
PHASES: tuple[Phase, ...] = ("starting", "producing", "measuring")

_STARTING = frozenset(
    (
        "deploy",
        "health",
        "load",
        "place",
        "prepare",
        "ready",
        "router",
        "staging",
        "start",
        "starting",
        "transfer",
        "weights",
    )
)
_PRODUCING = frozenset(("analyze", "deliver", "quantize"))


def phase_of(stage: str) -> Phase:
    """``starting``: engines come up; ``producing``: weights are quantized, analysed or delivered;
    ``measuring``: all else, which is what a trial is made for.

    A stage that is done several times is numbered: ``benchmark-2``.
    """
    name = stage.rstrip("0123456789").rstrip("-")
    if name in _STARTING:
        return "starting"
    return "producing" if name in _PRODUCING else "measuring"
