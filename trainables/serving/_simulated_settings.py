"""How an engine's settings become those of the simulated scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines._simulated import SimulatedSize
from trainables.latency import Served
from trainables.serving._memory import MemoryPlan, kv_bytes_per_token, room
from trainables.serving._simulated_model import SimulatedModel, text_config
from trainables.simulation import SchedulerSettings

_LOGIT_BYTES = 10
"""Of one logit while it is sampled from: as computed, in float32, and its probability."""


@dataclass(frozen=True)
class Understood:
    """A deployment as the simulator sees it.

    Attributes:
        settings: Of each instance.
        served: What each instance computes, for the latency model.
        replicas: Instances behind the router: data-parallel ranks.
        blocks_from: Where the number of blocks is from, for people.
        fits: Whether one sequence of the longest permitted length fits into the KV cache.
        most_output: Tokens after which the engine ends an answer; None: as many as are asked for.
        notes: What is set and has no effect here.
        kv_token_bytes: Of the keys and values of one token, in all ranks together; None: unknown.
    """

    settings: SchedulerSettings
    served: Served
    replicas: int = 1
    blocks_from: str = ""
    fits: bool = True
    most_output: int | None = None
    notes: tuple[str, ...] = ()
    kv_token_bytes: float | None = None


@dataclass(frozen=True)
class KvBlocks:
    """Blocks of the KV cache of one instance, and where the number is from."""

    count: int
    source: str


def kv_blocks(
    model: SimulatedModel, plan: MemoryPlan, size: SimulatedSize, activations: int
) -> KvBlocks:
    """Blocks of the KV cache: as given, else what remains of the memory.

    Args:
        activations: Bytes of each device that computing needs, an estimate.

    Raises:
        StageError: Neither the number nor the memory is known, or nothing remains.
    """
    if size.num_blocks is not None:
        return KvBlocks(size.num_blocks, "given")
    if size.kv_cache_tokens is not None:
        return KvBlocks(max(1, size.kv_cache_tokens // plan.block_size), "given in tokens")
    shape = model.shape
    if shape is None:
        said = "the KV cache of this architecture cannot be computed"
        raise StageError("input", said, "give engine.num_blocks, as the engine's log says it")
    if plan.kv_bytes is None and plan.device_bytes is not None:
        spent = math.ceil(activations / plan.utilization)
        plan = replace(plan, device_bytes=max(1, plan.device_bytes - spent))
    found = room(shape, replace(plan, longest=plan.longest or 1))
    if found is None:
        raise StageError(
            "input",
            "how much memory the KV cache has is not known",
            "give engine.device_memory (64GiB), engine.num_blocks or engine.kv_cache_tokens",
        )
    if found.tokens < plan.block_size:
        raise StageError(
            "out_of_memory",
            f"the model leaves no room for a KV cache: {model.weight_bytes / 2**30:.1f} GiB of "
            f"weights on {plan.tensor_parallel * plan.pipeline_parallel} devices",
            "share it out over more devices, or raise the share of memory that may be used",
        )
    each = kv_bytes_per_token(shape, plan)
    source = "given in bytes" if plan.kv_bytes is not None else "estimated from the memory"
    return KvBlocks(found.tokens // plan.block_size, f"{source}, {each:.0f} bytes per token")


def kv_token_bytes(model: SimulatedModel, plan: MemoryPlan) -> float | None:
    """Bytes of one token's keys and values in all ranks together; None where the architecture is
    not known."""
    whole = replace(plan, tensor_parallel=1, pipeline_parallel=1)
    return None if model.shape is None else kv_bytes_per_token(model.shape, whole)


def activation_bytes(
    config: Mapping[str, Json], tokens: int, sequences: int, tensor_parallel: int
) -> int:
    """Bytes that computing an iteration needs on each device, an estimate.

    The residual stream, its copy and the widest layer's input and output at two bytes for every
    token, and the logits of every sequence. Engines measure it by computing the largest batch.
    """
    text = text_config(config)
    hidden = int(text.get("hidden_size") or 0)
    experts = int(text.get("num_experts_per_tok") or 1)
    inner = int(text.get("moe_intermediate_size") or 0) * experts
    inner = max(inner, int(text.get("intermediate_size") or 0))
    vocabulary = int(text.get("vocab_size") or 0)
    wide = 2 * tokens * (4 * hidden + 3 * math.ceil(inner / tensor_parallel))
    return wide + _LOGIT_BYTES * min(tokens, sequences) * vocabulary
