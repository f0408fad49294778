"""What one instance can do alone: where the search for a split begins.

Rate matching (msserviceprofiler's OPTIX, AIConfigurator): a pool is as fast as its instances alone,
a split as fast as its slower pool. :func:`guessed_rates` needs no run and sees no queues;
:func:`simulated_rates` runs one instance with its share of the requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from searchers import Judged, Pool, Role, Shape, Split, best_split, decode_rate, prefill_rate
from trainables.simulation import (
    Batch,
    Chunk,
    FirstToken,
    Instance,
    Load,
    Request,
    Served,
    Simulated,
    Transfer,
    instant_prefill,
    simulate,
    simulate_disaggregated,
)
from tuner.splits._judge import LatencyLimits, judged, scaled

_PROMPTS = 16
"""Lengths of prompts that stand for all."""


def guessed_rates(
    instances: Mapping[tuple[str, Role], Instance],
    requests: Sequence[Request],
    limits: LatencyLimits,
) -> dict[tuple[str, Role], float]:
    """Requests per second of one instance alone, by the name of its shape and its role."""
    answer = float(np.mean([one.output_tokens for one in requests]))
    whole = [one.input_tokens + one.output_tokens for one in requests]
    held = float(np.mean(whole)) - answer / 2
    prompts = np.quantile([one.input_tokens for one in requests], _middles(_PROMPTS))
    found: dict[tuple[str, Role], float] = {}
    for (shape, role), one in instances.items():
        seconds = float(np.mean([_prompt_seconds(one, int(tokens)) for tokens in prompts]))
        found[shape, role] = (
            prefill_rate(1.0, seconds)
            if role == "prefill"
            else _decoding(one, answer, held, limits.tpot, seconds if role == "mixed" else 0.0)
        )
    return found


def simulated_rates(
    instances: Mapping[tuple[str, Role], Instance],
    requests: Sequence[Request],
    limits: LatencyLimits,
    *,
    share: int,
    transfer: Transfer | None = None,
    first_token: FirstToken = "decode",
    precision: float = 0.04,
) -> dict[tuple[str, Role], float]:
    """Requests per second at which one instance alone keeps the SLO.

    A prefill instance serves prompts only, a decode instance prompts that are computed in no time.
    Never more than :func:`guessed_rates`, which a run that is short for its rate may exceed.

    Args:
        share: Every so many-th request is one for a single instance, so that a run lasts as long
            as one of so many instances with all requests.

    Raises:
        ValueError: As :func:`request_rate`, of that share.
    """
    mine = requests[::share]
    guesses = guessed_rates(instances, mine, limits)
    instant = replace(transfer or Transfer(), gb_per_s=math.inf)

    def rate(name: str, role: Role, one: Instance) -> float:
        def judge(split: Split, rate: float) -> Judged:
            load = scaled(prompts if role == "prefill" else mine, rate)
            held = replace(limits, tpot=math.inf) if role == "prefill" else limits
            return judged(held, load, role, lambda stop: run(load, stop))

        def run(load: Load, stop: Callable[[Served], bool]) -> Simulated:
            if role != "decode":
                return simulate([one], load, stop=stop)
            first = [instant_prefill(one, mine)]
            return simulate_disaggregated(
                first, [one], load, transfer=instant, first_token=first_token, stop=stop
            )

        single, guess = Split(mixed=Pool(Shape(name, 1), 1)), guesses[name, role]
        if judge(single, guess).kept:
            return guess
        return best_split([single], judge, lambda _: guess, precision=precision)[0].rate

    prompts = [replace(one, output_tokens=1) for one in mine]
    return {(name, role): rate(name, role, one) for (name, role), one in instances.items()}


def _middles(count: int) -> list[float]:
    return [(number + 0.5) / count for number in range(count)]


def _prompt_seconds(instance: Instance, tokens: int) -> float:
    """A prompt's part of full iterations."""
    most = instance.settings.max_num_batched_tokens
    seconds = 0.0
    for done in range(0, tokens, most):
        part = min(most, tokens - done)
        alike = max(1, most // part)
        batch = Batch((Chunk(part, done),) * alike)
        seconds += (instance.latency.seconds(batch) + instance.host.iteration) / alike
    return seconds


def _decoding(
    instance: Instance, answer: float, held: float, limit: float, prompt_seconds: float
) -> float:
    """The highest rate at which TPOT is kept and the KV cache suffices; of a mixed instance, with
    the time that its prompts take away."""
    settings = instance.settings
    room = settings.num_blocks * settings.block_size / held
    most = int(max(1, min(settings.max_num_seqs, room)))

    def at(sequences: int) -> tuple[float, float]:
        """Rate and TPOT."""
        batch = Batch((), sequences, int(sequences * held), int(held), int(held))
        tpot = instance.latency.seconds(batch) + instance.host.iteration
        alone = decode_rate(sequences, tpot, answer)
        rate = alone / (1 + alone * prompt_seconds)
        return rate, tpot / (1 - rate * prompt_seconds)

    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle)[1] <= limit else (low, middle)
    return at(low)[0]
