"""A simulated server with a learned latency model, against the same with the true one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.trainables.latency.cost_engine import device
from trainables.latency import IterationRecord
from trainables.latency._xgboost_model import LearnedLatency
from trainables.latency._xgboost_rows import rows_of
from trainables.latency._xgboost_training import train
from trainables.simulation import (
    Batch,
    Instance,
    LatencyModel,
    Load,
    Request,
    SchedulerSettings,
    simulate,
)

pytest.importorskip("xgboost")


class TrueLatency(LatencyModel):
    """Knows the cost, and records what it was asked."""

    def __init__(self) -> None:
        self.recorded: list[IterationRecord] = []

    def seconds(self, batch: Batch) -> float:
        others = batch.decodes - 1
        rest = (batch.context - batch.context_max) // others if others > 0 else 0
        decodes = (batch.context_max, *[rest] * others) if batch.decodes else ()
        at, seconds = float(len(self.recorded)), device(batch)
        self.recorded.append(IterationRecord(batch.prefills, decodes, seconds, at))
        return seconds


def load(seed: int, requests: int, rate: float) -> Load:
    draw, arrival, found = random.Random(seed), 0.0, []
    for number in range(requests):
        arrival += draw.expovariate(rate)
        prompt = min(4000, max(4, round(300 * draw.lognormvariate(0, 0.8))))
        answer = min(500, max(2, round(60 * draw.lognormvariate(0, 0.7))))
        found.append(Request(number, prompt, answer, arrival))
    return Load(found)


def served(model: LatencyModel, load: Load, sequences: int, budget: int) -> tuple[float, float]:
    """Mean TTFT and TPOT."""
    settings = SchedulerSettings(
        max_num_seqs=sequences, max_num_batched_tokens=budget, num_blocks=20_000
    )
    done = simulate([Instance("one", settings, model)], load).served
    return (
        float(np.mean([one.ttft for one in done])),
        float(np.mean([one.tpot for one in done if one.tpot is not None])),
    )


def test_a_load_and_a_configuration_that_were_not_seen() -> None:
    """Trained on a slow and a fast load, asked about one between them with another budget."""
    sources = []
    for seed, rate, sequences, budget in ((1, 2, 16, 512), (2, 12, 64, 2048)):
        known = TrueLatency()
        served(known, load(seed, 40, rate), sequences, budget)
        sources.append(known.recorded)
    model = LearnedLatency(train(rows_of(sources, 10_000), seed=0).fit)
    asked = load(3, 100, 6)
    ttft, tpot = served(model, asked, 32, 1024)
    true_ttft, true_tpot = served(TrueLatency(), asked, 32, 1024)
    assert ttft == pytest.approx(true_ttft, rel=0.05)
    assert tpot == pytest.approx(true_tpot, rel=0.01)
    assert 0 < model.extrapolated < model.iterations / 2
