"""Optuna's samplers as pure functions. The only module that knows Optuna; import it late."""

# mypy: allow-subclassing-any

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from searchers._contract import Json
from searchers._optuna_trials import Sampler, Trial, constraints, filled_values
from searchers._space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Shared:
    """Copies are the thing itself: a study copies the distributions of each trial it is given,
    which would take most of the time."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class _Coordinate(_Shared, FloatDistribution):
    pass


class _Number(_Shared, IntDistribution):
    pass


class _Category(_Shared, CategoricalDistribution):
    pass


class Suggestion(NamedTuple):
    """A point of the unit cube, and what the sampler wants to be reminded of with its result."""

    vector: list[float]
    notes: Mapping[str, Json]


class Suggester:
    """Asks a sampler for points, given the trials so far. Nothing outlives a ``Suggester``: the
    same trials and seeds give the same points, in any process."""

    def __init__(
        self, space: Space, sampler: Sampler, *, startup: int, population: int, objectives: int
    ) -> None:
        self._space, self._sampler = space, sampler
        self._startup, self._population, self._objectives = startup, population, objectives
        self._distributions = {name: _distribution(space, name) for name in space.dimensions}

    def suggestions(self, trials: Sequence[Trial], seeds: Sequence[int]) -> Iterator[Suggestion]:
        """One point for each seed; all those before count as being measured."""
        with _quietly():
            study = self._study(trials)
        for seed in seeds:
            with _quietly():
                study.sampler = self._make(seed)
                asked = study.ask(self._distributions)
            last = study.get_trials(deepcopy=False)[-1]
            notes = dict(last.system_attrs) if self._sampler == "nsga2" else {}
            yield Suggestion(self._vector(asked.params), notes)

    def _study(self, trials: Sequence[Trial]) -> optuna.Study:
        study = optuna.create_study(directions=["maximize"] * self._objectives)
        measured = [trial for trial in trials if trial.status == "measured"]
        values = iter(filled_values(measured, self._objectives))
        limits = iter(constraints(measured))
        first = self._notes_of_the_first(trials)
        for trial in trials:
            finished: dict[str, Any] = {"state": _STATES[trial.status]}
            if trial.status == "measured":
                finished["values"] = next(values)
                finished["constraints"] = {str(n): limit for n, limit in enumerate(next(limits))}
            frozen = optuna.trial.create_trial(
                params=self._params(trial.vector),
                distributions=self._distributions,
                system_attrs=dict(trial.notes or first),
                **finished,
            )
            study.add_trial(frozen)
        return study

    def _notes_of_the_first(self, trials: Sequence[Trial]) -> Mapping[str, Json]:
        """The notes of a first trial: a known point counts as one of the first generation."""
        if self._sampler != "nsga2" or all(trial.notes for trial in trials):
            return {}
        study = optuna.create_study(
            directions=["maximize"] * self._objectives, sampler=self._make(0)
        )
        study.ask(self._distributions)
        return dict(study.get_trials(deepcopy=False)[0].system_attrs)

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        samplers = optuna.samplers
        if self._sampler == "tpe":
            multivariate = self._objectives == 1
            return samplers.TPESampler(
                seed=seed,
                n_startup_trials=self._startup,
                multivariate=multivariate,
                constant_liar=True,
            )
        if self._sampler == "gp":
            return samplers.GPSampler(
                seed=seed, n_startup_trials=self._startup, warn_independent_sampling=False
            )
        if self._sampler == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=self._population)
        return samplers.RandomSampler(seed=seed)

    def _params(self, vector: Sequence[float]) -> dict[str, Any]:
        return {
            name: _value(self._space, name, distribution, unit)
            for (name, distribution), unit in zip(self._distributions.items(), vector, strict=True)
        }

    def _vector(self, params: Mapping[str, Any]) -> list[float]:
        return [
            _unit(self._space, name, distribution, params[name])
            for name, distribution in self._distributions.items()
        ]


_STATES = {
    "running": optuna.trial.TrialState.RUNNING,
    "measured": optuna.trial.TrialState.COMPLETE,
    "failed": optuna.trial.TrialState.FAIL,
}


def _distribution(space: Space, name: str) -> BaseDistribution:
    """Whole numbers on a logarithmic axis are themselves; other values of an ordered parameter
    are their index; the rest are categories. What is continuous is a coordinate, which has the
    logarithm in it already."""
    parameter = space.root[name]
    size = parameter.size()
    if size is None:
        return _Coordinate(0.0, 1.0)
    if _is_log_int(space, name):
        grid_low, grid_high = parameter.decode(0.0, {}), parameter.decode(1.0, {})
        return _Number(grid_low, grid_high, log=True)
    if parameter.ordered:
        return _Number(0, size - 1)
    return _Category(tuple(range(size)))


def _is_log_int(space: Space, name: str) -> bool:
    parameter = space.root[name]
    return parameter.type == "int" and parameter.log_scaled


def _value(space: Space, name: str, distribution: BaseDistribution, unit: float) -> Any:
    size = space.root[name].size()
    if isinstance(distribution, FloatDistribution) or size is None:
        return unit
    if _is_log_int(space, name):
        return space.root[name].decode(unit, {})
    return min(int(unit * size), size - 1)


def _unit(space: Space, name: str, distribution: BaseDistribution, value: Any) -> float:
    size = space.root[name].size()
    if isinstance(distribution, FloatDistribution) or size is None:
        return float(value)
    if _is_log_int(space, name):
        return space.root[name].encode(value, {})
    return (int(value) + 0.5) / size


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's warnings that its features may change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="optuna")
        yield
