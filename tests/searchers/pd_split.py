"""Worlds for the search for a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from searchers import (
    ROLES,
    Goal,
    Json,
    Outcome,
    Proposal,
    Role,
    Shape,
    Space,
    Split,
    Strategy,
    all_splits,
    make_strategy,
)
from searchers.testing import Journey, Weather, travel

TOKENS = 101.0
Rates = Mapping[tuple[str, Role], float]
ONE = {"one": {"devices": 1}}
SEVERAL = {
    "tp1": {"devices": 1},
    "tp2": {"devices": 2, "roles": ["prefill", "decode"]},
    "tp4": {"devices": 4, "roles": ["decode", "mixed"]},
}


@dataclass
class World:
    """Instances of known rates, and what a whole split loses by interference.

    Attributes:
        rates: Requests per second of one instance alone, with the best parameters.
        factors: What is left of that in a whole split.
        failing: Shapes that run out of memory, by role.
    """

    rates: Rates
    factors: Mapping[Role, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 1.0))
    failing: frozenset[tuple[str, Role]] = frozenset()

    def __call__(self, proposal: Proposal) -> Outcome:
        used = self.used(proposal.parameters)
        if self.failing & {(shape, role) for role, (shape, _, _) in used.items()}:
            failure = {"failure": {"class": "out_of_memory"}}
            return Outcome("failed", data=failure, error="out of memory: 30 GiB of 28")
        if proposal.kind in ("prefill", "decode"):
            role: Role = "prefill" if proposal.kind == "prefill" else "decode"
            shape, count, tuned = used[role]
            assert len(used) == count == 1
            rate = self.rates[shape, role] * tuned
            if role == "prefill":
                return Outcome("measured", {"concurrency": 4, "ttft_mean_s": 4 / rate})
            return Outcome("measured", {"concurrency": 8, "tpot_mean_s": 8 / rate / (TOKENS - 1)})
        rate = self.truth(proposal.parameters)
        return Outcome("measured", {"requests_per_s": rate}, satisfied=True, objective=rate)

    def truth(self, parameters: Mapping[str, Json]) -> float:
        return min(
            count * self.rates[shape, role] * tuned * self.factors[role]
            for role, (shape, count, tuned) in self.used(parameters).items()
        )

    def best(self, splits: list[Split]) -> float:
        return max(
            min(
                pool.count * self.rates[pool.shape.name, role] * self.factors[role]
                for role, pool in split.pools.items()
            )
            for split in splits
        )

    @staticmethod
    def used(parameters: Mapping[str, Json]) -> dict[Role, tuple[str, int, float]]:
        """Shape, instances, and share of the rate that the parameter ``x`` leaves: 3 is best."""
        return {
            role: (
                parameters[f"{role}_shape"],
                parameters[f"{role}_instances"],
                1 - 0.1 * abs(parameters.get(f"{role}.x", 3) - 3),
            )
            for role in ROLES
            if f"{role}_instances" in parameters
        }


def search(space: Space | None = None, goal: Goal | None = None, **options: Any) -> Strategy:
    options = {"devices": 8, "shapes": ONE, "output_tokens": TOKENS, **options}
    return make_strategy("pd_split", options, space=space, seed=0, goal=goal)


def splits(devices: int, shapes: Mapping[str, Any]) -> list[Split]:
    return all_splits(
        [
            Shape(name, one["devices"], frozenset(one.get("roles", ROLES)))
            for name, one in shapes.items()
        ],
        devices,
    )


def run(world: Any, width: int = 1, **options: Any) -> Journey:
    return travel(lambda: search(**options), world, Weather(widths=(width,)))


def wholes(journey: Journey) -> list[str]:
    return [one.labels["split"] for one in journey.asked if "split" in one.labels]


def same(factor: float, mixed: float = 1.0) -> dict[Role, float]:
    return {"prefill": factor, "decode": factor, "mixed": mixed}


def one_shape(prefill: float, decode: float, mixed: float) -> Rates:
    return {("one", "prefill"): prefill, ("one", "decode"): decode, ("one", "mixed"): mixed}


TUNED = Space.model_validate(
    {f"{role}.x": {"type": "int", "low": 1, "high": 4} for role in ("prefill", "mixed")}
)
RATES: Rates = {
    ("tp1", "prefill"): 3.0,
    ("tp1", "decode"): 1.0,
    ("tp1", "mixed"): 0.7,
    ("tp2", "prefill"): 5.0,
    ("tp2", "decode"): 2.6,
    ("tp4", "decode"): 4.5,
    ("tp4", "mixed"): 3.0,
}
