"""A model of several metrics over the points of a space, made for very few measurements.

The logarithms ``Y`` (points, metrics) are a matrix-variate Gaussian process::

    Y = prior mean + G,    cov(G[x, a], G[y, b]) = K(x, y) * B[a, b]

with ``B`` inverse-Wishart, so what makes one metric surprising tells how surprising the others may
be, and the correlation between throughput and latency is part of every prediction. ``K`` is a sum
of slopes, of smooth curves along each number, of effects of each category, and of what they do
together. How much each parameter matters is a scale of its own, so that those that change nothing
are seen through. The scales are not fitted but averaged over: draws from their prior, moved to the
posterior by a few Metropolis steps. No optimiser, hence nothing to diverge with two points.

A simulator's numbers may be believed: with weight ``w`` they take the place of the prior mean, and
what is left to ``G`` is that much smaller. Both are scales like the others, so measurements decide
what the simulator counts for. That it is off by a constant factor takes little of its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from searchers import _auto_lore as lore
from searchers._auto_features import Array, Encoded, Features, Linear
from searchers._auto_scales import Scales

_DRAWS = 96
_CHAINS = 32
_STEPS = 40
_STRIDE = 0.6
_BLOCK = 0.3
_KEPT = 16
"""Of so many draws from the prior so many are resampled, moved by so many Metropolis steps of
this length along this share of all scales, and kept."""

_OFFSET = 3.0
_BLIND_OFFSET = 1.2
"""Prior deviation of the level of all metrics, after and before the first measurement."""

_LOAD_SPREADS = (0.25, 0.35, 0.5)
"""Prior deviation of the slopes over the three load features."""

_LEVEL = 0.7
"""By how much a believed level may be off before that speaks against the belief, a logarithm."""

_ACROSS = 0.3
"""How much of what parameters do together carries over to another category."""

_FREEDOM = 5.0
_LOADINGS = {"throughput": -0.93, "speed": -0.95, "first": 0.6, "next": 0.95, "whole": 0.9, "": 0.0}
_WIDTHS = {"first": 1.4}
"""The prior of ``B``: its degrees of freedom, each metric's share in their common cause, slowness,
and which vary more than others."""


@dataclass(frozen=True)
class Metric:
    """A column of ``Y``: its name, what it measures, the logarithm of its bound, if any, and
    whether it is the logarithm of something to be made large."""

    name: str
    kind: lore.Kind
    bound: float | None = None
    large: bool = False


class Model:
    """Everything about one space and its metrics that does not depend on measurements.

    Args:
        level: What was taken from ``believed`` of all points, (metrics,); None: nothing is
            believed.
    """

    def __init__(
        self, features: Features, metrics: Sequence[Metric], level: Array | None = None
    ) -> None:
        self.features = features
        self.metrics = tuple(metrics)
        self._level = level
        loadings = np.array([_LOADINGS[metric.kind] for metric in metrics])
        widths = np.array([_WIDTHS.get(metric.kind, 1.0) for metric in metrics])
        correlation = np.outer(loadings, loadings)
        np.fill_diagonal(correlation, 1.0)
        self._between = correlation * np.outer(widths, widths)
        shape = len(features.columns), len(metrics)
        self._slopes = np.array(
            [[_slope(column, metric) for metric in metrics] for column in features.columns]
        ).reshape(shape)
        self._rises = np.array(
            [[column.rise * metric.large for metric in metrics] for column in features.columns]
        ).reshape(shape)
        always = features.dimensions
        self._of = [always if c.numeric is None else c.numeric for c in features.columns]
        self._spreads = np.array([column.spread for column in features.columns])
        self._open = Scales.count(features, believing=level is not None)
        self._load_slopes = np.array([lore.load_slopes(metric.kind) for metric in metrics]).T

    def prior(self) -> Posterior:
        """The belief before any measurement: bounds were chosen to be met somewhere, and all
        parameters matter as usual."""
        normals = self._normals(_KEPT)
        normals[:, Scales.relevance(self.features)] = 0.0
        scales = self._scales(normals)
        bounds = np.array([metric.bound or 0.0 for metric in self.metrics])
        start = np.broadcast_to(bounds, (_KEPT, len(bounds)))
        if self._level is not None:
            start = start + scales.weight[:, None] * (self._level - bounds)
        between = np.broadcast_to(self._between, (_KEPT, *self._between.shape))
        return Posterior(self, scales, _BLIND_OFFSET * scales.left, start, between, None)

    def posterior(self, seen: Encoded, values: Array, doubt: Array) -> Posterior:
        """The belief after ``values`` (n, metrics), each row with extra noise ``doubt`` (n,).

        A value that is NaN was not measured.
        """
        values = self._completed(seen, values, doubt)
        return self._fitted(seen, values, doubt)

    def _completed(self, seen: Encoded, values: Array, doubt: Array) -> Array:
        """``values`` with what is missing replaced by what the complete rows predict."""
        missing = np.isnan(values)
        if not missing.any():
            return values
        whole = np.flatnonzero(~missing.any(axis=1))
        belief = self.prior()
        if len(whole):
            belief = self._fitted(seen.take(whole), values[whole], doubt[whole])
        mean, _, _ = belief.moments(seen, seen.take([]))
        filled = values.copy()
        for row in np.flatnonzero(missing.any(axis=1)):
            lost = missing[row]
            guess = mean[:, row].mean(axis=0)
            between = belief.between.mean(axis=0) + 1e-9 * np.eye(len(lost))
            known = between[np.ix_(~lost, ~lost)]
            gain = between[np.ix_(lost, ~lost)] @ np.linalg.pinv(known)
            filled[row, lost] = guess[lost] + gain @ (values[row, ~lost] - guess[~lost])
        return filled

    def _fitted(self, seen: Encoded, values: Array, doubt: Array) -> Posterior:
        generator = np.random.default_rng(len(values))
        normals = self._normals(_DRAWS)
        evidence = self._evidence(self._scales(normals), seen, values, doubt)
        kept = _resampled(evidence, _CHAINS)
        normals, evidence = normals[kept], evidence[kept]
        for _ in range(_STEPS if len(values) > 2 else 0):
            fresh = generator.standard_normal(normals.shape)
            moved = np.sqrt(1 - _STRIDE**2) * normals + _STRIDE * fresh
            moved = np.where(generator.random(normals.shape) < _BLOCK, moved, normals)
            proposed = self._evidence(self._scales(moved), seen, values, doubt)
            better = np.log(generator.random(len(moved))) < proposed - evidence
            normals[better], evidence[better] = moved[better], proposed[better]
        scales = self._scales(normals[:: _CHAINS // _KEPT])
        residual, start = self._residual(scales, seen, values)
        root = self._root(scales, seen, doubt)
        white = np.linalg.solve(root, residual)
        scatter = np.einsum("kna,knb->kab", white, white)
        freedom = _FREEDOM + len(values)
        between = (self._between * _FREEDOM + scatter) / freedom
        weights = np.linalg.solve(np.swapaxes(root, 1, 2), white)
        offset = np.full(len(start), _OFFSET)
        return Posterior(self, scales, offset, start, between, _Data(seen, root, weights))

    def _normals(self, count: int) -> Array:
        return np.random.default_rng(7).standard_normal((count, self._open))

    def _scales(self, normals: Array) -> Scales:
        return Scales.of(self.features, normals, believing=self._level is not None)

    def _evidence(self, scales: Scales, seen: Encoded, values: Array, doubt: Array) -> Array:
        """Log marginal likelihood of each draw, (N,), up to a constant."""
        root = self._root(scales, seen, doubt)
        residual, _ = self._residual(scales, seen, values)
        white = np.linalg.solve(root, residual)
        scatter = np.einsum("kna,knb->kab", white, white)
        _, size = np.linalg.slogdet(self._between * _FREEDOM + scatter)
        diagonal = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        fit: Array = -len(self.metrics) * diagonal - 0.5 * (_FREEDOM + len(values)) * size
        if self._level is not None and seen.believed is not None:
            off = (values - seen.believed).mean(axis=0) - self._level
            fit -= scales.weight * np.log1p((off / _LEVEL) ** 2).mean()
        return fit

    def _residual(self, scales: Scales, seen: Encoded, values: Array) -> tuple[Array, Array]:
        """What the prior mean leaves, (N, n, metrics), and its mean, (N, metrics)."""
        residual = values - self.mean(scales, seen)
        start = residual.mean(axis=1)
        return residual - start[:, None], start

    def _root(self, scales: Scales, seen: Encoded, doubt: Array) -> Array:
        kernel = self.kernel(scales, seen, seen, np.full(len(scales.noise), _OFFSET))
        noise = scales.noise[:, None] ** 2 + doubt**2 + 1e-6
        kernel[:, np.arange(len(seen)), np.arange(len(seen))] += noise
        return _cholesky(kernel)

    def mean(self, scales: Scales, points: Encoded) -> Array:
        """The prior mean, (N, points, metrics), but for its offset."""
        risen = points.linear * self._matters(scales)[:, None]
        mean: Array = (
            points.linear @ self._slopes
            + risen @ self._rises
            + self._loads(scales, points) @ self._load_slopes
        )
        if self._level is not None and points.believed is not None:
            mean = mean + scales.weight[:, None, None] * (points.believed - mean)
        return mean

    def kernel(self, scales: Scales, left: Encoded, right: Encoded, offset: Array) -> Array:
        """K, (N, left, right), whose constant part has the deviation ``offset`` (N,)."""
        loads, others = self._loads(scales, left), self._loads(scales, right)
        slopes = (left.linear * self._steepness(scales)[:, None]) @ right.linear.T
        scaled = np.einsum("kif,kjf,f->kij", loads, others, np.array(_LOAD_SPREADS) ** 2)
        total: Array = scales.slopes[:, None, None] ** 2 * (slopes + scaled)
        steep = np.einsum("ki,kj->kij", loads[:, :, 0], others[:, :, 0])
        steep *= scales.scaling[:, None, None] ** 2
        joint = np.broadcast_to(scales.joint[:, None, None] ** 2, total.shape).copy()
        for j in range(self.features.numeric):
            apart = np.abs(left.unit[:, None, j] - right.unit[None, :, j])
            curve = _matern(apart / scales.bend[:, None, None])
            total += (scales.curve * scales.matters[:, j])[:, None, None] ** 2 * curve
            joint *= _matern(apart / scales.lengths[:, j, None, None])
        for j in range(self.features.categorical):
            same = left.codes[:, None, j] == right.codes[None, :, j]
            level = scales.levels[:, j, None, None] ** 2
            total += np.where(same, level + steep, 0.0)
            matters = scales.matters[:, self.features.numeric + j, None, None]
            joint *= np.where(same, 1.0, _ACROSS**matters)
        total += joint
        total *= scales.left[:, None, None] ** 2
        total += offset[:, None, None] ** 2
        return total

    def diagonal(self, scales: Scales, points: Encoded, offset: Array) -> Array:
        """The diagonal of K, (N, points)."""
        loads = self._loads(scales, points)
        slopes = self._steepness(scales) @ (points.linear**2).T
        slopes = slopes + loads**2 @ np.array(_LOAD_SPREADS) ** 2
        curves = (scales.matters[:, : self.features.numeric] ** 2).sum(axis=1)
        fixed = scales.joint**2 + curves * scales.curve**2
        fixed = fixed + (scales.levels**2).sum(axis=1)
        steep = self.features.categorical * scales.scaling[:, None] ** 2 * loads[:, :, 0] ** 2
        diagonal: Array = fixed[:, None] + scales.slopes[:, None] ** 2 * slopes + steep
        return np.asarray(diagonal * scales.left[:, None] ** 2 + offset[:, None] ** 2)

    def _matters(self, scales: Scales) -> Array:
        """How much the parameter behind each column of the linear part matters, (N, columns)."""
        always = np.ones((len(scales.matters), 1))
        return np.asarray(np.concatenate([scales.matters, always], axis=1)[:, self._of])

    def _steepness(self, scales: Scales) -> Array:
        """Prior variance of each slope, (N, columns)."""
        return np.asarray((self._spreads * self._matters(scales)) ** 2)

    def _loads(self, scales: Scales, points: Encoded) -> Array:
        """Log running requests, its saturation, and log of the queue, (N, points, 3), centred."""
        out = np.zeros((len(scales.knee), len(points), 3))
        if self.features.load_range is None:
            return out
        load, seqs = points.load, points.seqs
        if load is None:
            assert seqs is not None
            running = -0.5 * np.logaddexp(-2 * seqs[None, :], -2 * scales.cap[:, None])
            queue = scales.cap[:, None] - running
        else:
            running = (load if seqs is None else np.minimum(load, seqs))[None, :]
            queue = load[None, :] - running
        middle = sum(self.features.load_range) / 2
        knee = scales.knee[:, None]
        out[:, :, 0] = running - middle
        out[:, :, 1] = np.logaddexp(0, running - knee) - np.logaddexp(0, middle - knee)
        out[:, :, 2] = queue
        return out


@dataclass(frozen=True)
class _Data:
    seen: Encoded
    root: Array
    weights: Array


@dataclass(frozen=True)
class Posterior:
    """A belief about every point: for each kept draw a mean, a variance, and ``between``."""

    model: Model
    scales: Scales
    offset: Array
    start: Array
    between: Array
    data: _Data | None

    def thinned(self, every: int) -> Posterior:
        """The same belief from fewer draws: rougher, and cheaper as many times."""
        data = self.data
        if data is not None:
            data = _Data(data.seen, data.root[::every], data.weights[::every])
        scales, offset = self.scales.thinned(every), self.offset[::every]
        start, between = self.start[::every], self.between[::every]
        return Posterior(self.model, scales, offset, start, between, data)

    def moments(self, points: Encoded, flying: Encoded) -> tuple[Array, Array, Array]:
        """Means (N, points, metrics) and a root of the part of the variance that multiplies
        ``between``: each point's share of the ``q`` independent causes behind ``flying``,
        (N, points, q), and its own rest, (N, points)."""
        mean = self.model.mean(self.scales, points) + self.start[:, None]
        variance = self.model.diagonal(self.scales, points, self.offset)
        shared = self.model.kernel(self.scales, points, flying, self.offset)
        among = self.model.kernel(self.scales, flying, flying, self.offset)
        if self.data is not None:
            cross = self.model.kernel(self.scales, points, self.data.seen, self.offset)
            mean = mean + cross @ self.data.weights
            white = np.linalg.solve(self.data.root, np.swapaxes(cross, 1, 2))
            variance = variance - (white**2).sum(axis=1)
            cross = self.model.kernel(self.scales, flying, self.data.seen, self.offset)
            others = np.linalg.solve(self.data.root, np.swapaxes(cross, 1, 2))
            shared = shared - np.swapaxes(white, 1, 2) @ others
            among = among - np.swapaxes(others, 1, 2) @ others
        among[:, np.arange(len(flying)), np.arange(len(flying))] += 1e-6
        root = _cholesky(among)
        causes = np.swapaxes(np.linalg.solve(root, np.swapaxes(shared, 1, 2)), 1, 2)
        rest = variance - (causes**2).sum(axis=2)
        return mean, causes, np.sqrt(np.maximum(rest, 1e-9))


def _slope(column: Linear, metric: Metric) -> float:
    return lore.slope(column.effect, metric.name, metric.kind)


def _matern(distance: Array) -> Array:
    scaled = np.sqrt(5.0) * distance
    correlation: Array = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return correlation


def _cholesky(matrices: Array) -> Array:
    return np.asarray(np.linalg.cholesky(matrices), dtype=np.float64)


def _resampled(evidence: Array, count: int) -> NDArray[np.int64]:
    """``count`` rows, each about as often as its evidence says (systematic resampling)."""
    weights = np.exp(evidence - evidence.max())
    edges = np.cumsum(weights) / weights.sum()
    rows = np.searchsorted(edges, (np.arange(count) + 0.5) / count)
    return np.minimum(rows, len(edges) - 1)
