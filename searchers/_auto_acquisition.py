"""Which unseen point is worth the next trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from searchers._auto_features import Array, Encoded
from searchers._auto_model import Posterior

_SAMPLES = 64
"""Samples of each draw of the belief."""

_MANY = 768
_PROMISING = 192
_ROUGHER = 4
"""Of more points than the first, so many are looked at closely; a belief from every so many draws
finds which."""

_WORTH = 0.03
"""How much better a point has to be to count as an improvement, as a logarithm: less than repeats
of a benchmark differ. Without it trials go into variants of the best that change nothing."""

_DOUBTS = (2.0, 4.0, 8.0)
_NOTHING = 0.003
"""An expected improvement, as a logarithm, below which the belief is doubted."""

_HOPELESS = 0.6
"""Before anything satisfies, a point is worth what it promises above this quantile of all."""

_TIE = 1e-6
_ALL = 0.05

_REACH = 0.8
_KINSHIP = 0.15
_FAITH = 0.5
"""How far a failure reaches along a number (1 is its range), into another category, and how many
successes near by are taken for granted."""

_FEW = 0.5
_ALONE = 20.0
"""How probable it is that one parameter or two make trials fail, and by how much an outcome then
says less of other values of these."""


class Objective(NamedTuple):
    """A metric to be made large (``sign`` 1) or small (-1).

    With others beside it: its ``share`` of the interest, and the ``top`` and the ``span`` of
    ``sign`` times what has been measured.
    """

    column: int
    sign: int
    share: float = 1.0
    top: float = 0.0
    span: float = 1.0


@dataclass(frozen=True)
class Target:
    """What is wanted of the modelled metrics, on their modelled scale.

    Attributes:
        objectives: What is to be large; several are weighed against each other.
        bounds: (column, 1 for an upper or -1 for a lower limit, limit).
        best: The largest :meth:`value` among what satisfies; None: nothing does.
    """

    objectives: Sequence[Objective]
    bounds: Sequence[tuple[int, int, float]]
    best: float | None

    def value(self, metrics: Array) -> Array:
        """How good it is, over the last axis of ``metrics``.

        With several objectives that is the share-weighted distance of the one that lags most, so
        that other shares lead to other points of a front, wherever it bends; and a little of all.
        """
        parts = [one.sign * metrics[..., one.column] for one in self.objectives]
        if len(parts) < 2:
            return np.asarray(parts[0] if parts else np.zeros(metrics.shape[:-1]))
        lags = [
            one.share * (part - one.top) / one.span
            for one, part in zip(self.objectives, parts, strict=True)
        ]
        return np.asarray(np.min(lags, axis=0) + _ALL * np.sum(lags, axis=0))

    def kept(self, metrics: Array) -> Array:
        """1.0 where all bounds are kept, over the last axis of ``metrics``."""
        kept = np.ones(metrics.shape[:-1])
        for column, side, limit in self.bounds:
            kept *= side * metrics[..., column] <= side * limit
        return kept


def best_of(
    belief: Posterior,
    target: Target,
    points: Encoded,
    flying: Encoded,
    succeeding: Array,
    near: NDArray[np.bool_],
) -> tuple[int, float, float]:
    """The row of the point with the largest expected improvement, that, and its probability to
    satisfy. Of many points the promising ones are found with a rougher belief first.

    A belief that sees nothing to gain anywhere is supposed to be more wrong than it says. What is
    ``near`` (points,) the best is then tried with doubt first, and after that all that is left.
    """
    count = len(points)
    rows = np.arange(count)
    if count > _MANY:
        rough = belief.thinned(_ROUGHER)
        gain, likely = improvement(rough, target, points, flying, succeeding)
        promising = np.argsort(-_worth(rough, gain, likely, succeeding[:count]), kind="stable")[
            :_PROMISING
        ]
        rows = np.union1d(promising, np.flatnonzero(near))
        succeeding = np.concatenate([succeeding[rows], succeeding[count:]])
        points, near = points.take(rows), near[rows]
    everywhere, around = np.arange(len(points)), np.flatnonzero(near)
    places = [(1.0, everywhere)]
    for where in (around, everywhere):
        places += [(doubt, where) for doubt in _DOUBTS if len(where)]
    for doubt, where in places:
        likely_of_use = np.concatenate([succeeding[where], succeeding[len(points) :]])
        some = points.take(where)
        gain, likely = improvement(belief, target, some, flying, likely_of_use, doubt)
        if gain.max() >= _NOTHING:
            break
    best = int(np.argmax(_worth(belief, gain, likely, likely_of_use[: len(where)])))
    return int(rows[where[best]]), float(gain[best]), float(likely[best])


def improvement(
    belief: Posterior,
    target: Target,
    points: Encoded,
    flying: Encoded,
    succeeding: Array,
    doubt: float = 1.0,
) -> tuple[Array, Array]:
    """For each point the expected improvement on the best, and the probability to satisfy.

    What improves it by less than ``_WORTH`` does not. The best includes what the points in flight
    may bring: every sample of the belief covers them together with the candidate. ``succeeding``
    (points + flying,) is the probability that a trial gives a usable measurement at all. ``doubt``
    multiplies the standard deviations of the belief.
    """
    count, waiting = len(points), len(flying)
    everything = points.beside(flying)
    mean, causes, rest = belief.moments(everything, flying)
    value_floor = np.quantile(target.value(mean[:, :count]).mean(axis=0), _HOPELESS)
    floor = value_floor if target.best is None else target.best + _WORTH
    generator = np.random.default_rng(11)
    metrics = mean.shape[-1]
    common = generator.standard_normal((_SAMPLES // 2, waiting, metrics))
    own = generator.standard_normal((_SAMPLES // 2, metrics))
    common, own = np.concatenate([common, -common]), np.concatenate([own, -own])
    gained, satisfied = np.zeros(count), np.zeros(count)
    chance = generator.random((_SAMPLES, waiting)) < succeeding[count:]
    for draw in range(len(mean)):
        mixed = doubt * np.linalg.cholesky(belief.between[draw] + 1e-9 * np.eye(metrics)).T
        tied = np.einsum("pq,sqm->spm", causes[draw], common @ mixed)
        sample = mean[draw] + tied
        reached = np.full(_SAMPLES, floor)
        if waiting:
            ahead = sample[:, count:]
            useful = (target.kept(ahead) > 0) & chance
            reached = np.maximum(floor, np.where(useful, target.value(ahead), -np.inf).max(axis=1))
        sample = sample[:, :count] + rest[draw, :count, None] * (own @ mixed)[:, None]
        kept = target.kept(sample)
        gained += (np.maximum(target.value(sample) - reached[:, None], 0) * kept).mean(axis=0)
        satisfied += kept.mean(axis=0)
    scale = succeeding[:count] / len(mean)
    return gained * scale, satisfied * scale


def success(points: Encoded, tried: Encoded, failed: Array) -> Array:
    """The probability that a trial at each point is of use, from which of those ``tried`` were not.

    ``failed`` (tried,) holds how much each outcome speaks against its surroundings, 0 to 1. What
    makes trials fail is not known: one parameter, two together, or all. Each such cause counts as
    much as it tells what became of each trial from all others.
    """
    if not len(tried) or not failed.any():
        return np.ones(len(points))
    apart, others = _apart(points, tried), _apart(tried, tried)
    count = apart.shape[2]
    pairs = [list(pair) for size in (1, 2) for pair in combinations(range(count), size)]
    causes = [(pair, _FEW / len(pairs), _ALONE) for pair in pairs]
    causes.append((list(range(count)), 1 - _FEW, 1.0))
    fits, told = [], []
    for parameters, prior, sharper in causes:
        near = np.exp(-sharper * others[:, :, parameters].sum(axis=2))
        np.fill_diagonal(near, 0.0)
        kept = _voted(near, failed)
        fits.append(np.log(prior) + (failed == 0) @ np.log(kept) + failed @ np.log1p(-kept))
        told.append(_voted(np.exp(-sharper * apart[:, :, parameters].sum(axis=2)), failed))
    shares = np.exp(np.array(fits) - max(fits))
    return np.asarray(shares @ np.array(told) / shares.sum())


def _apart(left: Encoded, right: Encoded) -> Array:
    """How little an outcome says along each parameter, a logarithm, (left, right, parameters)."""
    numbers = 0.5 * ((left.unit[:, None] - right.unit[None]) / _REACH) ** 2
    unlike = (left.codes[:, None] != right.codes[None]) * -np.log(_KINSHIP)
    return np.concatenate([numbers, unlike], axis=2)


def _voted(near: Array, failed: Array) -> Array:
    useful = _FAITH + near @ (failed == 0)
    told = useful / (useful + near @ failed)
    return np.asarray(np.clip(told, 1e-3, 1 - 1e-3))


def _worth(belief: Posterior, gain: Array, likely: Array, succeeding: Array) -> Array:
    """What is chosen by. Until something ran, finding what does is worth as much as any gain."""
    worth = gain + _TIE * likely
    if belief.data is None:
        worth = worth + succeeding * (gain / np.maximum(succeeding, 1e-9)).max()
    return np.asarray(worth)
