"""Options of the particle swarm, and the presets behind them."""

from __future__ import annotations

import math
import random
from typing import Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset: TypeAlias = Literal["constriction", "serviceparam"]
Boundary: TypeAlias = Literal["reflect", "wrap", "clip"]
Topology: TypeAlias = Literal["global", "ring"]


class Schedule(BaseModel):
    """A coefficient that changes over the search: ``{schedule: linear, start: 0.9, end: 0.4}``.

    ``linear`` and ``exp_decay`` go from start to end evenly and by equal factors; ``nonlin_mod``
    goes faster at first, with the power 1.2 of what is left of the search; ``random`` draws
    between the two for every move; ``constant`` stays at start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    schedule: Literal["constant", "linear", "exp_decay", "nonlin_mod", "random"]
    start: float = Field(ge=0)
    end: float = Field(0.4, ge=0)

    @model_validator(mode="after")
    def _positive(self) -> Schedule:
        if self.schedule == "exp_decay" and not (self.start > 0 and self.end > 0):
            raise ValueError("exp_decay multiplies, so start and end must be above 0")
        return self

    def at(self, progress: float, generator: random.Random) -> float:
        """The value after ``progress``, from 0 to 1, of the search."""
        start, end = self.start, self.end
        if self.schedule == "linear":
            return start + (end - start) * progress
        if self.schedule == "exp_decay":
            return start * math.pow(end / start, progress)
        if self.schedule == "nonlin_mod":
            return end + (start - end) * math.pow(1 - progress, 1.2)
        if self.schedule == "random":
            return generator.uniform(start, end)
        return start


Coefficient: TypeAlias = float | Schedule


class Motion(NamedTuple):
    """How particles move.

    Attributes:
        inertia: Share of its velocity that a particle keeps (w).
        cognitive: Pull towards the best point of the particle itself (c1).
        social: Pull towards the best point of its neighbourhood (c2).
        boundary: What happens at the ends of an axis.
        velocity_limit: Largest step along an axis, as a share of it. The velocities of
            ``serviceparam`` grow without bound; its limit only keeps them numbers.
    """

    inertia: Coefficient
    cognitive: Coefficient
    social: Coefficient
    boundary: Boundary
    velocity_limit: float


_PRESETS = {
    "constriction": Motion(0.7298, 1.49618, 1.49618, "reflect", 0.25),
    "serviceparam": Motion(1.8, 2.0, 2.0, "wrap", 1e6),
}


class ParticleSwarmOptions(BaseModel):
    """Options of ``particle_swarm``.

    ``particles`` times ``iterations`` different points are measured, or ``trials`` when that is
    given instead. The preset ``constriction`` is the swarm of Clerc and Kennedy (chi 0.7298, c1 =
    c2 = 2.05); ``serviceparam`` has the constants of msServiceProfiler's optimizer: inertia 1.8,
    pulls of 2, periodic boundaries, and a first velocity between 0 and 1 in the unit of each
    parameter. What is given beside a preset replaces its value. A swarm whose best point has not
    improved for ``patience`` trials of every particle is scattered, but for its leader; 0: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    particles: int = Field(10, ge=1, le=1000)
    iterations: int | None = Field(None, ge=1)
    trials: int | None = Field(None, ge=1)
    preset: Preset = "constriction"
    inertia: Coefficient | None = None
    cognitive: Coefficient | None = None
    social: Coefficient | None = None
    boundary: Boundary | None = None
    velocity_limit: float | None = Field(None, gt=0)
    topology: Topology = "global"
    patience: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ParticleSwarmOptions:
        if (self.iterations is None) == (self.trials is None):
            raise ValueError("give the length of the search: either iterations or trials")
        for name in ("inertia", "cognitive", "social"):
            value = getattr(self, name)
            if isinstance(value, float) and value < 0:
                raise ValueError(f"{name} must not be negative, but is {value}")
        return self

    @property
    def budget(self) -> int:
        """The number of points to measure."""
        return self.trials or self.particles * (self.iterations or 1)

    @property
    def rounds_of_patience(self) -> int:
        """``patience``, or that of the preset: 8, and none for ``serviceparam``."""
        if self.patience is not None:
            return self.patience
        return 8 if self.preset == "constriction" else 0

    @property
    def motion(self) -> Motion:
        """The preset with everything that was given in its place."""
        given = {
            name: getattr(self, name) for name in Motion._fields if getattr(self, name) is not None
        }
        return _PRESETS[self.preset]._replace(**given)
