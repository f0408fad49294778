"""Metrics, their standard errors, and paired differences, all from per-item records. Pure.

Tokens of one text are not independent, so the unit of all errors is the *item*: a window of text
or a question. Each metric is a function of a ratio ``R = sum(s_i) / sum(m_i)`` over items (summed
losses over token counts, or right answers over answers). To first order item ``i`` contributes
``(s_i - R m_i) / mean(m)`` to R (the linearised ratio estimator: Cochran, Sampling Techniques,
3rd ed., 1977, section 6.3), so

    se(R) = sqrt( sum(contribution_i^2) / (n (n - 1)) ),

which for equal ``m_i`` is the standard error of a mean. The perplexity ``exp(R)`` has contributions
``exp(R)`` times those of R (delta method). The same items under two models are compared through
the differences of their contributions, which leaves out what both have in common: how hard each
item is (Miller, Adding Error Bars to Evals, arXiv:2411.00640, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""Per-item outcome of one dataset, as JSON. Of a text: ``{kind, digest, tokens: [predicted tokens
of each window], nll: [summed loss, nats], correct: [tokens predicted right]}``. Of multiple
choice: ``{kind, digest, correct: "0110...", correct_normalized: "0110..."}``, a digit per item.
``digest`` tells which items these are."""

_LARGEST_EXPONENT = 700.0
"""Keeps the perplexity of a destroyed model a finite number, about 1e304."""


class Estimate(NamedTuple):
    """A metric with what each item contributes to its deviation from the truth."""

    value: float
    contributions: tuple[float, ...]

    @property
    def standard_error(self) -> float | None:
        """None when there is only one item."""
        return _standard_error(self.contributions)


class Difference(NamedTuple):
    """How much a metric changed from a baseline.

    Attributes:
        value: Metric minus that of the baseline.
        standard_error: Paired; None when there is only one item.
        items: Number of items; up to about 20, intervals should use Student's t with one less.
    """

    value: float
    standard_error: float | None
    items: int


def estimates(record: Record) -> dict[str, Estimate]:
    """All metrics of a record. Raises ``ValueError`` for a record of an unknown kind."""
    if record["kind"] == "text":
        loss = _ratio(record["nll"], record["tokens"])
        perplexity = math.exp(min(loss.value, _LARGEST_EXPONENT))
        scaled = tuple(perplexity * each for each in loss.contributions)
        return {
            "perplexity": Estimate(perplexity, scaled),
            "nll": loss,
            "next_token_accuracy": _ratio(record["correct"], record["tokens"]),
        }
    if record["kind"] == "multiple_choice":
        return {
            "accuracy": _share(record["correct"]),
            "accuracy_normalized": _share(record["correct_normalized"]),
        }
    raise ValueError(f"unknown kind of record: {record['kind']!r}")


def metrics(record: Record) -> dict[str, float]:
    """All metrics of a record with their standard errors, as ``m`` and ``m_se``."""
    found: dict[str, float] = {}
    for name, estimate in estimates(record).items():
        found[name] = estimate.value
        if estimate.standard_error is not None:
            found[f"{name}_se"] = estimate.standard_error
    return found


def paired_difference(baseline: Record, record: Record) -> dict[str, Difference]:
    """How each metric changed on the same items.

    Raises:
        ValueError: The records are not of the same items.
    """
    if baseline["kind"] != record["kind"] or baseline["digest"] != record["digest"]:
        raise ValueError("the records are of different items, so they cannot be compared in pairs")
    before, after = estimates(baseline), estimates(record)
    return {name: _difference(before[name], after[name]) for name in after}


def _difference(before: Estimate, after: Estimate) -> Difference:
    changes = [b - a for a, b in zip(before.contributions, after.contributions, strict=True)]
    return Difference(after.value - before.value, _standard_error(changes), len(changes))


def _ratio(sums: Sequence[float], counts: Sequence[float]) -> Estimate:
    ratio = math.fsum(sums) / math.fsum(counts)
    mean = math.fsum(counts) / len(counts)
    return Estimate(
        ratio,
        tuple((s - ratio * m) / mean for s, m in zip(sums, counts, strict=True)),
    )


def share_error(share: float, items: int) -> float | None:
    """Standard error of a share of right answers among ``items`` independent ones, as
    :func:`metrics` has it; None when there is only one item."""
    return math.sqrt(share * (1.0 - share) / (items - 1)) if items > 1 else None


def _share(digits: str) -> Estimate:
    return _ratio([float(digit) for digit in digits], [1.0] * len(digits))


def _standard_error(contributions: Sequence[float]) -> float | None:
    count = len(contributions)
    if count < 2:
        return None
    return math.sqrt(math.fsum(each * each for each in contributions) / (count * (count - 1)))
