"""A trial's crew on a Ray cluster: an actor in each further bundle of its placement group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, overload

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from trainables._agent import Agent
from trainables._crew import Answer, Member, answered, lost, within
from trainables._trial import Json, TrialFailure

_NOT_CUSTOM = {"CPU", "GPU", "memory"}
_SAID_CHARS = 300


class _AgentActor:
    """The process on the node. Ray ends it together with the trial's actor, which owns it, and its
    end ends the engine."""

    def __init__(self) -> None:
        self._agent = Agent(ray.util.get_node_ip_address())

    def answer(self, method: str, arguments: Sequence[Json]) -> dict[str, Json]:
        return self._agent.answer(method, arguments)


class RayMember:
    """See :class:`trainables._crew.Member`."""

    def __init__(self, actor: ActorHandle, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.actor = actor

    def ask(self, method: str, /, *arguments: Json) -> Answer:
        return _RayAnswer(self.actor.answer.remote(method, arguments), self)

    def call(self, method: str, /, *arguments: Json, timeout: float) -> Json:
        return within(self.ask(method, *arguments), timeout, self)


class _RayAnswer:
    def __init__(self, reference: Any, member: RayMember) -> None:
        self._reference = reference
        self._member = member

    def wait(self, seconds: float) -> bool:
        ready, _ = ray.wait([self._reference], timeout=seconds)
        return bool(ready)

    def get(self) -> Json:
        member = self._member
        try:
            document = ray.get(self._reference)
        except RayTaskError:
            raise
        except RayError as error:
            raise lost(member.address, _reason(error)) from error
        return answered(document, member.address)


class RayCrew(Sequence[Member]):
    """The members, made when the first of them is asked for.

    Only for use in an actor that lives in the first bundle of a placement group.

    Args:
        bundles: Those of the placement, as JSON.
    """

    def __init__(self, bundles: Sequence[Mapping[str, Any]]) -> None:
        self._bundles = bundles
        self._members: list[RayMember] | None = None

    def __len__(self) -> int:
        return len(self._bundles) - 1

    @overload
    def __getitem__(self, index: int) -> Member: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Member]: ...
    def __getitem__(self, index: int | slice) -> Member | Sequence[Member]:
        if self._members is None:
            self._members = self._muster()
        return self._members[index]

    @property
    def addresses(self) -> list[str]:
        """Of the nodes of all members; empty until the first of them is asked for."""
        return [member.address for member in self._members or ()]

    def close(self) -> None:
        """End the members and what they hold. May be repeated."""
        members, self._members = self._members or [], None
        for member in members:
            with suppress(RayError):
                ray.kill(member.actor)

    def _muster(self) -> list[RayMember]:
        group = get_current_placement_group()
        if group is None:
            raise TrialFailure("lost", "deploy", "the trial is in no placement group of Ray")
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        places = placement_group_table(group)["bundles_to_node_id"]
        members = []
        for number, bundle in enumerate(self._bundles[1:], 1):
            node = places.get(number, "")
            address = nodes.get(node, "")
            actor = _actor(group, number, bundle["resources"])
            members.append(RayMember(actor, f"{address} ({node[:8]})", address))
        return members


def _actor(group: PlacementGroup, bundle: int, resources: Mapping[str, float]) -> ActorHandle:
    """An actor with all devices of a bundle: Ray then tells it which ones are its own."""
    custom = {name: amount for name, amount in resources.items() if name not in _NOT_CUSTOM}
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    options = {
        "num_cpus": 0,
        "num_gpus": resources.get("GPU", 0),
        "resources": custom,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
    }
    return ray.remote(_AgentActor).options(**options).remote()


def _reason(error: RayError) -> str:
    """Why a member's actor does not answer any more, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "died" in line.lower() or "dead" in line.lower()]
    return f"its process is gone: {' '.join(told[:2] or lines[:1])}"[:_SAID_CHARS]
