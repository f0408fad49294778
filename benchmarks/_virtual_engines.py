"""Engines that stand for real ones: formulas, and a simulated engine on any device."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from benchmarks.serving_surfaces import Surface
from searchers import Json, Space
from tests.trainables.serving.simulated import write_config
from trainables import trial_type
from trainables.serving.forecast import Twin
from tuner.experiment import Objective

SPACE = Space.model_validate(
    {
        "tp": {"type": "enum", "values": [1, 2, 4, 8]},
        "quantization": {"type": "enum", "values": ["none", "w8a8", "w4a16"]},
        "max_num_seqs": {"type": "enum", "values": [8, 16, 32, 64, 128, 256]},
        "max_num_batched_tokens": {"type": "enum", "values": [1024, 4096, 16384]},
        "memory_utilization": {"type": "constant", "value": 0.9},
        "chunked_prefill": {"type": "constant", "value": True},
        "concurrency": {"type": "enum", "values": [16, 64, 128, 256, 512]},
    }
)
PLAYED = Space.model_validate(
    {
        "tensor-parallel-size": {"type": "enum", "values": [1, 2, 4]},
        "max-num-seqs": {"type": "enum", "values": [8, 16, 32, 64, 128, 256]},
        "max-num-batched-tokens": {"type": "enum", "values": [512, 1024, 2048, 8192]},
        "concurrency": {"type": "enum", "values": [4, 8, 16, 32, 64, 128]},
    }
)
Metrics = Mapping[str, float]


class Engine(Protocol):
    """What stands for a real engine: metrics of points, none where it would not start."""

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> Space: ...

    @property
    def objective(self) -> Objective: ...

    def measure(self, point: Mapping[str, Json]) -> Metrics: ...

    def other(self, chance: random.Random) -> Engine:
        """The same engine on a machine up to 30 % off."""
        ...


@dataclass(frozen=True)
class Formula:
    """A surface; see :class:`Engine`."""

    surface: Surface

    @property
    def name(self) -> str:
        return self.surface.name

    @property
    def space(self) -> Space:
        return SPACE

    @property
    def objective(self) -> Objective:
        return self.surface.objective

    def measure(self, point: Mapping[str, Json]) -> Metrics:
        return self.surface.measure(point) or {}

    def other(self, chance: random.Random) -> Formula:
        wrong = ("memory", "bandwidth", "compute", "link")
        factors = {name: chance.uniform(0.7, 1.3) for name in wrong}
        changed = {name: getattr(self.surface, name) * by for name, by in factors.items()}
        return Formula(replace(self.surface, **changed))


@dataclass(frozen=True)
class Played:
    """A simulated engine on a device of so many TFLOP/s, GB/s and GB; see :class:`Engine`."""

    folder: Path
    tflops: float = 280.0
    bandwidth: float = 1600.0
    memory: float = 32.0
    link: float = 100.0
    name: str = "played"

    @property
    def space(self) -> Space:
        return PLAYED

    @property
    def objective(self) -> Objective:
        limits = [{"metric": "ttft_mean_s", "max": 0.3}, {"metric": "tpot_mean_s", "max": 0.02}]
        return Objective.model_validate({"maximize": "output_tokens_per_s", "limits": limits})

    def measure(self, point: Mapping[str, Json]) -> Metrics:
        metrics = self._twin.play(point, self.folder / "trial", goes_on=lambda: True) or {}
        wanted = ("output_tokens_per_s", "ttft_mean_s", "tpot_mean_s")
        return {name: metrics[name] for name in wanted if name in metrics}

    def other(self, chance: random.Random) -> Played:
        wrong = ("memory", "bandwidth", "tflops", "link")
        return replace(self, **{n: getattr(self, n) * chance.uniform(0.7, 1.3) for n in wrong})

    @cached_property
    def _twin(self) -> Twin:
        serving = trial_type("serving")
        lengths = {"input_tokens": 800, "output_tokens": 120}
        block = {
            "type": "serving",
            "model": str(self.folder),
            "engine": {"type": "vllm", "args": {"max-model-len": 4096}},
            "positions": {"concurrency": "concurrency"},
            "benchmark": {
                "type": "builtin",
                "requests": 96,
                "workload": {"type": "random", **lengths},
            },
            "load": {"type": "fixed"},
        }
        latency = {
            "type": "analytic",
            "tflops": {"bfloat16": self.tflops},
            "memory_gb_per_s": self.bandwidth,
            "memory_gb": self.memory,
            "link_gb_per_s": self.link,
        }
        trial = serving(serving.Options.model_validate(block))
        return Twin(trial, {"latency": latency})


def played() -> Played:
    return Played(write_config(Path(tempfile.mkdtemp())))
