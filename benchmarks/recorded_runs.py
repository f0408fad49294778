"""Recorded serving runs of real engines, as ``../shared/data/vllm_profiles`` holds them.

A folder has ``ops/`` (operator tables), ``run/meta.json`` (the engine's settings) and
``run/requests.jsonl`` (what happened to each request). Nothing of ``run/requests.jsonl`` but sizes
and arrivals of the requests goes into a simulation of it. What prompts had in common is in none of
them, but in the file that the client read them from, which ``meta.json`` names with its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.latency import make_latency_model
from trainables.latency._model import LatencySource, Served
from trainables.serving._memory import MemoryPlan, ModelShape, room
from trainables.simulation import Instance, Load, Request, SchedulerSettings

DATA = Path(os.environ.get("TUNER_DATA", Path(__file__).parents[2] / "shared" / "data"))
_PLACEHOLDER = 1
"""Blocks of vLLM's count that hold nothing."""
_GB_FREE = 0.9
"""vLLM's ``gpu_memory_utilization`` where the run does not tell it."""

MODELS: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
        "parameters": 8_030_261_248,
    },
    "Qwen3-32B": {
        "model_type": "qwen3",
        "hidden_size": 5120,
        "intermediate_size": 25600,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "torch_dtype": "bfloat16",
        "parameters": 32_762_123_264,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 262144,
        "torch_dtype": "bfloat16",
        "parameters": 30_532_122_624,
    },
}
"""What the published ``config.json`` of a model says, and its number of parameters."""


def folders() -> list[Path]:
    """All recorded runs there are."""
    return sorted(path.parents[1] for path in DATA.glob("vllm_profiles/*/run/meta.json"))


@dataclass(frozen=True)
class RecordedRun:
    """One folder.

    Attributes:
        folder: It.
        given: The model's ``config.json``; None: that of the model the run names.
        workloads: Folder with the file that the client read its prompts from; None: prompts are
            taken to have nothing in common.
    """

    folder: Path
    given: dict[str, Any] | None = None
    workloads: Path | None = None

    @cached_property
    def meta(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run" / "meta.json").read_text())
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        if self.given is not None:
            return self.given
        model = str(self.meta["model"])
        for name, config in MODELS.items():
            if name in model:
                return config
        raise ValueError(f"{self.folder}: the config of {model} is not known; give it by --config")

    @property
    def source(self) -> LatencySource:
        return make_latency_model({"type": "operators", "path": str(self.folder / "ops")})

    @cached_property
    def served(self) -> Served:
        engine = self.meta["engine_kwargs"]
        ranks = int(engine.get("tensor_parallel_size") or 1)
        instances = int(engine.get("data_parallel_size") or 1)
        spread = bool(engine.get("enable_expert_parallel"))
        return Served(
            self.config,
            tensor_parallel=ranks,
            expert_parallel=ranks * instances if spread else 1,
            eager=bool(engine.get("enforce_eager")),
            kv_dtype=str(engine.get("kv_cache_dtype") or "auto"),
            max_num_seqs=int(engine["max_num_seqs"]),
        )

    def instances(self) -> list[Instance]:
        """The engine of the run: one instance for each data-parallel rank."""
        engine, source = self.meta["engine_kwargs"], self.source
        cache = self.meta.get("kv_cache") or {}
        size = self._block
        settings = SchedulerSettings(
            max_num_seqs=int(engine["max_num_seqs"]),
            max_num_batched_tokens=int(engine["max_num_batched_tokens"]),
            num_blocks=int(cache.get("num_gpu_blocks") or self._blocks(source, size))
            - _PLACEHOLDER,
            block_size=size,
            max_model_len=engine.get("max_model_len"),
            prefix_caching=bool(cache.get("enable_prefix_caching", True)),
        )
        count = int(engine.get("data_parallel_size") or 1)
        model = source.model(self.served)
        return [Instance(f"rank {rank}", settings, model) for rank in range(count)]

    @property
    def sizes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tokens of each request's prompt, and of its answer."""
        return self._column("input_toks"), self._column("output_toks")

    def load(self) -> Load:
        """The requests, when the client sent them, with their lengths."""
        rows = zip(*self.sizes, strict=True)
        order = np.argsort(self.sent, kind="stable")
        sizes = [(int(prompt), int(answer)) for prompt, answer in rows]
        prefixes = self._prefixes()
        return Load(
            [
                Request(number, *sizes[row], float(self.sent[row]), prefixes[row], self._block)
                for number, row in enumerate(order)
            ]
        )

    @property
    def ttft(self) -> NDArray[np.float64]:
        """Seconds of each request, in the order of their arrival."""
        return (self.on_clock("first_token_ts") - self.sent)[np.argsort(self.sent, kind="stable")]

    @property
    def tpot(self) -> NDArray[np.float64]:
        """Seconds of each request, in the order of their arrival; each has two tokens at least."""
        lasted = self._column("last_token_ts") - self._column("first_token_ts")
        times = lasted / (self._column("output_toks") - 1)
        return times[np.argsort(self.sent, kind="stable")]

    @cached_property
    def sent(self) -> NDArray[np.float64]:
        """When each request was sent, in seconds after the first.

        Clients and engine have clocks of their own; no request was seen by the engine before it
        was sent, and one that found it idle was seen at once.
        """
        sent = self._column("arrival_time")
        return sent - sent[0]

    def on_clock(self, name: str) -> NDArray[np.float64]:
        """A time of the engine's clock in seconds after the first request was sent."""
        seen = self._column("queued_ts")
        offset = float(np.min(seen - seen[0] - self.sent))
        return self._column(name) - seen[0] - offset

    @property
    def _block(self) -> int:
        return int((self.meta.get("kv_cache") or {}).get("block_size") or 16)

    def _prefixes(self) -> list[tuple[int, ...]]:
        """Of each request, see :class:`Request`.

        Raises:
            ValueError: The client read its prompts from another file of that name.
        """
        if self.workloads is None:
            return [()] * len(self._rows)
        path = self.workloads / Path(self.meta["dataset_path"]).name
        text = path.read_bytes()
        if hashlib.sha256(text).hexdigest() != self.meta["dataset_hash"]:
            raise ValueError(f"{path} is not the file that {self.folder.name} was recorded with")
        prompts = [json.loads(line)["input_tok_ids"] for line in text.splitlines()]
        return [tuple(_chain(prompt, self._block)) for prompt in prompts]

    def _column(self, name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in self._rows], dtype=np.float64)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        text = (self.folder / "run" / "requests.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def _blocks(self, source: LatencySource, size: int) -> int:
        """By arithmetic, where the run does not tell."""
        parameters = int(self.config["parameters"])
        shape = ModelShape.of(self.config, parameters, 2 * parameters)
        plan = MemoryPlan(
            device_bytes=source.memory_bytes(),
            utilization=_GB_FREE,
            tensor_parallel=self.served.tensor_parallel,
            block_size=size,
        )
        found = None if shape is None else room(shape, plan)
        if found is None:
            raise ValueError(f"{self.folder}: the KV cache's size is not told and not known")
        return found.tokens // size


def _chain(prompt: list[int], size: int) -> Iterator[int]:
    """Hashes of a prompt's blocks, each of it and all before it."""
    last = 0
    for begin in range(0, len(prompt) - size + 1, size):
        last = hash((last, *prompt[begin : begin + size]))
        yield last
