"""What people are told about nodes."""

from __future__ import annotations

from collections.abc import Sequence

from cluster import NODE_ID, Node, Placement
from tuner.experiment import format_duration

_SHOWN = 3


def asked(placement: Placement) -> str:
    """What a trial needs, in a few words: ``NPU 8, CPU 4`` or ``3 bundles with NPU 4, CPU 3``."""
    order = {"NPU": 0, "GPU": 1, "CPU": 2}
    amounts = sorted(placement.total.items(), key=lambda item: (order.get(item[0], 3), item[0]))
    parts = [f"{name} {amount:g}" for name, amount in amounts]
    labels = {
        f"{key}={selector}"
        for bundle in placement.bundles
        for key, selector in bundle.labels.items()
        if key != NODE_ID
    }
    parts += [f"label {one}" for one in sorted(labels)]
    count = len(placement.bundles)
    return ", ".join(parts) if count == 1 else f"{count} bundles with {', '.join(parts)}"


def waiting(placement: Placement, reasons: Sequence[str]) -> str:
    """What a trial waits for, and whether in vain."""
    said = f"waits for {asked(placement)}"
    return f"{said}: {'; '.join(reasons)}" if reasons else f"{said}, which other trials hold"


def given_up(bound: float) -> str:
    return f"it is given up when that is still so in {format_duration(bound)}"


def change(before: Sequence[Node], after: Sequence[Node], width: int, now: int) -> str:
    """Nodes that came and went; empty where only their resources changed without an effect."""
    old, new = {node.id for node in before}, {node.id for node in after}
    parts = [_some("joined", [node for node in after if node.id not in old])]
    parts.append(_some("left", [node for node in before if node.id not in new]))
    said = "; ".join(part for part in parts if part)
    if width == now:
        return said
    room = f"room for {now} trials at once, before for {width}"
    return f"{said}; {room}" if said else room


def spared(node: Node, count: int, sizes: Sequence[str]) -> str:
    return (
        f"{node} has had {count} device errors in a row, but is the only one that can hold a "
        f"trial with {' or '.join(sizes[:_SHOWN])}, so it still gets them; see to its devices"
    )


def _some(what: str, nodes: Sequence[Node]) -> str:
    if not nodes:
        return ""
    named = ", ".join(map(str, nodes[:_SHOWN]))
    rest = len(nodes) - _SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return f"{'node' if len(nodes) == 1 else f'{len(nodes)} nodes'} {what}: {named}{more}"
