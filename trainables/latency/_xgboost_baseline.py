"""The physical part of a learned latency model: a sum of work that only ever costs time.

Seconds = fixed cost + cost per token, per sequence, per token of context, per pair of attention...
The cost per token may differ with the number of tokens, as it does between batches that are bound
by the weights' memory traffic and those bound by arithmetic (the roofline of Williams, Waterman
and Patterson, 2009). All costs are non-negative and each depends on one feature, so the sum never
falls when a batch grows, and outside of what was measured it goes on as it was.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.latency._features import FEATURES, Table

_FIRST_KNOT = 16
_ROUNDS = 8
_USUAL_ERROR = 0.1
_LEAST_SPREAD = 0.1
_LEAST_SHARE = 0.05
"""Of the shortest iteration: the fixed cost that is assumed at least."""


@dataclass(frozen=True)
class Term:
    """A cost for what a feature has between two values.

    Attributes:
        feature: Its index.
        low, high: Between which it costs; ``high`` may be infinite.
        weight: Seconds per unit.
    """

    feature: int
    low: float
    high: float
    weight: float

    def of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds for values of the feature."""
        return self.weight * (np.clip(values, self.low, self.high) - self.low)


class Baseline:
    """A fixed cost and terms. Seconds.

    Args:
        intercept: Positive.
        terms: In any order.
    """

    def __init__(self, intercept: float, terms: Sequence[Term]) -> None:
        self.intercept = intercept
        self.terms = tuple(terms)
        self._straight = [
            (term.feature, term.weight)
            for term in self.terms
            if term.low == 0 and math.isinf(term.high)
        ]
        bent = {term.feature for term in self.terms if term.low or not math.isinf(term.high)}
        self._bent = [(feature, *self._pieces(feature)) for feature in sorted(bent)]

    def seconds(self, values: Sequence[float]) -> float:
        """Of one batch; positive."""
        total = self.intercept
        for feature, weight in self._straight:
            total += weight * values[feature]
        for feature, knots, costs, slopes in self._bent:
            value = values[feature]
            piece = bisect_right(knots, value) - 1
            total += costs[piece] + slopes[piece] * (value - knots[piece])
        return total

    def of(self, table: Table) -> NDArray[np.float64]:
        """Of many, shape (batches,)."""
        total = np.full(len(table), self.intercept)
        for term in self.terms:
            total += term.of(table[:, term.feature])
        return total

    def _pieces(self, feature: int) -> tuple[list[float], list[float], list[float]]:
        """Where the costs of a feature change, what they are there, and how they rise from there;
        without those that never change."""
        mine = [
            term
            for term in self.terms
            if term.feature == feature and (term.low or not math.isinf(term.high))
        ]
        ends = {end for term in mine for end in (term.low, term.high) if not math.isinf(end)}
        knots = sorted({0.0, *ends})
        costs = [sum(float(term.of(np.array(knot))) for term in mine) for knot in knots]
        slopes = [
            sum(term.weight for term in mine if term.low <= knot < term.high) for knot in knots
        ]
        return knots, costs, slopes

    def times(self, factor: float) -> Baseline:
        """All costs so much larger."""
        terms = [replace(term, weight=factor * term.weight) for term in self.terms]
        return Baseline(factor * self.intercept, terms)

    def document(self) -> dict[str, Any]:
        """As JSON; None stands for infinite."""
        terms = [
            {**asdict(term), "high": None if math.isinf(term.high) else term.high}
            for term in self.terms
        ]
        return {"intercept": self.intercept, "terms": terms}


def baseline_from(document: Any) -> Baseline:
    """Read what :meth:`Baseline.document` made.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` when it is none.
    """
    terms = tuple(
        Term(
            int(one["feature"]),
            float(one["low"]),
            math.inf if one["high"] is None else float(one["high"]),
            float(one["weight"]),
        )
        for one in document["terms"]
    )
    intercept = float(document["intercept"])
    numbers = [intercept, *(number for term in terms for number in (term.low, term.weight))]
    if intercept <= 0 or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError("the baseline has a cost that is negative or no number")
    if not all(0 <= term.feature < len(FEATURES) and term.high > term.low for term in terms):
        raise ValueError("the baseline has a term of no feature")
    return Baseline(intercept, terms)


def fit_baseline(table: Table, seconds: NDArray[np.float64]) -> Baseline:
    """The costs with the least squared relative error (Lawson and Hanson's NNLS), in which errors
    beyond a tenth count less the larger they are (Huber's weights, Holland and Welsch 1977).

    Args:
        table: Features, shape (iterations, features).
        seconds: Durations, shape (iterations,); positive.
    """
    units = _units(table)
    columns = [np.ones(len(table)), *(term.of(table[:, term.feature]) for term in units)]
    matrix = np.stack(columns, axis=1)
    importance = 1 / seconds
    least = _LEAST_SHARE * float(seconds.min())
    for _ in range(_ROUNDS):
        weights = _least_squares(matrix * importance[:, None], (seconds - least) * importance)
        weights[0] += least
        expected = matrix @ weights
        error = np.abs(seconds / expected - 1)
        importance = np.sqrt(np.minimum(1, _USUAL_ERROR / np.maximum(error, 1e-9))) / expected
    terms = (
        Term(unit.feature, unit.low, unit.high, float(weight))
        for unit, weight in zip(units, weights[1:], strict=True)
        if weight > 0
    )
    return Baseline(float(weights[0]), tuple(terms))


def _least_squares(matrix: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative weights of the columns."""
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    # The triangle has the same least squares as all rows, and is as small as the costs are many.
    triangle = np.asarray(np.linalg.qr(np.column_stack((matrix / scale, wanted)), mode="r"))
    weights, _ = nnls(triangle[:, :-1], triangle[:, -1], maxiter=100 * len(scale))
    return np.asarray(weights / scale, np.float64)


def _units(table: Table) -> list[Term]:
    """The costs that are looked for, at a second per unit.

    What hardly varies would take over the fixed cost, and has nothing to tell. The last knot is
    at half of the largest batch at most: what goes on beyond the largest batch then rests on more
    than a few rows.
    """
    tokens = FEATURES.index("tokens")
    largest = float(table[:, tokens].max())
    knots = [0.0]
    knot = float(_FIRST_KNOT)
    while knot <= largest / 2:
        knots.append(knot)
        knot *= 2
    units = [Term(index, 0.0, math.inf, 1.0) for index in range(len(FEATURES))]
    units.append(Term(FEATURES.index("chunks"), 0.0, 1.0, 1.0))
    units += [
        Term(tokens, low, high, 1.0)
        for low, high in zip(knots, [*knots[1:], math.inf], strict=True)
    ]
    return [unit for unit in units if _varies(unit.of(table[:, unit.feature]))]


def _varies(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) > _LEAST_SPREAD * values.max())
