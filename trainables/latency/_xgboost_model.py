"""A learned latency model at work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.latency._features import CONTEXT, CONTEXT_MAX, Table, features
from trainables.latency._xgboost_baseline import Baseline
from trainables.latency._xgboost_hull import Hull
from trainables.latency._xgboost_trees import Forest
from trainables.simulation import Batch, LatencyModel

_FLOOR = 0.1
"""Share of the baseline that a prediction is at least."""
_FEW = 8
"""Iterations that are asked for one by one: arrays cost more than so few."""


@dataclass(frozen=True)
class Fit:
    """What training found.

    Within the ranges of the training data a batch takes baseline ** power * exp(offset + trees),
    in seconds. The trees rise with every feature, so the whole does; the power leaves them room to
    rise where the truth rises slower than the baseline. Outside, what the baseline takes beyond
    the nearest batch within the ranges is added.

    Attributes:
        power: Between 0 and 1.
        offset: What the trees start from.
    """

    baseline: Baseline
    forest: Forest
    power: float
    offset: float
    hull: Hull

    def of(self, table: Table) -> NDArray[np.float64]:
        """Seconds of many batches, shape (batches,), from their features."""
        low, high = np.array(self.hull.low), np.array(self.hull.high)
        inside = np.clip(table, low, high)
        expected, within = self.baseline.of(table), self.baseline.of(inside)
        learned = within**self.power * np.exp(self.offset + self.forest.of(inside))
        return np.maximum(learned + expected - within, _FLOOR * expected)


class LearnedLatency(LatencyModel):
    """Seconds of an iteration from boosted trees over a physical baseline.

    Never falls when a batch grows.

    Attributes:
        iterations: Predicted so far.
        extrapolated: Of them, not :meth:`trusted`.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._constant = _constant(fit.baseline)
        thresholds = fit.forest.thresholds
        self._by_context = np.array(thresholds[CONTEXT])
        self._by_longest = np.array(thresholds[CONTEXT_MAX])
        self.iterations = 0
        self.extrapolated = 0

    def trusted(self, batch: Batch) -> bool:
        """Whether the model was trained on batches like this one."""
        values, hull = features(batch), self._fit.hull
        return hull.holds(values) and hull.near(values)

    def seconds(self, batch: Batch) -> float:
        fit, values = self._fit, features(batch)
        expected = fit.baseline.seconds(values)
        self.iterations += 1
        if not fit.hull.holds(values):
            self.extrapolated += 1
            inside = fit.hull.clamped(values)
            within = fit.baseline.seconds(inside)
            learned = self._learned(within, inside)
            return max(learned + (expected - within), _FLOOR * expected)
        if not fit.hull.near(values):
            self.extrapolated += 1
        return max(self._learned(expected, values), _FLOOR * expected)

    def decode_seconds(self, batch: Batch, iterations: int) -> NDArray[np.float64]:
        if iterations <= _FEW:
            few = [self.seconds(batch.after(step)) for step in range(iterations)]
            return np.array(few, np.float64)
        fit, values = self._fit, features(batch)
        steps = np.arange(iterations, dtype=np.float64)
        context = batch.context + batch.decodes * steps
        longest = batch.context_max + steps
        expected = self._along(values, context, longest)
        if fit.hull.holds(values) and fit.hull.holds(features(batch.after(iterations - 1))):
            self._count(iterations, fit.hull.near_along(values, context))
            learned = expected**fit.power * np.exp(
                fit.offset + self._trees_along(values, context, longest)
            )
            return np.maximum(learned, _FLOOR * expected)
        self._count(iterations, self._known_along(values, context, longest))
        inside = fit.hull.clamped(values)
        context = np.clip(context, fit.hull.low[CONTEXT], fit.hull.high[CONTEXT])
        longest = np.clip(longest, fit.hull.low[CONTEXT_MAX], fit.hull.high[CONTEXT_MAX])
        within = self._along(inside, context, longest)
        learned = within**fit.power * np.exp(
            fit.offset + self._trees_along(inside, context, longest)
        )
        return np.maximum(learned + (expected - within), _FLOOR * expected)

    def _learned(self, baseline: float, values: tuple[float, ...]) -> float:
        fit = self._fit
        trees = fit.forest.value(fit.forest.passed(values))
        return math.pow(baseline, fit.power) * math.exp(fit.offset + trees)

    def _along(
        self,
        values: tuple[float, ...],
        context: NDArray[np.float64],
        longest: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The baseline of batches that differ in their contexts only."""
        total = np.full(len(context), self._constant.seconds(values))
        for term in self._fit.baseline.terms:
            if term.feature == CONTEXT:
                total += term.of(context)
            elif term.feature == CONTEXT_MAX:
                total += term.of(longest)
        return total

    def _trees_along(
        self,
        values: tuple[float, ...],
        context: NDArray[np.float64],
        longest: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The trees' part of such batches: asked once for each stretch on which it is the same."""
        forest = self._fit.forest
        first = list(forest.passed(values))
        by_context = _passed(self._by_context, context)
        by_longest = _passed(self._by_longest, longest)
        changes = (np.diff(by_context) != 0) | (np.diff(by_longest) != 0)
        starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        found = np.empty(len(starts))
        for number, start in enumerate(starts.tolist()):
            first[CONTEXT], first[CONTEXT_MAX] = int(by_context[start]), int(by_longest[start])
            found[number] = forest.value(tuple(first))
        return np.repeat(found, np.diff(np.append(starts, len(context))))

    def _known_along(
        self,
        values: tuple[float, ...],
        context: NDArray[np.float64],
        longest: NDArray[np.float64],
    ) -> int:
        """How many of such batches are trusted."""
        hull = self._fit.hull
        fits = (context >= hull.low[CONTEXT]) & (context <= hull.high[CONTEXT])
        fits &= (longest >= hull.low[CONTEXT_MAX]) & (longest <= hull.high[CONTEXT_MAX])
        if not fits.any():
            return 0
        step = int(np.argmax(fits))
        moved = list(values)
        moved[CONTEXT], moved[CONTEXT_MAX] = float(context[step]), float(longest[step])
        return hull.near_along(values, context[fits]) if hull.holds(moved) else 0

    def _count(self, iterations: int, known: int) -> None:
        self.iterations += iterations
        self.extrapolated += iterations - known


def _constant(baseline: Baseline) -> Baseline:
    """What of the baseline does not depend on contexts of decoding sequences."""
    others = (term for term in baseline.terms if term.feature not in (CONTEXT, CONTEXT_MAX))
    return Baseline(baseline.intercept, tuple(others))


def _passed(thresholds: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Thresholds passed, compared in single precision."""
    return np.searchsorted(thresholds, values.astype(np.float32), side="right")
