"""What the trials of an experiment occupy, as far as that is known before any of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from cluster import Placement
from searchers import Proposal, Space
from trainables import TrialType
from tuner.experiment._models import Cluster

_STEPS = 16
"""A coordinate is looked at in so many steps; between two of them it hardly changes a size."""
_MOST_COMBINATIONS = 256
_DEVICES = ("NPU", "GPU")


class SizeUnknown(ValueError):
    """Parameters that do not say how many devices a trial needs."""


@dataclass(frozen=True)
class Size:
    """What a trial of these parameters occupies."""

    placement: Placement
    kind: str
    parameters: Mapping[str, Any]

    @property
    def rank(self) -> tuple[float, float, int]:
        """Small ones first: devices, then CPUs, then places."""
        total = self.placement.total
        devices = sum(total.get(name, 0.0) for name in _DEVICES)
        return devices, total.get("CPU", 0.0), len(self.placement.bundles)


def placement_of(
    trial: TrialType, cluster: Cluster, parameters: Mapping[str, Any], kind: str
) -> Placement:
    """What a trial occupies.

    Raises:
        SizeUnknown: The number of devices is left to the trial, and its parameters do not say it.
    """
    if cluster.automatic is None:
        return trial.placement(parameters, kind, cluster.bundle())
    devices = trial.devices(parameters, kind)
    if devices is None:
        raise SizeUnknown(f"its parameters do not say how many {cluster.automatic} it needs")
    return trial.placement(parameters, kind, cluster.bundle(devices))


def sizes(
    trial: TrialType, cluster: Cluster, space: Space | None, first: Iterable[Proposal]
) -> list[Size]:
    """Different sizes that trials can have, smallest first, as far as that is cheap to know.

    Those of the ``first`` proposals, and of the ends and values of those coordinates of the space
    that decide about a size, each with each.
    """
    asked = [(proposal.kind, proposal.parameters) for proposal in first]
    if space is not None:
        asked += [("candidate", parameters) for parameters in _corners(trial, cluster, space)]
    found: dict[Any, Size] = {}
    for kind, parameters in asked:
        try:
            placement = placement_of(trial, cluster, parameters, kind)
        except SizeUnknown:
            continue
        found.setdefault(_key(placement), Size(placement, kind, parameters))
    return sorted(found.values(), key=lambda size: size.rank)


def demand_problems(
    trial: TrialType, cluster: Cluster, space: Space | None
) -> list[tuple[str, str]]:
    """Why ``auto`` cannot be kept; empty where it can, or was not asked for."""
    name = cluster.automatic
    if name is None:
        return []
    some: Mapping[str, Any] = trial.baseline() or {}
    if space is not None:
        some = space.decode([0.5] * len(space.dimensions))
    if trial.devices(some, "candidate") is not None or trial.devices({}, "prefill") is not None:
        return []
    said = f"auto: such trials do not say how many {name} they need; write a number"
    return [(f"cluster.resources.{name}", said)]


def _corners(trial: TrialType, cluster: Cluster, space: Space) -> Iterator[Mapping[str, Any]]:
    """Points of the space that differ in size."""
    middle = [0.5] * len(space.dimensions)
    choices: list[list[float]] = []
    for index in range(len(middle)):
        seen: dict[Any, float] = {}
        for step in range(_STEPS + 1):
            unit = step / _STEPS
            parameters = space.decode([*middle[:index], unit, *middle[index + 1 :]])
            try:
                key = _key(placement_of(trial, cluster, parameters, "candidate"))
            except SizeUnknown:
                key = None
            seen.setdefault(key, unit)
        choices.append(list(seen.values()) if len(seen) > 1 else [0.5])
    for units in islice(product(*choices), _MOST_COMBINATIONS):
        yield space.decode(units)


def _key(placement: Placement) -> Any:
    """Equal for placements that ask for the same; bundles are no keys of dictionaries."""
    bundles = [
        (tuple(sorted(one.resources.items())), tuple(sorted(one.labels.items())))
        for one in placement.bundles
    ]
    return placement.strategy, tuple(bundles), placement.apart
