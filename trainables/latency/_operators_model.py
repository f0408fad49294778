"""Durations of iterations, composed from the times of their operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.latency._operators_attention import AttentionGrid, as_one_chunk
from trainables.latency._operators_flash import Spread
from trainables.latency._operators_graphs import padded
from trainables.latency._operators_skew import Skew
from trainables.simulation import Batch, LatencyModel


@dataclass(frozen=True)
class Composition:
    """What an iteration is made of. Times are microseconds.

    Attributes:
        by_tokens: All that depends on the tokens computed: dense operators, experts,
            communication.
        by_sequences: All that is done once per sequence: logits, sampling.
        attention: Of one layer.
        layers: Attention layers.
        skew: Correction for unequal contexts, as it was fitted; None: none.
        graph_sizes: Tokens of captured graphs, rising.
        spread: Correction for unequal contexts, as the kernel works: counts instead of ``skew``
            where sequences are not split; None: none.
    """

    by_tokens: Callable[[int], float]
    by_sequences: Callable[[int], float]
    attention: AttentionGrid
    layers: int
    skew: Skew | None = None
    graph_sizes: tuple[int, ...] = ()
    spread: Spread | None = None


class OperatorLatency(LatencyModel):
    """The sum of a batch's operators, one after the other."""

    def __init__(self, parts: Composition) -> None:
        self._parts = parts
        self._attention = parts.attention
        self._seconds = parts.layers * 1e-6
        self._skew, self._spread = parts.skew, parts.spread
        self._rest: dict[tuple[int, int], float] = {}

    def seconds(self, batch: Batch) -> float:
        rest = self._rest_seconds(batch.tokens, batch.sequences)
        if not batch.prefills:
            return rest + self._decode(batch) * self._seconds
        chunk, before = as_one_chunk(batch.prefills)
        count = batch.decodes
        if not count:
            return rest + self._attention(chunk, before, 0.0, 0.0)[0] * self._seconds
        mean, longest = batch.context / count, batch.context_max
        if self._spread is not None and longest > batch.context_min:
            time, most = self._attention(chunk, before, count, mean, longest)
            late = time + self._spread.mixed_tail(count, mean, longest)
            return rest + min(late, max(time, most)) * self._seconds
        alpha = 0.0
        if self._skew is not None and longest > batch.context_min:
            alpha = self._skew.alpha(chunk, before, count, _rate(batch), longest)
        if not alpha:
            return rest + self._attention(chunk, before, count, mean)[0] * self._seconds
        time, most = self._attention(chunk, before, count, mean, longest)
        return rest + (time + alpha * max(most - time, 0.0)) * self._seconds

    def decode_seconds(self, batch: Batch, iterations: int) -> NDArray[np.float64]:
        count = batch.decodes
        row = self._attention.decode_row(count)
        steps = np.arange(iterations)
        means = (batch.context + count * steps) / count
        times = row.many(means)
        unequal = batch.context_max > batch.context_min
        longest = (batch.context_max + steps).astype(np.float64)
        spread = self._whole(count)
        if unequal and spread is not None:
            late = row.work(means) + spread.decode_tail(count, means, longest)
            times = np.maximum(times, np.minimum(late, row.many(longest)))
        elif unequal and self._skew is not None:
            alphas = self._skew.alphas(count, _rate(batch), longest)
            times += alphas * np.maximum(row.many(longest) - times, 0.0)
        return np.asarray(self._rest_seconds(count, count) + times * self._seconds)

    def _decode(self, batch: Batch) -> float:
        count, longest = batch.decodes, batch.context_max
        row = self._attention.decode_row(count)
        mean = batch.context / count
        time = row(mean)
        if longest == batch.context_min:
            return time
        spread = self._whole(count)
        if spread is not None:
            late = row.work(mean) + spread.decode_tail(count, mean, float(longest))
            return max(time, min(late, row(longest)))
        if self._skew is not None:
            alpha = self._skew.alpha(0.0, 0.0, count, _rate(batch), longest)
            time += alpha * max(row(longest) - time, 0.0)
        return time

    def _whole(self, count: int) -> Spread | None:
        """How decoding sequences are spread if they are not split."""
        spread = self._spread
        if spread is None or spread.splits(padded(count, self._parts.graph_sizes)):
            return None
        return spread

    def _rest_seconds(self, tokens: int, sequences: int) -> float:
        """Of all but attention."""
        rest = self._rest.get((tokens, sequences))
        if rest is None:
            parts = self._parts
            computed = padded(tokens, parts.graph_sizes)
            rest = (parts.by_tokens(computed) + parts.by_sequences(sequences)) * 1e-6
            self._rest[tokens, sequences] = rest
        return rest


def _rate(batch: Batch) -> float:
    """(mean - min) / (max - min) of the contexts, which does not change as all of them grow."""
    count, least = batch.decodes, batch.context_min
    return (batch.context - count * least) / (count * (batch.context_max - least))
