"""Whole splits: which one to measure next. The second stage of ``pd_split``. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, TypeAlias

from searchers._contract import Goal, Json, Outcome
from searchers._merit import merit
from searchers._pd_split_belief import Beliefs, Seen
from searchers._pd_split_options import PdSplitOptions
from searchers._pd_split_stage import Rated, held_rate, reaches_at_most, role_rate
from searchers._pd_splits import Role, Split, matched_rate

Key: TypeAlias = tuple[str, Role]
"""Name of a shape, and role."""

Asked: TypeAlias = Callable[[Mapping[str, Json]], int]


class Whole(NamedTuple):
    """A split that can be measured.

    Attributes:
        parameters: Of its proposal.
        name: Of the parameters: the same text for the same ones.
        matched: Requests per second by the rates alone; None where one is not known.
        breaks: Whether a pool's instances break their limits alone.
    """

    split: Split
    parameters: Mapping[str, Json]
    name: str
    matched: float | None
    breaks: bool


@dataclass(frozen=True)
class Tried:
    """What a measured candidate did.

    Attributes:
        objective: The value to maximise; None: there is none.
        measured: Requests per second; None: it did not tell.
        held: Those that it would hold its limits at; ``side`` is the pool that limits it, as
            :func:`searchers._pd_split_stage.held_rate` says.
        beaten: It was given up because it cannot beat the best known.
    """

    satisfied: bool
    objective: float | None
    measured: float | None
    held: float | None
    side: Role | None
    beaten: bool = False

    @classmethod
    def of(cls, outcome: Outcome, goal: Goal) -> Tried:
        quality = merit(outcome, goal)
        objective = quality.objective if math.isfinite(quality.objective) else None
        measured = role_rate("mixed", outcome.metrics)
        beaten = reaches_at_most(outcome) is not None
        held, side = held_rate(outcome, goal)
        return cls(quality.satisfying, objective, measured, held, side, beaten)


class Wholes:
    """Splits, and what is known of those that were measured.

    Args:
        staged: What is rated alone.

    Attributes:
        tried: Measured candidates by name of their parameters, mixed instances alone among them.
        failed: Reasons of whole splits that failed, by name of their parameters.
    """

    def __init__(
        self, options: PdSplitOptions, splits: Sequence[Split], staged: Collection[Key]
    ) -> None:
        self.tried: dict[str, Tried] = {}
        self.failed: dict[str, str] = {}
        self._options, self._splits, self._staged = options, splits, staged

    def possible(self, rated: Mapping[Key, Rated]) -> list[Whole]:
        """Those all of whose instances are known to run, or need not be rated."""
        return [
            self._whole(split, rated)
            for split in self._splits
            if all(key in rated or key not in self._staged for key in keys(split))
        ]

    def beliefs(self, rated: Mapping[Key, Rated], wholes: Sequence[Whole]) -> Beliefs:
        """What is expected of those with a matched rate."""
        seen = []
        for whole in wholes:
            tried = self.tried.get(whole.name)
            if tried is not None and tried.held and whole.matched is not None:
                seen.append(Seen(whole.split, tried.held, tried.side))
        return Beliefs({key: one.rate for key, one in rated.items()}, seen)

    def next(
        self,
        rated: Mapping[Key, Rated],
        asked: Asked,
        flying: Collection[str],
    ) -> tuple[Whole, float | None] | None:
        """The next to measure, with what is expected of it; None: none is worth it.

        Args:
            rated: Of all stages that will be.
            asked: How often parameters were proposed.
            flying: Names of those that are being measured.
        """
        possible = self.possible(rated)
        beliefs = self.beliefs(rated, possible)

        def expected(whole: Whole) -> float | None:
            return None if whole.matched is None else beliefs.rate(whole.split)

        known = self.tried.keys() | self.failed.keys() | set(flying)
        before = [whole for whole in possible if asked(whole.parameters)]
        lost = [whole for whole in before if whole.name not in known]
        if lost:
            return lost[0], expected(lost[0])
        if self.spent(possible, flying) >= self._options.top:
            return None
        if len(self.failed) > self._options.max_failures:
            return None
        fresh = [(whole, expected(whole)) for whole in possible if not asked(whole.parameters)]
        fresh.sort(key=lambda one: (one[0].breaks, -(one[1] or 0.0)))
        kinds = {whole.split.disaggregated for whole in before}
        others = [one for one in fresh if one[0].split.disaggregated not in kinds]
        if others:
            return others[0]
        best = self._best_rate()
        if not best:
            return fresh[0] if fresh else None
        gains = [
            (beliefs.improvement(whole.split, best), (whole, rate))
            for whole, rate in fresh
            if rate is not None and not whole.breaks
        ]
        gain, found = max(gains, key=lambda one: one[0], default=(0.0, None))
        return found if gain > self._options.gain * best else None

    def spent(self, possible: Sequence[Whole], flying: Collection[str]) -> int:
        """Whole splits measured or being measured."""
        return sum(whole.name in self.tried or whole.name in flying for whole in possible)

    def state(self) -> dict[str, Json]:
        tried = {name: asdict(one) for name, one in self.tried.items()}
        return {"tried": tried, "failed": dict(self.failed)}

    def restore(self, state: Mapping[str, Json]) -> None:
        self.tried = {name: Tried(**one) for name, one in state["tried"].items()}
        self.failed = dict(state["failed"])

    def _best_rate(self) -> float:
        """Requests per second of the best that satisfies; 0: none does."""
        return max((one.measured or 0.0 for one in self.tried.values() if one.satisfied), default=0)

    def _whole(self, split: Split, rated: Mapping[Key, Rated]) -> Whole:
        parameters: dict[str, Json] = {}
        for role, pool in split.pools.items():
            parameters |= instances(role, pool.shape.name, pool.count)
        mine = keys(split)
        for key in mine:
            parameters |= rated[key].parameters if key in rated else {}
        matched = None
        if all(key in rated for key in mine):
            matched = matched_rate(split, {key: rated[key].rate for key in mine})
        breaks = any(key in rated and not rated[key].kept for key in mine)
        return Whole(split, parameters, name_of(parameters), matched, breaks)


def keys(split: Split) -> list[Key]:
    return [(pool.shape.name, role) for role, pool in split.pools.items()]


def instances(role: Role, shape: str, count: int) -> dict[str, Json]:
    """The parameters that say how many instances of which shape there are."""
    return {f"{role}_instances": count, f"{role}_shape": shape}


def name_of(parameters: Mapping[str, Json]) -> str:
    return json.dumps(parameters, sort_keys=True, ensure_ascii=False)
