"""Serving an LLM as a formula: a roofline, a queue, and memory that may run out.

Eight devices serve ``concurrency`` clients, each of which sends its next request when it has its
answer. Eight over ``tp`` copies of the model share them.

* A step of a copy reads the weights and the cache of every running request, or computes, whichever
  takes longer, and exchanges activations between its devices.
* At most ``max_num_seqs`` requests run in a copy, and no more than the cache has room for; the
  others wait. The cache gets what weights and activations leave of ``memory_utilization``.
* Prompts are computed ``max_num_batched_tokens`` at a time. With chunked prefill they share steps
  with running requests; without, those stand still meanwhile, which costs them twice as much but
  leaves the prompt to itself.
* A copy whose weights or activations do not fit fails as it starts; so does one whose activations
  do not fit beside a cache that was given nearly everything.

Every number is deterministic. The best point is found by trying all of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from searchers import Goal, Json, Outcome, Space
from tuner._judge import judge
from tuner.experiment import Objective
from tuner.replay import Evaluation

DEVICES = 8
_POWERS = [2**k for k in range(10)]
SPACE = Space.model_validate(
    {
        "tp": {"type": "enum", "values": [1, 2, 4, 8]},
        "quantization": {"type": "enum", "values": ["none", "w8a8", "w4a16"]},
        "max_num_seqs": {"type": "enum", "values": _POWERS},
        "max_num_batched_tokens": {"type": "enum", "values": [512 * 2**k for k in range(6)]},
        "memory_utilization": {"type": "enum", "values": [0.8, 0.85, 0.9, 0.95]},
        "chunked_prefill": {"type": "bool"},
        "concurrency": {"type": "enum", "values": [4 * power for power in _POWERS]},
    }
)
_BYTES = {"none": 2.0, "w8a8": 1.0, "w4a16": 0.55}
_SPEEDUP = {"none": 1.0, "w8a8": 1.7, "w4a16": 0.8}
"""Of computing, beside sixteen bits."""

_OVERHEAD = 0.004
"""Seconds of a step that no device works."""


@dataclass(frozen=True)
class Surface:
    """A model on a machine under a load, with its SLO; a :class:`tuner.replay.World`.

    Attributes:
        weights: Parameters of the model, in 1e9.
        cache: Bytes of cache per token of context.
        prompt, answer: Tokens of a request.
        memory, bandwidth, compute: Of a device: 1e9 bytes, 1e9 bytes/s, 1e12 operations/s.
        link: Seconds that a step exchanges activations, for each doubling of ``tp``.
        ttft, tpot: The SLO, in seconds.
    """

    name: str
    weights: float
    cache: float
    prompt: int
    answer: int
    memory: float
    bandwidth: float
    compute: float
    link: float
    ttft: float
    tpot: float

    @property
    def space(self) -> Space:
        return SPACE

    @cached_property
    def objective(self) -> Objective:
        limits = [
            {"metric": "ttft_mean_s", "max": self.ttft},
            {"metric": "tpot_mean_s", "max": self.tpot},
        ]
        return Objective.model_validate({"maximize": "output_tokens_per_s", "limits": limits})

    @property
    def goal(self) -> Goal:
        return self.objective.goal()

    def evaluate(self, point: Mapping[str, Json], chance: random.Random) -> Evaluation:
        metrics = self.measure(point)
        if metrics is None:
            return Evaluation(Outcome("failed", error="out of memory"), 0.3, None)
        judged = judge(self.objective, metrics, None)
        truth = judged.objective if judged.satisfied else None
        outcome = Outcome(
            "measured", metrics, satisfied=judged.satisfied, objective=judged.objective
        )
        return Evaluation(outcome, chance.lognormvariate(0.0, 0.1), truth)

    def summary(self) -> Mapping[str, Json]:
        return {
            "source": "formula",
            "configurations": SPACE.size(),
            "failed": self._all[1],
            "feasible": len(self._all[0]),
            "best": {"objective": self._all[0][0]},
            "scale": self._all[0][0],
        }

    def near(self, enough: float) -> int:
        return sum(truth >= enough for truth in self._all[0])

    @cached_property
    def _all(self) -> tuple[list[float], int]:
        """What every satisfying point is worth, the best first, and how many points fail."""
        chance = random.Random(0)
        found = [self.evaluate(point, chance) for point in SPACE.grid()]
        truths = [one.truth for one in found if one.truth is not None]
        failed = sum(one.outcome.status == "failed" for one in found)
        return sorted(truths, reverse=True), failed

    def measure(self, point: Mapping[str, Json]) -> dict[str, float] | None:
        """Metrics of a point; None where memory runs out."""
        tp, tokens = point["tp"], point["max_num_batched_tokens"]
        size, speed = _BYTES[point["quantization"]], _SPEEDUP[point["quantization"]]
        weights = self.weights * size / tp
        activations = tokens * 3e-4 * (self.weights / 8) ** 0.5 / tp
        free = self.memory * point["memory_utilization"] - weights - activations
        spare = self.memory * (1 - point["memory_utilization"])
        if free <= 0 or spare < 0.25 * activations + 2.0:
            return None
        context = self.prompt + self.answer / 2
        room = int(free * 1e9 * tp / (self.cache * context))
        if room < 1:
            return None
        clients = point["concurrency"] * tp / DEVICES
        running = max(min(clients, point["max_num_seqs"], room), 1e-9)
        exchange = self.link * (tp.bit_length() - 1)
        compute = 2 * self.weights * 1e9 / (tp * self.compute * 1e12 * 0.5 * speed)
        reading = (weights + running * context * self.cache / tp / 1e9) / self.bandwidth
        step = max(reading, max(running, 1.0) * compute) + exchange + _OVERHEAD
        return self._served(point, running, clients, step, compute, exchange)

    def _served(
        self,
        point: Mapping[str, Json],
        running: float,
        clients: float,
        step: float,
        compute: float,
        exchange: float,
    ) -> dict[str, float]:
        """Metrics when ``running`` of a copy's ``clients`` are served in steps of that length."""
        chunks = -(-self.prompt // point["max_num_batched_tokens"])
        alone = self.prompt * compute + chunks * (exchange + _OVERHEAD)
        chunked = point["chunked_prefill"]
        disturbance = alone * (running - 1 if running > 1 else 0.0) / self.answer
        tpot = step + disturbance * (1.0 if chunked else 2.0)
        prefill = alone + (chunks * step if chunked else 0.0)
        service = prefill + self.answer * tpot
        ttft = prefill + max(clients / running - 1, 0.0) * service
        copies = DEVICES / point["tp"]
        speed = copies * running * self.answer / service
        return {"output_tokens_per_s": speed, "ttft_mean_s": ttft, "tpot_mean_s": tpot}


def surfaces() -> list[Surface]:
    """Six tasks: three sizes of model, two machines, loads from chat to summaries."""
    small, large = (64.0, 1600.0, 280.0), (80.0, 3350.0, 900.0)
    return [
        Surface("8B chat, 64 GB devices", 8, 131e3, 512, 256, *small, 0.0008, 1.0, 0.04),
        Surface("8B summaries, 64 GB devices", 8, 131e3, 4096, 128, *small, 0.0008, 3.0, 0.08),
        Surface("32B chat, 64 GB devices", 32, 262e3, 512, 512, *small, 0.0012, 2.0, 0.05),
        Surface("32B essays, 80 GB devices", 32, 262e3, 1024, 2048, *large, 0.0005, 2.0, 0.03),
        Surface("70B chat, 80 GB devices", 70, 328e3, 512, 256, *large, 0.0006, 1.0, 0.04),
        Surface("70B summaries, 64 GB devices", 70, 328e3, 4096, 256, *small, 0.0012, 8.0, 0.15),
    ]
