"""What a cluster has, and who uses it, from Ray's own tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster._connection import Connection
from cluster._resources import Node

_HEAD = "node:__internal_head__"
_INTERNAL = ("node:", "object_store_memory", "accelerator_type:")


@dataclass(frozen=True)
class Use:
    """What one trial, or whatever else reserves resources, has on one node.

    Attributes:
        run: Name of the run, which is Ray's namespace; of other programs what Ray calls it.
        trial: What its supervising actor calls itself; empty where there is none on the node.
        resources: Reserved amounts on this node.
    """

    run: str
    trial: str
    resources: dict[str, float]


@dataclass(frozen=True)
class NodeUse:
    """A node and what is used of it.

    Attributes:
        address: IP address.
        id: Ray's node id.
        head: Whether the cluster began with it.
        total: Amounts it offers.
        free: Amounts that nobody has.
        labels: Those that were given to it.
        uses: Who has what.
    """

    address: str
    id: str
    head: bool
    total: dict[str, float]
    free: dict[str, float]
    labels: dict[str, str]
    uses: list[Use] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cluster_use(connection: Connection) -> list[NodeUse]:
    """The living nodes of a cluster, the head first, each with what runs there."""
    from ray._private.state import state

    accessor = state._connect_and_get_accessor()
    free = state.available_resources_per_node()
    nodes = [node for node in connection.nodes() if node.alive]
    uses = _uses(accessor)
    found = [
        NodeUse(
            address=node.address,
            id=node.id,
            head=_HEAD in node.resources,
            total=_shown(node.resources),
            free=_shown(free.get(node.id, {})),
            labels=_given(node),
            uses=uses.get(node.id, []),
        )
        for node in nodes
    ]
    return sorted(found, key=lambda node: (not node.head, node.address))


def _shown(resources: Any) -> dict[str, float]:
    return {
        name: amount
        for name, amount in sorted(resources.items())
        if not name.startswith(_INTERNAL) and "_group_" not in name
    }


def _given(node: Node) -> dict[str, str]:
    return {key: value for key, value in node.labels.items() if not key.startswith("ray.io/")}


def _uses(accessor: Any) -> dict[str, list[Use]]:
    """By node: one entry for each placement group there, the way Tune reserves for a trial."""
    from ray.core.generated import gcs_pb2

    trials: dict[bytes, str] = {}
    for raw in accessor.get_actor_table(None, "ALIVE"):
        actor = gcs_pb2.ActorTableData.FromString(raw)
        if actor.placement_group_id and actor.repr_name:
            trials.setdefault(actor.placement_group_id, actor.repr_name)
    uses: dict[str, list[Use]] = {}
    for raw in accessor.get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(raw)
        if group.state != gcs_pb2.PlacementGroupTableData.CREATED:
            continue
        for node, resources in _by_node(group.bundles).items():
            trial = trials.get(group.placement_group_id, "")
            uses.setdefault(node, []).append(Use(group.ray_namespace, trial, resources))
    return uses


def _by_node(bundles: Iterable[Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for bundle in bundles:
        total = found.setdefault(bundle.node_id.hex(), {})
        for name, amount in bundle.unit_resources.items():
            total[name] = total.get(name, 0.0) + amount
    return found
