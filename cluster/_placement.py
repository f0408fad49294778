"""Whether a cluster can ever hold a trial, and how many at once.

Ray waits silently and for ever for resources that no node has. So a request is compared with the
nodes before anything is started, and what is missing is said in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from cluster._resources import Bundle, Need, Node, Strategy, units

Apart: TypeAlias = Sequence[Sequence[int]]
"""Groups of bundles of which no two may share a node, see :class:`cluster.Placement`."""

_SEARCH_STEPS = 20_000
_SEARCH_BUNDLES = 200
_SLOTS_COUNTED = 1000


def infeasible(
    bundles: Sequence[Bundle], strategy: Strategy, nodes: Iterable[Node], apart: Apart = ()
) -> list[str]:
    """Why one trial can never be placed on these nodes even when idle; empty when it can.

    Args:
        bundles: What one trial asks for.
        strategy: How its bundles are laid out.
        nodes: The cluster.
        apart: Groups of bundles that must not share nodes.
    """
    living = [node for node in nodes if node.alive]
    if not living:
        return ["the cluster has no living node"]
    needs = needs_of(bundles, strategy)
    reasons = [
        f"{_title(number, bundles, strategy)} ({need}): {_missing(need, living)}"
        for number, need in enumerate(needs, 1)
        if not any(need.copies(node) for node in living)
    ]
    if reasons or len(needs) == 1 or _Search(living, needs, strategy, apart).place(1) is not False:
        return reasons
    where = "; ".join(
        f"bundle {number} ({need}) fits {_names(n for n in living if need.copies(n))}"
        for number, need in enumerate(needs, 1)
    )
    if strategy == "STRICT_SPREAD":
        return [f"each bundle needs a node of its own (STRICT_SPREAD), but {where}"]
    if apart:
        groups = "; ".join(", ".join(str(number + 1) for number in group) for group in apart)
        return [f"bundles {groups} need a node of their own each, which never fits: {where}"]
    return [f"each bundle fits some node, but all of them never fit at once: {where}"]


def slots(
    bundles: Sequence[Bundle],
    nodes: Iterable[Node],
    strategy: Strategy = "PACK",
    apart: Apart = (),
) -> int:
    """How many such trials fit the idle cluster at once; at most 1000 are counted.

    Exact for one bundle and for ``STRICT_PACK``, and elsewhere as far as a bounded search can
    tell; otherwise a number that surely fits.
    """
    living = [node for node in nodes if node.alive]
    needs = needs_of(bundles, strategy)
    if len(needs) == 1:
        return min(sum(needs[0].copies(node) for node in living), _SLOTS_COUNTED)
    room, count = _Search(living, needs, strategy, apart), 0
    while count < _SLOTS_COUNTED and room.place(1):
        count += 1
    while count < _SLOTS_COUNTED:
        if not _Search(living, needs, strategy, apart).place(count + 1):
            break
        count += 1
    return count


def places(
    needs: Sequence[Need], strategy: Strategy, nodes: Sequence[Node], apart: Apart = ()
) -> list[str] | None:
    """Ids of living nodes for these needs, all at once; None where there are none, or none were
    found within the bound of the search.

    Resources of the nodes are what is free there. ``STRICT_PACK`` is one need, see
    :func:`needs_of`.
    """
    if not needs:
        return []
    search = _Search(nodes, needs, strategy, apart)
    if not search.place(1):
        return None
    return [nodes[index].id for _, index in sorted(search.chosen)]


def needs_of(bundles: Sequence[Bundle], strategy: Strategy) -> list[Need]:
    """What has to be found on one node each: the bundles, or all of them for ``STRICT_PACK``."""
    if not bundles:
        raise ValueError("a trial needs at least one bundle")
    if strategy == "STRICT_PACK":
        return [Need.of(bundles)]
    return [Need.of([bundle]) for bundle in bundles]


class _GaveUp(Exception):
    """The search takes too long."""


class _Search:
    """What is free on each node while copies of one trial are placed, and a search for places.

    Backtracking over nodes, most constrained bundle first; nodes with the same room and labels
    are tried once.

    Attributes:
        chosen: Number of the need and index of its node, for everything placed.
    """

    def __init__(
        self, nodes: Sequence[Node], needs: Sequence[Need], strategy: Strategy, apart: Apart
    ) -> None:
        names = sorted({name for need in needs for name in need.units})
        self._free = [[units(node.resources.get(name, 0)) for name in names] for node in nodes]
        self._alike = [tuple(need.matches(node) for need in needs) for node in nodes]
        groups = [range(len(needs))] if strategy == "STRICT_SPREAD" else apart
        self._groups = [
            [group for group, members in enumerate(groups) if number in members]
            for number in range(len(needs))
        ]
        self._steps = 0
        self._bundles = [
            (
                [index for index, node in enumerate(nodes) if need.matches(node)],
                [need.units.get(name, 0) for name in names],
                number,
            )
            for number, need in enumerate(needs)
        ]
        self._bundles.sort(key=lambda bundle: (len(bundle[0]), [-take for take in bundle[1]]))
        self.chosen: list[tuple[int, int]] = []

    def place(self, trials: int) -> bool | None:
        """Place all bundles of ``trials`` copies of the trial and keep them placed.

        ``False`` when that is impossible, ``None`` when the search gave up; nothing is then
        changed.
        """
        wanted = [trials * amount for amount in _total(takes for _, takes, _ in self._bundles)]
        if any(map(int.__gt__, wanted, _total(self._free))):
            return False
        self._steps = 0
        try:
            return self._place_from(0, trials * len(self._bundles), frozenset())
        except _GaveUp:
            return None

    def _place_from(self, position: int, end: int, used: frozenset[tuple[int, int]]) -> bool:
        """Place the bundles from ``position`` on; ``used`` are the groups of the same copy, with
        the nodes that they have."""
        if position == end:
            return True
        self._steps += 1
        if self._steps > _SEARCH_STEPS or position >= _SEARCH_BUNDLES:
            raise _GaveUp
        number = position % len(self._bundles)
        allowed, takes, wanted = self._bundles[number]
        if number == 0:
            used = frozenset()
        tried = set()
        for index in allowed:
            free = self._free[index]
            sort = (tuple(free), self._alike[index])
            takes_for = {(group, index) for group in self._groups[wanted]}
            if used & takes_for:
                continue
            if sort in tried or any(map(int.__lt__, free, takes)):
                continue
            tried.add(sort)
            self._free[index] = [have - take for have, take in zip(free, takes, strict=True)]
            placed = False
            try:
                placed = self._place_from(position + 1, end, used | takes_for)
            finally:
                if not placed:
                    self._free[index] = free
            if placed:
                self.chosen.append((wanted, index))
                return True
        return False


def _total(rows: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _title(number: int, bundles: Sequence[Bundle], strategy: Strategy) -> str:
    if len(bundles) == 1:
        return "the trial"
    if strategy == "STRICT_PACK":
        return "all bundles on one node (STRICT_PACK)"
    return f"bundle {number} of {len(bundles)}"


def _missing(need: Need, nodes: Sequence[Node]) -> str:
    """What no node has of ``need``."""
    matching = [node for node in nodes if need.matches(node)]
    if not matching:
        return _missing_labels(need, nodes)
    which = "node with such labels" if need.selectors else "node"
    for name, amount in need.units.items():
        best = max(matching, key=lambda node: node.resources.get(name, 0))
        have = best.resources.get(name, 0)
        if units(have) < amount:
            if have:
                return f"no {which} has that much {name}; the most is {have:g}, on {best}"
            known = {n for node in matching for n in node.resources if not n.startswith("node:")}
            return f"no {which} has {name}; there is {', '.join(sorted(known))}"
    return f"no single {which} has all of it; each part alone exists on some node"


def _missing_labels(need: Need, nodes: Sequence[Node]) -> str:
    for key, text in need.selectors:
        alone = Need({}, ((key, text),))
        if not any(alone.matches(node) for node in nodes):
            values = sorted({node.labels.get(key, "(not set)") for node in nodes})
            return f"no node passes {key}={text}; the nodes have {key}: {', '.join(values)}"
    return "no single node passes all of these labels"


def _names(nodes: Iterable[Node]) -> str:
    return ", ".join(map(str, nodes))
