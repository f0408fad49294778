"""A decode instance alone: prompts that are computed in no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainables.simulation._batch import Batch
from trainables.simulation._latency import HostCosts, LatencyModel
from trainables.simulation._machine import Instance
from trainables.simulation._request import Request

_INSTANT = 1e-9


class _Instant(LatencyModel):
    def seconds(self, batch: Batch) -> float:
        return _INSTANT


def instant_prefill(like: Instance, requests: Sequence[Request]) -> Instance:
    """A prefill instance that nobody waits for.

    Args:
        like: The decode instance that it feeds.
        requests: All that may be under way at once.
    """
    size = like.settings.block_size
    settings = replace(
        like.settings,
        num_blocks=sum(one.input_tokens // size + 1 for one in requests),
        max_num_seqs=len(requests),
        max_num_batched_tokens=sum(one.input_tokens for one in requests),
        watermark=0.0,
    )
    return Instance("instant", settings, _Instant(), HostCosts())
