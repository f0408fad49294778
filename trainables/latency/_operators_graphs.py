"""Batches that a captured graph pads to its own size."""

from __future__ import annotations

from bisect import bisect_left

from trainables.latency._model import Served


def captured_sizes(served: Served) -> tuple[int, ...]:
    """Tokens of a batch for which there is a captured graph, rising; none with ``eager``.

    Unless they are given, vLLM's own (``VllmConfig._set_cudagraph_sizes``): 1, 2, 4, then steps of
    8 below 256 and of 16 from there, up to twice ``max_num_seqs`` and 512.
    """
    if served.eager:
        return ()
    if served.graph_sizes is not None:
        return tuple(sorted(served.graph_sizes))
    largest = min(2 * served.max_num_seqs, 512)
    sizes = [size for size in (1, 2, 4) if size <= largest]
    sizes += range(8, min(largest + 1, 256), 8)
    return (*sizes, *range(256, largest + 1, 16))


def padded(tokens: int, sizes: tuple[int, ...]) -> int:
    """Tokens that operators between attention layers compute: those of the next larger graph. A
    batch beyond the largest one runs without (vLLM's ``CudagraphDispatcher.dispatch``), also one
    with prompts is padded: its graphs are piecewise."""
    place = bisect_left(sizes, tokens)
    return sizes[place] if place < len(sizes) else tokens
