"""Latency models by the name that ``latency: {type: ...}`` gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel

from trainables._registry import Registry
from trainables._trial import Json
from trainables.simulation import HostCosts, LatencyModel


@dataclass(frozen=True)
class Served:
    """What is served, and how one instance shares it out.

    Attributes:
        config: The model's ``config.json``.
        weight_bytes: Bytes of its weights on disk; None where only the config is known.
        tensor_parallel: Ranks that share every layer.
        pipeline_parallel: Ranks that share the layers out.
        expert_parallel: Ranks that share the experts out; 1: experts are shared like layers.
        eager: Whether it runs without captured graphs.
        graph_sizes: Tokens of a batch for which there is a captured graph, rising: a smaller
            batch is padded to the next of them. Empty with ``eager``; None: the engine's own.
        dtype: Of the weights, as engines call it: ``bfloat16``, ``w8a8``.
        kv_dtype: Of the KV cache.
        max_num_seqs: Sequences the engine admits, by which it chooses its own graph sizes.
    """

    config: Mapping[str, Json]
    weight_bytes: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    eager: bool = False
    graph_sizes: tuple[int, ...] | None = None
    dtype: str = "bfloat16"
    kv_dtype: str = "auto"
    max_num_seqs: int = 256


class LatencySource(ABC):
    """One way to know how long iterations take.

    Attributes:
        Options: Model of the whole ``latency`` block, ``type`` included.
    """

    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def model(self, served: Served) -> LatencyModel:
        """The model for what is served so.

        Raises:
            LatencyError: Its files are missing or not what they should be, or do not cover this.
        """

    @abstractmethod
    def identity(self) -> Json:
        """What decides its numbers: contents of files instead of their places."""

    def host(self, served: Served) -> HostCosts:
        """What of the host's work is known."""
        return HostCosts()

    def memory_bytes(self) -> int | None:
        """Memory of one device, where it is known."""
        return None

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``latency`` block, message)."""
        return []


class LatencyError(Exception):
    """A latency model cannot be made; the message says what is wrong, where, what to do."""


_MODELS: Registry[LatencySource] = Registry(
    "latency model",
    "npu_tuner.latency_models",
    {
        "xgboost": "trainables.latency._xgboost",
        "operators": "trainables.latency._operators",
        "analytic": "trainables.latency._analytic",
    },
)
register_latency_model = _MODELS.register
latency_model_types = _MODELS.names
latency_model_type = _MODELS.find
make_latency_model = _MODELS.make
