"""A model that is only a configuration, and an engine whose iterations take what a line says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trainables import Result, TrialRun, TrialSpec, trial_type
from trainables.latency import LatencySource, Served, register_latency_model
from trainables.simulation import Batch, LatencyModel

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
TTFT = {"metric": "ttft_mean_s", "max": 1.0}
TPOT = {"metric": "tpot_mean_s", "max": 0.03}


class LinearOptions(BaseModel):
    """Seconds of an iteration: a constant, and so much for each token."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["linear"] = "linear"
    base: float = 0.01
    prefill: float = 5e-5
    decode: float = 1e-4


class Linear(LatencyModel):
    def __init__(self, options: LinearOptions) -> None:
        self.options = options

    def seconds(self, batch: Batch) -> float:
        options = self.options
        return (
            options.base + options.prefill * batch.prefill_tokens + options.decode * batch.decodes
        )

    def decode_seconds(self, batch: Batch, iterations: int) -> NDArray[np.float64]:
        return np.full(iterations, self.seconds(batch))


@register_latency_model("linear")
class LinearSource(LatencySource):
    Options = LinearOptions
    served: Served | None = None

    def model(self, served: Served) -> LatencyModel:
        type(self).served = served
        return Linear(self.options)

    def identity(self) -> Any:
        return self.options.model_dump()


def write_config(folder: Path, **changes: Any) -> Path:
    """A folder with nothing but the configuration of an 8B Llama."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_8B | changes))
    return folder


def engine_block(of: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    of = {"type": "vllm-ascend", "args": {"max-model-len": 4096}} if of is None else of
    block = {"type": "simulated", "of": of, "latency": {"type": "linear"}}
    return block | ({"device_memory": "64GiB"} | more)


def trial_of(model: Path, *, limits: list[dict[str, Any]] | None = None, **changes: Any) -> Any:
    block = {
        "type": "serving",
        "model": str(model),
        "engine": engine_block(),
        "benchmark": {
            "type": "builtin",
            "requests": 200,
            "workload": {"type": "random", "input_tokens": 400, "output_tokens": 80},
        },
    } | changes
    kind = trial_type(block["type"])
    trial = kind(kind.Options.model_validate(block))
    trial.goal = {
        "maximize": ["output_tokens_per_s"],
        "minimize": [],
        "limits": [TTFT, TPOT] if limits is None else limits,
    }
    return trial


def carried_out(
    trial: Any,
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    kind: str = "candidate",
    context: Mapping[str, Any] | None = None,
) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    spec = TrialSpec(
        *("run", "cafe", str(folder), trial.options.type, kind, dict(parameters or {}), 0, {}),
        context=context or {},
    )
    steps = trial.run(TrialRun(spec))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Result = end.value
            return found
