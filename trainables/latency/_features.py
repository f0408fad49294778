"""What of a batch a learned latency model sees.

None of the features ever falls when a batch grows: by another sequence, another chunk, a longer
chunk or more context. A model that rises with each of them therefore never says that more work
takes less time. That is why there is no mean of contexts among them, and no histogram: both depend
on the load they were seen under.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainables.simulation import Batch

Kind = Literal["prefill", "decode", "mixed"]
Table = NDArray[np.float64]

FEATURES = (
    "prefill_tokens",
    "chunks",
    "longest_chunk",
    "prefill_context",
    "prefill_work",
    "decodes",
    "context",
    "context_max",
    "tokens",
    "sequences",
)
"""In the order of the values of :func:`features`.

``prefill_work`` is the attention of the chunks in token pairs: the sum of
chunk * (context + chunk / 2). ``context`` and ``context_max`` are of decoding sequences,
``prefill_context`` is the sum over chunks. All others count tokens or sequences.
"""

CONTEXT = FEATURES.index("context")
CONTEXT_MAX = FEATURES.index("context_max")
KINDS: tuple[Kind, ...] = ("prefill", "decode", "mixed")


def features(batch: Batch) -> tuple[float, ...]:
    """The values of one batch."""
    decodes = batch.decodes
    if not batch.prefills:
        context, longest = batch.context, batch.context_max
        return (0.0, 0.0, 0.0, 0.0, 0.0, decodes, context, longest, decodes, decodes)
    tokens = longest_chunk = had = work = 0
    for new, context in batch.prefills:
        tokens += new
        had += context
        work += new * (2 * context + new)
        if new > longest_chunk:
            longest_chunk = new
    chunks = len(batch.prefills)
    return (
        tokens,
        chunks,
        longest_chunk,
        had,
        work / 2,
        decodes,
        batch.context,
        batch.context_max,
        tokens + decodes,
        chunks + decodes,
    )


def feature_table(batches: Sequence[Batch]) -> Table:
    """The values of many batches, shape (batches, features)."""
    table = np.array([features(batch) for batch in batches], dtype=np.float64)
    return table.reshape(-1, len(FEATURES))


def kind_of(batch: Batch) -> Kind:
    """What a batch computes: chunks of prompts, single tokens, or both."""
    if not batch.prefills:
        return "decode"
    return "mixed" if batch.decodes else "prefill"
