"""CMA-ES with margin as a pure function of the trials so far.

Optuna's own sampler drives the same library but ignores constraints and categories, and keeps its
state as a pickle. Here the distribution is computed anew from the trials each time, which costs
less than a millisecond for each generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from searchers._contract import Json
from searchers._optuna_trials import Trial
from searchers._space import Space

_FEW = 50
"""Values of a parameter up to which its axis is treated as discrete."""

_SIGMA = 0.25
_SIGMA_AROUND_KNOWN = 0.15


class Draw(NamedTuple):
    """A point of the unit cube, and the notes for :attr:`Trial.notes`."""

    vector: list[float]
    notes: Mapping[str, Json]


def draw(space: Space, trials: Sequence[Trial], *, population: int | None, seed: int) -> Draw:
    """The next point: of the present generation, or of a new one when that is complete.

    Only the order of the trials by merit counts, so points that exceed bounds take part. Categories
    are treated as if they were in order.
    """
    axes = [_axis(space, name) for name in space.dimensions]
    while len(axes) < 2:
        axes.append((0.0, 1.0, 0.0))
    optimizer = _optimizer(axes, trials, population, seed)
    generation = 0
    while True:
        born = [trial for trial in trials if trial.notes.get("generation") == generation]
        measured = [trial for trial in born if trial.merit is not None]
        if len(measured) < optimizer.population_size:
            break
        optimizer.tell(_ranked(measured[: optimizer.population_size]))
        generation += 1
    point, drawn = optimizer.ask()
    vector = [min(max(float(unit), 0.0), 1.0) for unit in point[: len(space.dimensions)]]
    return Draw(vector, {"generation": generation, "drawn": [float(unit) for unit in drawn]})


def _axis(space: Space, name: str) -> tuple[float, float, float]:
    """Lowest and highest coordinate, and the step between values; 0 where there is none."""
    parameter = space.root[name]
    size = parameter.size()
    if size is None or size > _FEW or (parameter.type == "int" and parameter.log_scaled):
        return (0.0, 1.0, 0.0)
    return (0.5 / size, 1 - 0.5 / size, 1 / size)


def _optimizer(
    axes: Sequence[tuple[float, float, float]],
    trials: Sequence[Trial],
    population: int | None,
    seed: int,
) -> Any:
    known = [trial for trial in trials if trial.known and trial.merit is not None]
    mean, sigma = [0.5] * len(axes), _SIGMA
    if known:
        best = max(known, key=lambda trial: _rank(trial))
        mean, sigma = [*best.vector, *mean[len(best.vector) :]], _SIGMA_AROUND_KNOWN
    low, high, steps = (np.array(column) for column in zip(*axes, strict=True))
    return import_module("cmaes").CMAwM(
        mean=np.clip(mean, low, high),
        sigma=sigma,
        bounds=np.stack([low, high], axis=1),
        steps=steps,
        population_size=population,
        seed=seed,
    )


def _ranked(trials: Sequence[Trial]) -> list[tuple[Any, float]]:
    """What the optimizer is told: 0 for the best, and equal numbers for equals."""
    merits = sorted({_rank(trial) for trial in trials}, reverse=True)
    return [(np.array(trial.notes["drawn"]), merits.index(_rank(trial))) for trial in trials]


def _rank(trial: Trial) -> tuple[Any, ...]:
    return tuple(trial.merit or ())
