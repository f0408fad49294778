"""What the model of :mod:`searchers._auto_model` leaves open, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from searchers._auto_features import Array, Features

_KNEE = (3.8, 1.3)
_RATE_KNEE = (0.7, 0.3)
_CAP = (0.8, 0.3)
"""Mean and deviation of where load saturates, in logarithms of requests or shares of the range."""

_SLOPES = (1.0, 0.4)
_CURVE = (0.15, 0.7)
_BEND = (0.5, 0.4)
_LEVELS = (0.5, 0.6)
_SCALING = (0.15, 0.7)
_MATTERS = (1.0, 1.0)
_JOINT = (0.3, 0.7)
_LENGTHS = (0.7, 0.6)
_NOISE = (0.03, 0.8)
"""Median and log deviation of what :class:`Scales` draws."""

_WEIGHT = (1.0, 2.0)
_ENDS = 0.2
_TIGHT = (0.25, 0.6)
"""Of what is believed: mean and deviation of the weight's log odds, and by how much the weight is
stretched to end at 0 and 1; median and log deviation of the share of ``K`` that a belief of weight
1 leaves."""


@dataclass(frozen=True)
class Scales:
    """``N`` draws of what the kernel leaves open."""

    knee: Array  # (N,) log of the requests from which on more do not help
    cap: Array  # (N,) log of the requests there are, where only their limit is a parameter
    slopes: Array  # (N,) factor on the spread of all slopes
    curve: Array  # (N,) how far a number's curve departs from its slope
    bend: Array  # (N,) length over which it does
    levels: Array  # (N, categorical) spread of a category's effect
    scaling: Array  # (N,) spread of a category's slope over the load
    joint: Array  # (N,) how much parameters do together
    lengths: Array  # (N, numeric) over which lengths
    noise: Array  # (N,)
    matters: Array  # (N, numeric + categorical) how much each parameter does, 1 is usual
    weight: Array  # (N,) of what is believed
    tight: Array  # (N,) share of all spreads that a belief of weight 1 leaves

    @property
    def left(self) -> Array:
        """The share of all spreads that is left beside the belief, (N,)."""
        return np.asarray(1 - self.weight * (1 - self.tight))

    @staticmethod
    def count(features: Features, *, believing: bool) -> int:
        """How many numbers make a draw."""
        return 8 + 2 * features.dimensions + 2 * believing

    @staticmethod
    def relevance(features: Features) -> slice:
        """Which of these tell how much each parameter matters."""
        return slice(8 + features.dimensions, 8 + 2 * features.dimensions)

    @classmethod
    def of(cls, features: Features, normals: Array, *, believing: bool) -> Self:
        """From standard normals (N, :meth:`count`)."""
        numeric, categorical = features.numeric, features.categorical
        low, high = features.load_range or (0.0, 1.0)
        wide = high - low
        if features.counts_requests:
            knee = _KNEE[0] + _KNEE[1] * normals[:, 0]
        else:
            knee = low + (_RATE_KNEE[0] + _RATE_KNEE[1] * normals[:, 0]) * wide
        rest = normals[:, 8:]
        both = features.dimensions
        matters = _spread(_MATTERS, rest[:, both : 2 * both])
        weight, tight = np.zeros(len(normals)), np.ones(len(normals))
        if believing:
            odds = np.exp(_WEIGHT[0] + _WEIGHT[1] * rest[:, -2])
            weight = np.clip((1 + 2 * _ENDS) * odds / (1 + odds) - _ENDS, 0.0, 1.0)
            tight = np.minimum(_spread(_TIGHT, rest[:, -1]), 1.0)
        return cls(
            knee=knee,
            cap=low + (_CAP[0] + _CAP[1] * normals[:, 1]) * wide,
            slopes=_spread(_SLOPES, normals[:, 2]),
            curve=_spread(_CURVE, normals[:, 3]),
            bend=_spread(_BEND, normals[:, 4]),
            levels=_spread(_LEVELS, rest[:, :categorical]) * matters[:, numeric:],
            scaling=_spread(_SCALING, normals[:, 5]),
            joint=_spread(_JOINT, normals[:, 6]),
            lengths=_spread(_LENGTHS, rest[:, categorical : categorical + numeric])
            / np.sqrt(matters[:, :numeric]),
            matters=matters,
            noise=_spread(_NOISE, normals[:, 7]),
            weight=weight,
            tight=tight,
        )

    def thinned(self, every: int) -> Scales:
        return Scales(**{name: values[::every] for name, values in vars(self).items()})


def _spread(of: tuple[float, float], normals: Array) -> Array:
    return np.asarray(of[0] * np.exp(of[1] * normals), dtype=np.float64)
