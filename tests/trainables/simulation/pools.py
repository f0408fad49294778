"""Instances, requests and transfers whose times can be added up by hand."""

from __future__ import annotations

import numpy as np

from trainables.simulation import (
    Batch,
    HostCosts,
    Instance,
    LatencyModel,
    Load,
    Request,
    SchedulerSettings,
    Simulated,
    Transfer,
)

GB = 1e9


class Steps(LatencyModel):
    """Seconds of an iteration: for each prompt token, and one sum for decoding."""

    def __init__(self, token: float = 0.01, decode: float = 0.1) -> None:
        self._token, self._decode = token, decode

    def seconds(self, batch: Batch) -> float:
        return self._token * batch.prefill_tokens + self._decode * (batch.decodes > 0) + 1e-9


def instance(
    name: str, latency: LatencyModel | None = None, host: HostCosts | None = None, **options: object
) -> Instance:
    chosen: dict[str, object] = {"async_scheduling": False, "prefix_caching": False, **options}
    return Instance(
        name,
        SchedulerSettings(**chosen),  # type: ignore[arg-type]
        latency or Steps(),
        host or HostCosts(),
    )


def requests(*sizes: tuple[int, int], apart: float = 0.0) -> Load:
    return Load(
        [
            Request(number, prompt, answer, number * apart)
            for number, (prompt, answer) in enumerate(sizes)
        ]
    )


def by_second(transfer_s: float, *, tokens: int = 100, **options: object) -> Transfer:
    """A transfer that takes so long for a prompt of that length."""
    return Transfer(tokens and GB / tokens, 1 / transfer_s, **options)  # type: ignore[arg-type]


def times(result: Simulated, number: int = 0) -> list[float]:
    served = result.served[number]
    return [round(at, 6) for at in served.first + np.concatenate(([0.0], np.cumsum(served.gaps)))]
