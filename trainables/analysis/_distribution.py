"""How hard a tensor is to put on an even grid: std, quantile and kurtosis of its values.

The three metrics of msModelSlim's ``analyze linear``, computed exactly here except for the
quartiles, which are taken from a sample. Larger is harder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SAMPLE = 1 << 16
"""Values kept of each tensor for the quartiles."""
_PART = 256
"""Rows that are in memory in double precision at a time."""


class Distribution:
    """Running statistics of tensors of shape ``(..., channels)``, as if they were one."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._rows = 0
        self._low: Tensor | None = None
        self._high: Tensor | None = None
        self._sums = torch.zeros(0)
        self._samples: list[Tensor] = []

    def update(self, values: Tensor) -> None:
        """Take in a tensor; an empty one changes nothing."""
        rows = values.detach().reshape(-1, values.shape[-1])
        if not rows.numel():
            return
        low, high = rows.amin(0).double().cpu(), rows.amax(0).double().cpu()
        if self._low is None or self._high is None:
            self._low, self._high = low, high
            self._sums = torch.zeros((4, len(low)), dtype=torch.double)
        else:
            self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        for part in rows.split(_PART):
            exact = part.double().cpu()
            power = exact.clone()
            for total in self._sums:
                total += power.sum(0)
                power *= exact
        self._rows += len(rows)
        self._samples.append(self._sample(rows.flatten()))

    def _sample(self, flat: Tensor) -> Tensor:
        if flat.numel() > _SAMPLE:
            chosen = torch.randint(flat.numel(), (_SAMPLE,), generator=self._generator)
            flat = flat[chosen.to(flat.device)]
        return flat.double().cpu()

    def scores(self) -> dict[str, float]:
        """All metrics by name.

        * ``std``: ``max|x| / std(x - c)``, with ``c`` the middle of the range of x's channel; the
          absolute maximum when the deviation is 0.
        * ``quantile``: ``(2 max|x| / 254) / (Q3 - Q1 + 1e-10)``, one step of INT8 in terms of the
          interquartile range.
        * ``kurtosis``: excess kurtosis ``mean(z^4) - 3`` of all values; 0 when all are equal.

        Raises:
            ValueError: Nothing was seen.
        """
        if self._low is None or self._high is None:
            raise ValueError("there are no values to describe")
        largest = float(torch.maximum(self._high.abs(), self._low.abs()).max())
        deviation = self._centred_deviation((self._high + self._low) / 2)
        quartiles = torch.quantile(
            torch.cat(self._samples), torch.tensor([0.25, 0.75], dtype=torch.double)
        )
        return {
            "std": largest / deviation if deviation > 0 else largest,
            "quantile": 2 * largest / 254 / (float(quartiles[1] - quartiles[0]) + 1e-10),
            "kurtosis": self._excess_kurtosis(),
        }

    def _centred_deviation(self, centre: Tensor) -> float:
        """Standard deviation (over all values, not channel by channel) of ``x - centre``."""
        count = self._rows * len(centre)
        first = self._sums[0] - self._rows * centre
        second = self._sums[1] - 2 * centre * self._sums[0] + self._rows * centre**2
        mean = float(first.sum()) / count
        return math.sqrt(max(0.0, float(second.sum()) / count - mean**2))

    def _excess_kurtosis(self) -> float:
        count = self._rows * self._sums.shape[1]
        moments: list[float] = (self._sums.sum(1) / count).tolist()
        one, two, three, four = moments
        variance = two - one**2
        if variance <= 1e-12 * two:
            return 0.0
        fourth = four - 4 * one * three + 6 * one**2 * two - 3 * one**4
        return fourth / variance**2 - 3
