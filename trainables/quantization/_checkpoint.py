"""What must hold of a float checkpoint and a practice before any tool quantizes. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainables.models import ModelError, ModelFacts, describe_model
from trainables.quantization._patterns import split_groups
from trainables.quantization._practice import PracticeError


def describe_float_model(folder: Path) -> ModelFacts:
    """Facts of a checkpoint that can be quantized.

    Raises:
        ModelError: It cannot be read, or is quantized already.
    """
    facts = describe_model(folder)
    if facts.quantization is not None:
        raise ModelError(
            f"{folder} is quantized already ({facts.quantization}); "
            "name the float checkpoint it was made from"
        )
    return facts


def check_groups(quantized: Mapping[str, bool]) -> None:
    """Raises :class:`PracticeError` when layers that engines run as one matrix are torn apart.

    Args:
        quantized: Every linear layer's name, and whether the practice quantizes it.
    """
    if split := split_groups(quantized):
        raise PracticeError(
            f"engines run {', '.join(split[0])} as one matrix, yet the practice quantizes only "
            f"some of them ({len(split)} such groups); exclude all of a group or none"
        )
