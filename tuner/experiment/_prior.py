"""The ``search.prior`` block: what a search may believe before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt

from searchers import Json, Space
from trainables import TrialType
from trainables.serving.forecast import Twin
from tuner.experiment._duration import Duration
from tuner.experiment._models import Block

SPLITS = "pd_split"
"""The search that is told of single instances, not of points of its space."""
BELIEVING = ("auto", SPLITS)
"""Searches that can use what they are told to believe."""


class Simulator(Block):
    """A simulator of the trials' engine; its options are those of the engine ``simulated``.

    Attributes:
        trials: Points of the space that are simulated; of ``pd_split``, trials of one instance.
        time: Seconds after which no more are, however few there are.
    """

    latency: dict[str, Any]
    device_memory: PositiveInt | str | None = None
    kv_cache_tokens: PositiveInt | None = None
    num_blocks: PositiveInt | None = None
    platform: Literal["auto", "gpu", "npu", "cpu"] = "auto"
    host: dict[str, float] = Field(default={})
    route: Literal["least_loaded", "round_robin"] = "least_loaded"
    trials: PositiveInt = 64
    time: Duration = 300.0

    def twin(self, kind: str, trial: TrialType, space: Space | None) -> Twin:
        """The experiment's trial on a simulated engine, for a search of that type.

        Raises ``ValueError`` as :class:`Twin`.
        """
        options = self.model_dump(exclude={"trials", "time"}, exclude_unset=True)
        example: Mapping[str, Json] | None = None
        if space is not None and kind != SPLITS:
            example = space.decode([0.5] * len(space.dimensions))
        return Twin(trial, options, example)


class PriorOptions(Block):
    """What is believed until measurements say otherwise.

    Attributes:
        simulator: Plays points of the space before the first of them is measured.
    """

    simulator: Simulator


def prior_problems(
    kind: str, prior: PriorOptions, trial: TrialType, space: Space | None
) -> list[tuple[str, str]]:
    """Why a prior cannot guide a search of that type over such trials."""
    path = "search.prior.simulator"
    if kind not in BELIEVING or (space is None and kind != SPLITS):
        said = f"the search {kind!r} has no use for it; only {' and '.join(BELIEVING)} do"
        return [("search.prior", said)]
    try:
        twin = prior.simulator.twin(kind, trial, space)
    except ValueError as error:
        return [(path, str(error))]
    return [(f"{path}.{below}" if below else path, said) for below, said in twin.problems()]
