"""What nodes have left beside the trials that are under way. Pure.

Ray packs placement groups by itself: each is placed as a whole on nodes that have room for it now,
or waits. So whoever hands a trial over knows neither when it starts nor where. A :class:`Room`
keeps account of what is known (the nodes, what was handed over, where it turned up) and guesses
the rest, so that no more is handed over than can start.

Why trials of different sizes neither block nor starve each other when one is handed over only
while the *smallest* possible one still fits beside all that is held:

* A trial gets all of its bundles at once or none, and asks for no more later. Nobody holds
  something while it waits for something, so there is no circle of waiting: no deadlock.
* What is handed over either fits at once, or it waits and is itself held here. What waits does not
  fit beside the others, so nothing at all fits beside all of them: nothing further is handed over,
  and only one waits.
* While it waits no new trial begins. Those that run end, and what they free goes to nobody else.
  When the last of them has ended, all nodes are free, and a trial that fits the idle cluster fits:
  no starvation. Until then small ones went on for as long as there was room beside a large one.
* Where it starts is learned when it has started. Until then a guess stands in for it, and the
  answer may be wrong for that moment; then a second one may wait, which the first two points cover
  as well.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster._placement import Apart, needs_of, places
from cluster._resources import Need, Node, Placement, Strategy, units

_DEVICES = ("NPU", "GPU")


@dataclass
class _Held:
    """One trial's placement.

    Attributes:
        where: Node of each need: known, guessed, or None while it has no room.
        known: Which of them are known.
    """

    needs: Sequence[Need]
    strategy: Strategy
    where: list[str | None]
    known: set[int] = field(default_factory=set)


class Room:
    """The nodes and what is held on them. Costs grow with nodes, not with what is held."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self._nodes: dict[str, Node] = {}
        self._free: dict[str, dict[str, int]] = {}
        self._held: dict[Hashable, _Held] = {}
        self._waiting: dict[Hashable, _Held] = {}
        self._crowded: set[str] = set()
        self._matching: dict[tuple[tuple[str, str], ...], list[Node]] = {}
        self.renew(nodes)

    def __len__(self) -> int:
        """How many placements are held."""
        return len(self._held)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def renew(self, nodes: Iterable[Node]) -> None:
        """The nodes as they are now; dead ones count as gone. What was held on a node that is
        gone has to find another place."""
        self._nodes = {node.id: node for node in nodes if node.alive}
        self._free = {
            node.id: {name: units(amount) for name, amount in node.resources.items()}
            for node in self._nodes.values()
        }
        self._matching = {}
        for key, held in self._held.items():
            for number, node in enumerate(held.where):
                if node not in self._nodes:
                    held.where[number] = None
                    held.known.discard(number)
                    self._waiting[key] = held
                elif node is not None:
                    self._take(held.needs[number], node)
        self._settle()

    def hold(self, key: Hashable, placement: Placement) -> None:
        """Something is handed over. A key that is held already is replaced."""
        self.release(key)
        needs = needs_of(placement.bundles, placement.strategy)
        held = _Held(needs, placement.strategy, [None] * len(needs))
        self._held[key] = held
        if not self._guess(held):
            self._waiting[key] = held

    def locate(self, key: Hashable, node: str, bundle: int = 0) -> None:
        """A bundle of what is held has turned up on a node. Unknown keys and nodes are ignored."""
        held = self._held.get(key)
        if held is None or node not in self._nodes:
            return
        number = 0 if held.strategy == "STRICT_PACK" else bundle
        if number in held.known:
            return
        before = held.where[number]
        held.known.add(number)
        if before != node:
            if before is not None:
                self._give(held.needs[number], before)
            held.where[number] = node
            self._take(held.needs[number], node)
            self._settle()

    def release(self, key: Hashable) -> None:
        """What was held has ended."""
        held = self._held.pop(key, None)
        self._waiting.pop(key, None)
        if held is None:
            return
        for number, node in enumerate(held.where):
            if node is not None:
                self._give(held.needs[number], node)
        self._settle()

    def waits(self, key: Hashable) -> bool:
        """Whether nothing is known to be free for what is held."""
        return key in self._waiting

    def fits(self, placement: Placement) -> bool:
        """Whether one more can start now, beside everything that is held."""
        if self._waiting:
            return False
        needs = needs_of(placement.bundles, placement.strategy)
        return (
            self._layout(needs, placement.strategy, [None] * len(needs), placement.apart)
            is not None
        )

    def layout(self, placement: Placement) -> list[str] | None:
        """Nodes for one more, by bundle, beside everything that is held; None where there is no
        room now. Not for ``STRICT_PACK``, which has one node."""
        needs = needs_of(placement.bundles, placement.strategy)
        found = self._layout(needs, placement.strategy, [None] * len(needs), placement.apart)
        return None if found is None else [found[number] for number in range(len(needs))]

    def _guess(self, held: _Held) -> bool:
        """Find a place for what has none; whether there was one."""
        layout = self._layout(held.needs, held.strategy, held.where)
        if layout is None:
            return False
        for number, node in layout.items():
            held.where[number] = node
            self._take(held.needs[number], node)
        return True

    def _layout(
        self,
        needs: Sequence[Need],
        strategy: Strategy,
        where: Sequence[str | None],
        apart: Apart = (),
    ) -> Mapping[int, str] | None:
        """Nodes for those needs that have none; None when they do not fit together. ``apart`` is
        for needs of which none has one."""
        missing = [number for number, node in enumerate(where) if node is None]
        spread = strategy == "STRICT_SPREAD"
        taken = {node for node in where if node is not None} if spread else set()
        if len(missing) == 1:
            node = self._tightest(needs[missing[0]], taken)
            return None if node is None else {missing[0]: node}
        nodes = [
            Node(node.id, node.address, self._amounts(node.id), node.labels)
            for node in self._nodes.values()
            if node.id not in taken
        ]
        found = places([needs[number] for number in missing], strategy, nodes, apart)
        return None if found is None else dict(zip(missing, found, strict=True))

    def _tightest(self, need: Need, taken: Collection[str]) -> str | None:
        """The node that has least left when ``need`` is put on it, as Ray chooses too."""
        # Devices are what is scarce, so they decide before anything else.
        wanted = sorted(need.units.items(), key=lambda item: item[0] not in _DEVICES)
        best: tuple[list[int], str] | None = None
        for node in self._matches(need):
            free = self._free[node.id]
            left = []
            for name, amount in wanted:
                rest = free.get(name, 0) - amount
                if rest < 0:
                    break
                left.append(rest)
            else:
                if node.id not in taken and (best is None or (left, node.id) < best):
                    best = left, node.id
        return None if best is None else best[1]

    def _matches(self, need: Need) -> list[Node]:
        """Nodes whose labels pass; they only change with the nodes."""
        if need.selectors not in self._matching:
            found = [node for node in self._nodes.values() if need.matches(node)]
            self._matching[need.selectors] = found
        return self._matching[need.selectors]

    def _amounts(self, node: str) -> dict[str, float]:
        return {name: max(amount, 0) / units(1) for name, amount in self._free[node].items()}

    def _settle(self) -> None:
        """Guesses give way to what is known, and what waits is tried again."""
        crowded = {node for node in self._crowded if min(self._free[node].values()) < 0}
        self._crowded.clear()
        for key, held in self._held.items() if crowded else ():
            for number, node in enumerate(held.where):
                if node in crowded and number not in held.known:
                    self._give(held.needs[number], node)
                    held.where[number] = None
                    self._waiting[key] = held
        for key, held in list(self._waiting.items()):
            if self._guess(held):
                del self._waiting[key]

    def _take(self, need: Need, node: str) -> None:
        free = self._free[node]
        for name, amount in need.units.items():
            free[name] = free.get(name, 0) - amount
            if free[name] < 0:
                self._crowded.add(node)

    def _give(self, need: Need, node: str) -> None:
        if node not in self._free:
            return
        free = self._free[node]
        for name, amount in need.units.items():
            free[name] = free.get(name, 0) + amount
