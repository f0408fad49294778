"""How long an iteration takes: the one thing the simulator has to be told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.simulation._batch import Batch


class LatencyModel(ABC):
    """Durations of iterations of one model on one sort of instance. Pure and deterministic.

    An instance is everything that computes one batch together: all tensor-parallel ranks.
    """

    @abstractmethod
    def seconds(self, batch: Batch) -> float:
        """Seconds from the start of the batch to its sampled tokens; positive and finite for
        every batch of at least one token, also far outside of what the model has seen."""

    def decode_seconds(self, batch: Batch, iterations: int) -> NDArray[np.float64]:
        """Seconds of each of ``iterations`` successive decode iterations, shape (iterations,).

        ``batch`` is the first and has no prefills. Equal to calling :meth:`seconds` for each
        (``batch.after(0)``, ``batch.after(1)``, ...); models that can, do it faster.
        """
        return np.array([self.seconds(batch.after(number)) for number in range(iterations)])


@dataclass(frozen=True)
class HostCosts:
    """Time outside of the device that no asynchronous scheduling hides. Seconds.

    Attributes:
        admission: From a client's request to the engine's waiting queue: HTTP, tokenization.
        spacing: Between two requests reaching the queue at least: requests that are sent at once
            reach it one by one, and an idle engine begins with the first.
        iteration: Between the end of an iteration and the start of the next one.
        delivery: From the end of an iteration to the client: detokenization, streaming.
    """

    admission: float = 0.0
    spacing: float = 0.0
    iteration: float = 0.0
    delivery: float = 0.0
