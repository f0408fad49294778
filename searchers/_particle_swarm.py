"""Particle swarm optimisation that never waits for a generation to be complete."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from searchers._contract import Json, Outcome, Proposal
from searchers._merit import Merit, merit, merits_from_json, merits_to_json
from searchers._points import BudgetedStrategy, Draft
from searchers._registry import register_strategy
from searchers._space import Space
from searchers._swarm_options import Boundary, Coefficient, ParticleSwarmOptions

_FREE_MOVES = 20
"""Moves in a row onto points whose merit is known before a particle is pushed off its way."""


@dataclass
class _Particle:
    """Where a particle is, where it goes, and the best point it has met.

    Attributes:
        moves: Number of points it has proposed.
        scattered: Scatterings of the swarm that it has taken part in.
    """

    position: list[float]
    velocity: list[float]
    best: list[float] | None = None
    merit: Merit | None = None
    moves: int = 0
    scattered: int = 0

    def meet(self, position: Sequence[float], merit: Merit) -> None:
        if self.merit is None or merit > self.merit:
            self.best, self.merit = list(position), merit

    def to_json(self) -> list[Json]:
        merit = None if self.merit is None else self.merit.to_json()
        return [self.position, self.velocity, self.best, merit, self.moves, self.scattered]

    @classmethod
    def from_json(cls, document: Sequence[Json]) -> _Particle:
        position, velocity, best, merit, moves, scattered = document
        known = None if merit is None else Merit.from_json(merit)
        return cls(position, velocity, best, known, moves, scattered)


@register_strategy("particle_swarm", ParticleSwarmOptions)
class ParticleSwarm(BudgetedStrategy):
    """Particles that fly over the unit cube, drawn to the best points met so far.

    A particle moves on as soon as its own trial has ended, with what is known by then; more slots
    than particles make the swarm larger. Points are compared by feasibility first (Deb's rules).
    A failed trial tells nothing: its particle flies on. A point met before is not measured again:
    its merit is known, so the particle takes it into account and moves on at once. Known points of
    earlier runs are where half of the particles start.
    """

    def __init__(self, options: ParticleSwarmOptions, *, space: Space | None, seed: int) -> None:
        super().__init__(space, "particle_swarm", trials=options.budget, seed=seed)
        self._options = options
        self._motion = options.motion
        self._swarm: list[_Particle] = []
        self._merits: dict[str, Merit] = {}
        self._known: list[tuple[Merit, list[float]]] = []
        self._scattered = 0
        self._stale = 0

    def learn(self, parameters: Mapping[str, Json], outcome: Outcome) -> None:
        if outcome.status == "measured" and self.space.contains(parameters):
            known = (merit(outcome, self.goal), self.space.encode(parameters))
            self._known = sorted([*self._known, known], reverse=True)[: self._options.particles]

    def _draw(self) -> Draft | None:
        generator = self._generator()
        if generator is None:
            return None
        before = copy.deepcopy(self._swarm)
        self._populate(generator)
        index = self._next()
        particle = self._swarm[index]
        point = self._fly(index, generator) if particle.moves else self._start(index, generator)
        if point is None:
            self._swarm = before
            return None
        particle.moves += 1
        why = f"particle {index}, move {particle.moves}"
        return Draft(point, why, {"particle": index})

    def _judge(self, proposal: Proposal, outcome: Outcome) -> None:
        super()._judge(proposal, outcome)
        found = merit(outcome, self.goal)
        self._merits[_key(proposal.parameters)] = found
        particle = self._swarm[proposal.labels["particle"]]
        leader = self._leader(range(len(self._swarm)))
        better = leader is None or leader.merit is None or found > leader.merit
        particle.meet(particle.position, found)
        self._stale = 0 if better else self._stale + 1
        patience = self._options.rounds_of_patience * len(self._swarm)
        if patience and self._stale >= patience:
            self._scattered, self._stale = self._scattered + 1, 0

    def _populate(self, generator: random.Random) -> None:
        """All particles at the first draw; later one more when every one is in flight."""
        if not self._swarm:
            for position in self._first_positions():
                self._swarm.append(_Particle(position, self._first_velocity(position, generator)))
            for particle, (known, position) in zip(self._swarm, self._starters(), strict=False):
                particle.position = position
                particle.meet(position, known)
        if len(self._flying()) >= len(self._swarm):
            position = self._random(generator)
            velocity = self._first_velocity(position, generator)
            self._swarm.append(_Particle(position, velocity, scattered=self._scattered))

    def _starters(self) -> list[tuple[Merit, list[float]]]:
        return self._known[: math.ceil(self._options.particles / 2)]

    def _first_positions(self) -> list[list[float]]:
        """A Latin hypercube: along every axis, each particle has its own interval."""
        generator = random.Random(f"{self._seed}/start")
        count = self._options.particles
        axes = []
        for _ in self.space.dimensions:
            order = generator.sample(range(count), count)
            axes.append([(place + generator.random()) / count for place in order])
        return [[axis[index] for axis in axes] for index in range(count)]

    def _first_velocity(self, position: Sequence[float], generator: random.Random) -> list[float]:
        if self._options.preset == "serviceparam":
            spans = (self.space.root[name].span for name in self.space.dimensions)
            return [generator.random() / span for span in spans]
        return [(generator.random() - unit) / 2 for unit in position]

    def _flying(self) -> set[int]:
        return {proposal.labels["particle"] for proposal in self._flight.proposals.values()}

    def _next(self) -> int:
        """The particle on the ground that has moved least."""
        waiting = set(range(len(self._swarm))) - self._flying()
        return min(waiting, key=lambda index: (self._swarm[index].moves, index))

    def _start(self, index: int, generator: random.Random) -> dict[str, Json] | None:
        particle = self._swarm[index]
        point = self.space.decode(particle.position)
        return self._settle(particle, point, generator)

    def _fly(self, index: int, generator: random.Random) -> dict[str, Json] | None:
        """The next unseen point on the way of a particle."""
        particle = self._swarm[index]
        point = self.space.decode(particle.position)
        for _ in range(_FREE_MOVES):
            self._move(index, generator)
            point = self.space.decode(particle.position)
            known = self._merits.get(_key(point))
            if known is None:
                break
            particle.meet(particle.position, known)
        return self._settle(particle, point, generator)

    def _settle(
        self, particle: _Particle, point: dict[str, Json], generator: random.Random
    ) -> dict[str, Json] | None:
        """The point of a particle, or an unseen one nearby, where the particle then is."""
        if not self._flight.asked(point):
            return point
        unseen = self._near(particle.position, generator)
        if unseen is not None:
            particle.position = self.space.encode(unseen)
        return unseen

    def _move(self, index: int, generator: random.Random) -> None:
        particle = self._swarm[index]
        leader = self._leader(self._neighbourhood(index))
        if particle.scattered < self._scattered:
            particle.scattered = self._scattered
            if leader is not particle:
                particle.best = particle.merit = leader = None
        if leader is None or leader.best is None:
            particle.position = self._random(generator)
            particle.velocity = self._first_velocity(particle.position, generator)
            return
        progress = self._flight.distinct / self._trials
        inertia, cognitive, social = (
            _at(coefficient, progress, generator) for coefficient in self._motion[:3]
        )
        own = particle.best or particle.position
        for axis, unit in enumerate(particle.position):
            velocity = (
                inertia * particle.velocity[axis]
                + cognitive * generator.random() * (own[axis] - unit)
                + social * generator.random() * (leader.best[axis] - unit)
            )
            limit = self._motion.velocity_limit
            velocity = min(max(velocity, -limit), limit)
            particle.position[axis], particle.velocity[axis] = _bounded(
                unit + velocity, velocity, self._motion.boundary
            )

    def _neighbourhood(self, index: int) -> Sequence[int]:
        count = len(self._swarm)
        if self._options.topology == "global":
            return range(count)
        return [(index - 1) % count, index, (index + 1) % count]

    def _leader(self, indices: Sequence[int]) -> _Particle | None:
        met = [self._swarm[index] for index in indices if self._swarm[index].merit is not None]
        return max(met, key=lambda particle: particle.merit or _WORST, default=None)

    def state(self) -> dict[str, Json]:
        return super().state() | {
            "swarm": [particle.to_json() for particle in self._swarm],
            "merits": merits_to_json(self._merits),
            "known": [[known.to_json(), position] for known, position in self._known],
            "scattered": self._scattered,
            "stale": self._stale,
        }

    def restore(self, state: Mapping[str, Json]) -> None:
        super().restore(state)
        self._swarm = [_Particle.from_json(document) for document in state["swarm"]]
        self._merits = merits_from_json(state["merits"])
        self._known = [(Merit.from_json(known), position) for known, position in state["known"]]
        self._scattered, self._stale = state["scattered"], state["stale"]


_WORST = Merit(False, -math.inf, -math.inf)


def _at(coefficient: Coefficient, progress: float, generator: random.Random) -> float:
    if isinstance(coefficient, float | int):
        return coefficient
    return coefficient.at(progress, generator)


def _bounded(unit: float, velocity: float, boundary: Boundary) -> tuple[float, float]:
    """Position and velocity after the ends of the axis have been minded."""
    if 0 <= unit <= 1:
        return unit, velocity
    if boundary == "wrap":
        return unit % 1.0, velocity
    if boundary == "clip":
        return min(max(unit, 0.0), 1.0), 0.0
    turns, rest = divmod(unit, 1.0)
    return (1.0 - rest, -velocity / 2) if turns % 2 else (rest, velocity / 2)


def _key(parameters: Mapping[str, Json]) -> str:
    return json.dumps(parameters, sort_keys=True)
