"""The nodes of a run: whether one more trial can begin, where it goes, and which nodes are spared.

Pure but for the record that it keeps: what nodes there are, what trials report and what time it is
comes from whoever drives it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from cluster import NODE_ID, Bundle, Node, Placement, Room, infeasible, selects, slots, write_json
from searchers import Outcome
from tuner._nodes_record import NodesRecord
from tuner._nodes_words import asked, change, given_up, spared, waiting
from tuner.experiment import Cluster, Size

_PATIENCE_S = 15.0
"""A trial that has not begun after so long waits for room, whatever was thought to be free."""
_DEVICES = ("NPU", "GPU")
_BEFORE_WEIGHTS = frozenset({"starting", "convert", "weights"})
"""Stages of a trial before its node has a copy of the model."""


class NoPlace(Exception):
    """No node of this cluster can ever hold a trial; says why."""


@dataclass
class _Live:
    """A trial handed over.

    Attributes:
        plain: What it needs.
        asked: What was asked for it: on which nodes it may be, too.
        since: When it was handed over.
        begun: Whether it runs.
        nodes: Where, as far as it is known.
        infeasible: Since when no node could hold it; None while one can.
    """

    plain: Placement
    asked: Placement
    since: float
    begun: bool = False
    nodes: set[str] = field(default_factory=set)
    infeasible: float | None = None


class Nodes:
    """Told of nodes, trials and their ends; answers what may be done.

    Args:
        cluster: The experiment's block.
        sizes: What trials can occupy, as far as it is known, smallest first; not empty.
        limit: Trials at once at most; None: as many as there is room for.
        record: What was learned earlier.
        file: Where the record is kept.
        say: Tells the user; the second argument is whether somebody should be woken.
        clock: Monotonic seconds.
        write: Writes a document to a file.
    """

    def __init__(
        self,
        cluster: Cluster,
        sizes: Sequence[Size],
        *,
        limit: int | None,
        record: NodesRecord,
        file: Path,
        say: Callable[[str, bool], None],
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[Path, Any], None] = write_json,
    ) -> None:
        self._cluster = cluster
        self._sizes = list(sizes)
        self._limit = limit
        self._record = record
        self._file = file
        self._say = say
        self._clock = clock
        self._write = write
        self._room = Room()
        self._seen: dict[str, Node] = {}
        self._living: list[Node] = []
        self._live: dict[str, _Live] = {}
        self._given_up: dict[str, str] = {}
        self._indispensable: set[str] = set()
        self._fits: bool | None = None
        self.width = 1
        """Trials that there is room for at once, as small as they can be."""

    def refusal(self) -> list[str]:
        """Why the search cannot begin on these nodes: its first or its smallest trials fit none."""
        needed = [self._sizes[0], *(one for one in self._sizes if one.kind == "baseline")]
        faults = (_reasons(size.placement, self._living) for size in needed)
        return list(dict.fromkeys(chain.from_iterable(faults)))

    def warning(self) -> str | None:
        """What to say before the search about its largest trials; None where they fit."""
        largest = self._sizes[-1]
        reasons = _reasons(largest.placement, self._living)
        if not reasons:
            return None
        return f"the largest trials of the search space fit no node: {'; '.join(reasons)}"

    def renew(self, nodes: Iterable[Node]) -> None:
        """The nodes as they are now. Call it every few seconds."""
        living = [node for node in nodes if node.alive]
        if living != self._living:
            before, self._living = self._living, living
            self._seen |= {node.id: node for node in living}
            self._room.renew(living)
            self._fits = None
            width = self._width()
            if before and (said := change(before, living, self.width, width)):
                self._say(said, False)
            self.width = width
        self._look_after_the_waiting()

    def has_room(self) -> bool:
        """Whether the smallest trial there can be would begin now, beside all others."""
        if self._impatient():
            return False
        if self._fits is None:
            spared = self._excluded()
            self._fits = self._room.fits(self._kept_off(self._sizes[0].placement, spared))
        return self._fits

    def place(self, identity: str, placement: Placement, kind: str = "candidate") -> Placement:
        """What to ask of Ray for a trial, which is then held.

        Raises :class:`NoPlace` when no node that the run has ever seen can hold it.
        """
        lacking = _reasons(placement, self._living)
        if lacking and (reasons := _reasons(placement, self._seen.values())):
            raise NoPlace("; ".join(reasons))
        chosen = self._kept_apart(self._chosen(identity, placement))
        self._note_size(placement, kind)
        self._hold(identity, _Live(placement, chosen, self._clock()))
        return chosen

    def take_over(self, identity: str, plain: Placement, asked_for: Placement) -> None:
        """A trial in flight that an earlier session placed. Nothing new for one that is known."""
        if identity not in self._live:
            self._hold(identity, _Live(plain, asked_for, self._clock()))

    def begun(self, identity: str) -> None:
        """Ray has started a trial."""
        live = self._live.get(identity)
        if live is not None:
            live.begun, live.infeasible = True, None

    def begins_again(self, identity: str) -> None:
        """Ray starts a trial anew whose worker or node died."""
        live = self._live.get(identity)
        if live is not None:
            self._hold(identity, _Live(live.plain, live.asked, self._clock()))

    def located(self, identity: str, node: str, stage: str = "") -> bool:
        """A trial reports from a node: its first bundle is there. Whether that is news."""
        live = self._live.get(identity)
        if live is None or not node:
            return False
        live.begun = True
        new = node not in live.nodes
        if new:
            live.nodes.add(node)
            self._room.locate(identity, node)
            self._fits = None
        if len(live.plain.bundles) == 1 and stage not in _BEFORE_WEIGHTS:
            self._has_weights([node])
        return new

    def ended(self, identity: str, outcome: Outcome) -> None:
        """A trial is over, and what came of it tells something about its nodes."""
        live = self._live.pop(identity, None)
        self._room.release(identity)
        self._given_up.pop(identity, None)
        self._fits = None
        if live is None:
            return
        failure = outcome.data.get("failure", {}) if outcome.status == "failed" else {}
        nodes = self._blamed(live, failure)
        if outcome.status == "measured":
            self._forgive(identity, live.nodes)
            self._has_weights(self._named(_addresses(outcome.data.get("instances"))))
        elif failure.get("class") in ("device", "lost") and nodes:
            self._record.avoid(identity, nodes)
            if failure["class"] == "device":
                for node in nodes:
                    self._count_error(node)
            self._record.save(self._file, self._write)

    def given_up(self) -> Mapping[str, str]:
        """Trials that are not to be waited for any longer: why, by identity."""
        return self._given_up

    def has_begun(self, identity: str) -> bool:
        """Whether a trial runs; also for those that are not known."""
        live = self._live.get(identity)
        return live is None or live.begun

    def whereabouts(self, identity: str) -> dict[str, Any]:
        """Node and address of a trial's first bundle, and what all its bundles hold."""
        live = self._live.get(identity)
        if live is None or not live.nodes:
            return {}
        node = next(iter(live.nodes))
        known = self._seen.get(node)
        address = None if known is None else known.address
        return {"node": node, "address": address, "resources": live.plain.total}

    def waiting(self) -> dict[str, str]:
        """What trials that have not begun wait for, by identity."""
        now = self._clock()
        return {
            identity: waiting(live.asked, _reasons(live.asked, self._living))
            for identity, live in self._live.items()
            if not live.begun and (self._room.waits(identity) or now - live.since > _PATIENCE_S)
        }

    def to_json(self) -> dict[str, Any]:
        """For ``status.json``."""
        return {
            "living": len(self._living),
            "width": self.width,
            "excluded": [{"node": node, **why} for node, why in self._record.excluded.items()],
        }

    def _hold(self, identity: str, live: _Live) -> None:
        self._live[identity] = live
        self._room.hold(identity, live.asked)
        self._fits = None

    def _note_size(self, placement: Placement, kind: str) -> None:
        """The smallest is only known as far as trials have been seen."""
        size = Size(placement, kind, {})
        if size.rank < self._sizes[0].rank:
            self._sizes.insert(0, size)
            self._fits = None
            self.width = self._width()

    def _width(self) -> int:
        smallest = self._kept_off(self._sizes[0].placement, self._excluded())
        room = max(1, slots(smallest.bundles, self._living, smallest.strategy, smallest.apart))
        return room if self._limit is None else min(room, self._limit)

    def _impatient(self) -> bool:
        """Whether something waits although there seemed to be room for it."""
        latest = self._clock() - _PATIENCE_S
        return any(not live.begun and live.since < latest for live in self._live.values())

    def _excluded(self) -> set[str]:
        if not self._record.excluded:
            return set()
        return {node.id for node in self._living if node.id in self._record.excluded}

    def _chosen(self, identity: str, placement: Placement) -> Placement:
        """A placement on nodes that are not spared, and that have the weights while those have
        room."""
        spared = self._excluded()
        avoided = set(self._record.avoided.get(identity, ())) & {n.id for n in self._living}
        kept_off = self._kept_off(placement, spared | avoided)
        if avoided and _reasons(kept_off, self._living):
            kept_off = self._kept_off(placement, spared)
        with_weights = set(self._record.weights) - spared - avoided
        if self._cluster.local_weights and with_weights:
            near = self._aimed(placement, with_weights)
            if self._room.fits(near):
                return near
        return kept_off

    def _kept_apart(self, placement: Placement) -> Placement:
        """Where bundles must not share nodes, a node is named for each: one that has room now, else
        one that will have it. All are apart where the search for such nodes gives up."""
        if not placement.apart:
            return placement
        rooms = (self._room, Room(self._living), Room(self._seen.values()))
        if found := next(filter(None, (room.layout(placement) for room in rooms)), None):
            return placement.on(found)
        return replace(placement, strategy="STRICT_SPREAD", apart=())

    def _kept_off(self, placement: Placement, nodes: set[str]) -> Placement:
        """The same on any other nodes; nodes that join later included, where the user named none
        himself."""
        if not nodes:
            return placement
        if any(NODE_ID in bundle.labels for bundle in placement.bundles):
            return self._restricted(placement, {n.id for n in self._living} - nodes, lambda _: True)
        return placement.labelled(NODE_ID, f"!in({','.join(sorted(nodes))})")

    def _aimed(self, placement: Placement, nodes: set[str]) -> Placement:
        """What serves the model on these nodes; what only supervises may be anywhere."""
        serving = [one for one in placement.bundles if any(map(one.resources.get, _DEVICES))]
        return self._restricted(placement, nodes, lambda one: one in serving or not serving)

    def _restricted(
        self, placement: Placement, nodes: set[str], which: Callable[[Bundle], bool]
    ) -> Placement:
        """Bundles on some of the nodes only, among those that the user permits."""

        def one(bundle: Bundle) -> Bundle:
            users = bundle.labels.get(NODE_ID)
            mine = [node for node in sorted(nodes) if users is None or selects(users, node)]
            if not which(bundle) or not mine:
                return bundle
            return replace(bundle, labels={**bundle.labels, NODE_ID: f"in({','.join(mine)})"})

        return replace(placement, bundles=tuple(map(one, placement.bundles)))

    def _look_after_the_waiting(self) -> None:
        """Give up what no node can hold any more: at once where it can be placed anew, else after
        the time that nodes have to come back."""
        now, bound = self._clock(), self._cluster.wait
        for identity, live in self._live.items():
            if live.begun or identity in self._given_up:
                continue
            reasons = _reasons(live.asked, self._living)
            if not reasons:
                live.infeasible = None
            elif self._can_be_placed(live.plain):
                self._given_up[identity] = "the node that was chosen for it has left"
            elif live.infeasible is None:
                live.infeasible = now
                self._say(f"{waiting(live.asked, reasons)}; {given_up(bound)}", True)
            elif now - live.infeasible > bound:
                said = f"no node could hold it for {bound:g} s: {'; '.join(reasons)}"
                self._given_up[identity] = said

    def _can_be_placed(self, plain: Placement) -> bool:
        return not _reasons(self._kept_off(plain, self._excluded()), self._living)

    def _blamed(self, live: _Live, failure: Mapping[str, Any]) -> set[str]:
        """Where a failure happened: it may say so itself by an address."""
        address = failure.get("node")
        return self._named({address}) if address else set(live.nodes)

    def _named(self, addresses: set[str]) -> set[str]:
        """Ids of the nodes of these addresses."""
        if not addresses:
            return set()
        return {node.id for node in self._seen.values() if node.address in addresses}

    def _forgive(self, identity: str, nodes: Iterable[str]) -> None:
        """A trial was measured: the node's devices work."""
        errors = [self._record.errors.pop(node, 0) for node in nodes]
        if any(errors) or self._record.avoided.pop(identity, []):
            self._record.save(self._file, self._write)

    def _count_error(self, node: str) -> None:
        count = self._record.errors[node] = self._record.errors.get(node, 0) + 1
        most = self._cluster.exclude_after
        known = self._seen.get(node)
        if most is None or count < most or known is None or node in self._record.excluded:
            return
        if sizes := self._held_only_by(node):
            if node not in self._indispensable:
                self._indispensable.add(node)
                self._say(spared(known, count, [asked(size.placement) for size in sizes]), True)
            return
        reason = f"{count} device errors in a row"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._record.excluded[node] = {"address": known.address, "reason": reason, "at": at}
        self.width = self._width()
        self._say(f"{known} gets no more trials of this run: {reason}", True)

    def _held_only_by(self, node: str) -> list[Size]:
        """Sizes that could not be placed any more without a node."""
        then = self._excluded() | {node}
        return [
            size
            for size in self._sizes
            if self._can_be_placed(size.placement)
            and _reasons(self._kept_off(size.placement, then), self._living)
        ]

    def _has_weights(self, nodes: Iterable[str]) -> None:
        if self._cluster.local_weights is None:
            return
        new = [node for node in nodes if node not in self._record.weights]
        if new:
            self._record.weights += new
            self._record.save(self._file, self._write)


def _reasons(placement: Placement, nodes: Iterable[Node]) -> list[str]:
    return infeasible(placement.bundles, placement.strategy, nodes, placement.apart)


def _addresses(instances: Any) -> set[str]:
    """Of the nodes of a trial's instances; simulated ones are nowhere."""
    found = instances.values() if isinstance(instances, dict) else ()
    return {one["node"] for one in found if isinstance(one, dict) and one.get("node")}
