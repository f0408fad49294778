"""How well a learned latency model predicts, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.latency._features import KINDS


@dataclass(frozen=True)
class Errors:
    """Of predicted durations against measured ones. All are shares: 0.01 is one percent.

    Attributes:
        rows: Iterations that were predicted.
        median, p90, p99: Of the absolute relative error.
        bias: Sum of the predictions relative to the sum of what was measured, minus 1.
    """

    rows: int
    median: float
    p90: float
    p99: float
    bias: float


def errors_of(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> Errors:
    """Errors of predictions, each of shape (rows,), one row at least."""
    relative = np.abs(predicted / measured - 1)
    median, p90, p99 = (float(value) for value in np.quantile(relative, (0.5, 0.9, 0.99)))
    bias = float(predicted.sum() / measured.sum() - 1)
    return Errors(len(measured), median, p90, p99, bias)


def errors_by_kind(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], kinds: NDArray[np.str_]
) -> dict[str, Errors]:
    """Errors of all, and of each kind of batch that there is."""
    found = {"all": errors_of(predicted, measured)} if len(measured) else {}
    for kind in KINDS:
        mine = kinds == kind
        if mine.any():
            found[kind] = errors_of(predicted[mine], measured[mine])
    return found


def card_errors(found: Mapping[str, Errors]) -> dict[str, dict[str, float]]:
    """As JSON."""
    return {kind: asdict(errors) for kind, errors in found.items()}


def as_markdown(card: Mapping[str, Any]) -> str:
    """A model card, as it is in ``model_card.json``, for people."""
    data = card["data"]
    lines = [
        "# Latency model",
        "",
        f"Seconds of one iteration, learned from {data['rows']} iterations of {card['framework']}.",
        "",
        "## Training data",
        "",
        f"- digest `{data['sha256']}`",
        *(f"- {one['path']}: {one['format']}, {one['kept']} iterations" for one in data["sources"]),
        *(f"- left out: {count} x {reason}" for reason, count in data["dropped"].items()),
        *_aside(data["set_aside"]),
        f"- between iterations, while there is work: {1000 * card['pause']:.3f} ms",
        f"- mean over typical duration of the same work: {card['delay']:.3f}",
        "",
        *_table(("feature", "from", "to"), _ranges(card["ranges"])),
        "",
        *_errors("Held-out blocks of time", card["held_out"]),
        *_errors("Recordings predicted from the other ones", card["other_loads"]),
        *_errors("The physical baseline alone, held-out blocks", card["baseline_alone"]),
        *_curve(card["learning_curve"]),
        *_facts("Training", card["training"]),
        *_facts("Versions", card["versions"]),
    ]
    for place, settings in card["engine_settings"].items():
        lines += _facts(f"Engine settings: {place}", settings)
    return "\n".join(lines).rstrip() + "\n"


def _aside(count: int) -> list[str]:
    return [f"- set aside: {count} iterations of ten times the expected duration"] if count else []


def _ranges(ranges: Mapping[str, Sequence[float]]) -> list[tuple[str, ...]]:
    return [(name, f"{low:g}", f"{high:g}") for name, (low, high) in ranges.items()]


def _errors(title: str, found: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not found:
        return []
    rows = [
        (
            kind,
            str(one["rows"]),
            *(f"{100 * one[name]:.2f} %" for name in ("median", "p90", "p99")),
            f"{100 * one['bias']:+.2f} %",
        )
        for kind, one in found.items()
    ]
    head = ("batches", "iterations", "median error", "P90", "P99", "bias of the sum")
    return [f"## {title}", "", *_table(head, rows), ""]


def _curve(points: Sequence[Mapping[str, float]]) -> list[str]:
    rows = [
        (str(one["trained_on"]), f"{100 * one['median']:.2f} %", f"{100 * one['p90']:.2f} %")
        for one in points
    ]
    head = ("iterations trained on", "median error", "P90")
    return ["## Learning curve", "", *_table(head, rows), ""] if rows else []


def _facts(title: str, facts: Mapping[str, Any]) -> list[str]:
    return [f"## {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
