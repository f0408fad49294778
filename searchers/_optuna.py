"""Optuna's samplers behind the strategy contract."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from searchers._contract import Json, Outcome, Proposal
from searchers._merit import objective_values
from searchers._optuna_trials import Sampler, Trial
from searchers._points import BudgetedStrategy, Draft
from searchers._registry import register_strategy
from searchers._space import Space

if TYPE_CHECKING:
    from searchers._optuna_study import Suggester

_NEEDS = {
    "tpe": ("optuna",),
    "gp": ("optuna", "scipy", "torch"),
    "cma_es": ("cmaes",),
    "nsga2": ("optuna",),
    "random": ("optuna",),
}
"""Packages of each sampler."""

_ASKS = {"tpe": 20, "gp": 2, "cma_es": 10, "nsga2": 10, "random": 100}
"""How often a sampler is asked for a point that was not proposed yet."""


class OptunaOptions(BaseModel):
    """Options of ``optuna``.

    ``trials`` different points are measured. ``startup`` is the number of measurements before
    ``tpe`` and ``gp`` stop drawing at random, ``population`` the size of a generation of ``nsga2``
    (default: a fifth of the trials, 4 to 50) and ``cma_es`` (default: by the number of dimensions).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    trials: int = Field(ge=1)
    sampler: Sampler = "tpe"
    startup: int = Field(10, ge=1)
    population: int | None = Field(None, ge=2)


@register_strategy("optuna", OptunaOptions)
class OptunaSearch(BudgetedStrategy):
    """TPE, Gaussian process, CMA-ES, NSGA-II or plain random points, by ask and tell.

    The sampler learns how far a point is beyond each bound of the goal, not only that it fails,
    and, with several objectives, each of them; the best point is then the one with the best first
    objective, and :meth:`front` has the others. Trials in flight count as pending, failed ones
    tell nothing. Every ask starts the sampler from the trials so far and a seed of its own, so
    nothing but the trials is state.

    A point that was proposed before is not proposed again: the sampler is asked again, and a
    generation of ``nsga2`` or ``cma_es`` takes the known result over; at last an unseen point
    nearby is taken. The best known point of earlier runs is proposed first.
    """

    def __init__(self, options: OptunaOptions, *, space: Space | None, seed: int) -> None:
        super().__init__(space, "optuna", trials=options.trials, seed=seed)
        self._options = options
        self._learned: list[Trial] = []
        self._asked: list[Trial] = []
        _require_packages(options.sampler)

    def learn(self, parameters: Mapping[str, Json], outcome: Outcome) -> None:
        if outcome.status == "measured" and self.space.contains(parameters):
            trial = self._trial(self.space.canonical(parameters))
            self._learned.append(replace(trial.after(outcome, self.goal), known=True))

    def _draw(self) -> Draft | None:
        generator = self._generator()
        if generator is None:
            return None
        asked = list(self._asked)
        best_known = self._best_known() if not asked else None
        trial = self._suggested(generator) if best_known is None else best_known
        if trial is None:
            self._asked = asked
            return None
        self._asked.append(trial)
        why = f"suggested by {self._options.sampler}" if best_known is None else "best known point"
        return Draft(json.loads(trial.point), why)

    def _judge(self, proposal: Proposal, outcome: Outcome) -> None:
        if len(self.goal.objectives) > 1:
            values = objective_values(outcome, self.goal)
            outcome = replace(outcome, objective=None if values is None else values[0])
        super()._judge(proposal, outcome)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        flying = self._flight.proposals.get(proposal.number)
        super().tell(proposal, outcome)
        if flying is None or outcome.status == "cancelled":
            return
        point = json.dumps(flying.parameters)
        for index, trial in enumerate(self._asked):
            if trial.point == point and trial.status == "running":
                self._asked[index] = trial.after(outcome, self.goal)

    def _best_known(self) -> Trial | None:
        """The known point with the greatest merit, to be measured here, if one satisfies."""
        best = max(self._learned, key=lambda trial: tuple(trial.merit or ()), default=None)
        if best is None or best.merit is None or not best.merit.satisfying:
            return None
        return Trial(best.point, best.vector)

    def _suggested(self, generator: random.Random) -> Trial | None:
        seeds = [generator.getrandbits(31) for _ in range(_ASKS[self._options.sampler])]
        trial: Trial | None = None
        for vector, notes in self._suggestions(seeds):
            trial = self._trial(self.space.decode(vector), notes)
            if not self._flight.asked(json.loads(trial.point)):
                return trial
            self._echo(trial)
        point = None if trial is None else self._near(trial.vector, generator)
        return None if trial is None or point is None else self._trial(point, trial.notes)

    def _suggestions(self, seeds: list[int]) -> Iterator[tuple[list[float], Mapping[str, Json]]]:
        sampler = self._options.sampler
        if sampler == "cma_es":
            if len(self.goal.objectives) > 1:
                raise ValueError("cma_es knows one objective only; use tpe, gp or nsga2")
            draw = import_module("searchers._cma").draw
            population = self._options.population
            for seed in seeds:
                yield draw(self.space, self._trials_so_far(), population=population, seed=seed)
        elif sampler == "nsga2":
            for seed in seeds:
                yield from self._suggester().suggestions(self._trials_so_far(), [seed])
        else:
            yield from self._suggester().suggestions(self._trials_so_far(), seeds)

    def _suggester(self) -> Suggester:
        from_trials = min(max(self._options.trials // 5, 4), 50)
        suggester: Suggester = import_module("searchers._optuna_study").Suggester(
            self.space,
            self._options.sampler,
            startup=self._options.startup,
            population=self._options.population or from_trials,
            objectives=max(len(self.goal.objectives), 1),
        )
        return suggester

    def _trials_so_far(self) -> list[Trial]:
        return [*self._learned, *self._asked]

    def _trial(self, point: Mapping[str, Json], notes: Mapping[str, Json] | None = None) -> Trial:
        return Trial(json.dumps(point), self.space.encode(point), notes=notes or {})

    def _echo(self, trial: Trial) -> None:
        """Count a point that is asked for again as measured in the present generation too."""
        if self._options.sampler not in ("cma_es", "nsga2"):
            return
        for old in self._asked:
            if old.point == trial.point and old.status == "measured":
                self._asked.append(replace(old, notes=trial.notes))
                return

    def state(self) -> dict[str, Json]:
        return super().state() | {
            "learned": [trial.to_json() for trial in self._learned],
            "asked": [trial.to_json() for trial in self._asked],
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self._learned = [Trial.from_json(document) for document in state["learned"]]
        self._asked = [Trial.from_json(document) for document in state["asked"]]


def _require_packages(sampler: Sampler) -> None:
    missing = [name for name in _NEEDS[sampler] if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"sampler {sampler} needs {' and '.join(missing)}, which this Python environment does "
            f"not have; install: pip install {' '.join(missing)}"
        )
