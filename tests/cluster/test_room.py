"""How much is handed to Ray: neither too much, nor so that trials of different sizes block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import Bundle, Node, Placement, Room, infeasible, parse_bundle


def node(name: str, npu: float, cpu: float = 64, **labels: str) -> Node:
    return Node(name, f"10.0.0.{len(name)}", {"CPU": cpu, "NPU": npu}, labels)


def npus(amount: float, **labels: str) -> Placement:
    return Placement((parse_bundle({"CPU": 1, "NPU": amount}, labels),))


def test_what_is_handed_over_takes_its_room_until_it_ends() -> None:
    room = Room([node("a", 4), node("b", 4)])
    for key in range(4):
        assert room.fits(npus(2))
        room.hold(key, npus(2))
    assert not room.fits(npus(1))
    room.release(2)
    assert room.fits(npus(2)) and not room.fits(npus(4))


def test_nothing_fits_beside_what_waits() -> None:
    room = Room([node("a", 8)])
    room.hold("small", npus(1))
    room.hold("large", npus(8))
    assert room.waits("large") and not room.fits(npus(1))
    room.release("small")
    assert not room.waits("large") and not room.fits(npus(1))
    room.release("large")
    assert room.fits(npus(8))


def test_a_report_corrects_the_guess_where_a_trial_is() -> None:
    room = Room([node("a", 4), node("b", 8)])
    room.hold("one", npus(4))  # the tightest place is a
    assert room.fits(npus(8))
    room.locate("one", "b")
    assert not room.fits(npus(8)) and room.fits(npus(4))


def test_guesses_give_way_to_what_is_known() -> None:
    room = Room([node("a", 4), node("b", 4)])
    room.hold("guessed", npus(4))
    room.hold("known", npus(4))
    room.locate("known", "a")
    assert not room.waits("guessed") and not room.fits(npus(1))
    room.locate("guessed", "b")
    assert not room.waits("guessed") and not room.waits("known")


def test_nodes_come_and_go() -> None:
    room = Room([node("a", 4)])
    room.hold("one", npus(4))
    room.locate("one", "a")
    room.renew([node("a", 4), node("b", 4)])
    assert room.fits(npus(4))
    room.renew([node("b", 4)])  # what ran on a has to begin again
    assert not room.waits("one") and not room.fits(npus(1))
    room.renew([])
    assert room.waits("one")


def test_labels_keep_placements_apart() -> None:
    room = Room([node("a", 4, pool="x"), node("b", 4, pool="y")])
    room.hold("one", npus(4, pool="x"))
    assert not room.fits(npus(1, pool="x")) and room.fits(npus(1, pool="!x"))


def test_all_bundles_of_a_trial_need_room_at_once() -> None:
    room = Room([node("a", 4), node("b", 4)])
    pair = Placement((parse_bundle({"NPU": 3}), parse_bundle({"NPU": 3})))
    room.hold("one", npus(1))
    assert room.fits(pair)
    room.hold("two", npus(1))
    room.locate("two", "b")
    room.locate("one", "a")
    assert room.fits(pair)
    room.hold("three", npus(1))
    assert not room.fits(pair)


def test_a_thousand_nodes_and_trials_are_no_burden() -> None:
    room = Room([node(f"n{number}", 8) for number in range(1000)])
    for key in range(1000):
        room.hold(key, npus(8))
    assert not room.fits(npus(1))
    for key in range(1000):
        room.locate(key, f"n{999 - key}")
    room.release(7)
    assert room.fits(npus(8))


class World:
    """Ray as far as it matters: it places whole groups, in any order, on any nodes with room, and
    whoever handed them over is told where only later."""

    def __init__(self, nodes: Sequence[Node], trials: Sequence[Placement]) -> None:
        self.nodes = nodes
        self.free = {one.id: dict(one.resources) for one in nodes}
        self.room = Room(nodes)
        self.smallest = min(trials, key=lambda one: (one.total.get("NPU", 0), len(one.bundles)))
        self.to_come = list(enumerate(trials))
        self.pending: dict[int, Placement] = {}
        self.running: dict[int, list[tuple[str, Bundle]]] = {}
        self.unknown: set[int] = set()
        self.finished: list[int] = []
        self.overtaken: dict[int, int] = {}

    @property
    def over(self) -> bool:
        return not (self.to_come or self.pending or self.running)

    def may_ask(self) -> bool:
        live = self.pending or self.running
        return bool(self.to_come) and (not live or self.room.fits(self.smallest))

    def ask(self) -> None:
        key, placement = self.to_come.pop(0)
        self.room.hold(key, placement)
        self.pending[key] = placement

    def layouts(self, key: int) -> list[list[str]]:
        """All ways in which Ray might place a group now."""
        found: list[list[str]] = [[]]
        bundles = self.pending[key].bundles
        for number in range(len(bundles)):
            found = [
                [*so_far, one.id]
                for so_far in found
                for one in self.nodes
                if self._has([*so_far, one.id], bundles[: number + 1])
            ]
        return found

    def _has(self, places: Sequence[str], bundles: Sequence[Bundle]) -> bool:
        left = {name: dict(amounts) for name, amounts in self.free.items()}
        for place, bundle in zip(places, bundles, strict=True):
            for name, amount in bundle.resources.items():
                left[place][name] -= amount
        return all(amount >= 0 for amounts in left.values() for amount in amounts.values())

    def place(self, key: int, layout: Sequence[str]) -> None:
        placement = self.pending.pop(key)
        for other in self.pending:
            if other < key and not self.unknown:
                self.overtaken[other] = self.overtaken.get(other, 0) + 1
        self.running[key] = list(zip(layout, placement.bundles, strict=True))
        for place, bundle in self.running[key]:
            for name, amount in bundle.resources.items():
                self.free[place][name] -= amount
        self.unknown.add(key)

    def report(self, key: int) -> None:
        self.unknown.discard(key)
        for number, (place, _) in enumerate(self.running[key]):
            self.room.locate(key, place, number)

    def end(self, key: int) -> None:
        for place, bundle in self.running.pop(key):
            for name, amount in bundle.resources.items():
                self.free[place][name] += amount
        self.unknown.discard(key)
        self.room.release(key)
        self.finished.append(key)

    def moves(self) -> list[tuple[str, int]]:
        """Everything that may happen next."""
        found = [("ask", 0)] if self.may_ask() else []
        found += [("place", key) for key in self.pending if self.layouts(key)]
        found += [("report", key) for key in self.unknown]
        return found + [("end", key) for key in self.running]

    def make(self, move: tuple[str, int], layout: Any) -> None:
        name, key = move
        if name == "ask":
            self.ask()
        elif name == "place":
            self.place(key, layout(self.layouts(key)))
        elif name == "report":
            self.report(key)
        else:
            self.end(key)


NODES = st.lists(st.sampled_from([1.0, 2.0, 4.0, 8.0]), min_size=1, max_size=3).map(
    lambda sizes: [node(f"n{number}", size) for number, size in enumerate(sizes)]
)
SIZES = st.lists(
    st.sampled_from([(1,), (2,), (4,), (8,), (1, 1), (2, 2), (4, 1), (0,)]), min_size=1, max_size=10
)


def trials_on(nodes: Sequence[Node], sizes: Sequence[tuple[int, ...]]) -> list[Placement]:
    wanted = [
        Placement(tuple(parse_bundle({"CPU": 1, "NPU": amount}) for amount in size))
        for size in sizes
    ]
    return [one for one in wanted if not infeasible(one.bundles, one.strategy, nodes)]


@settings(max_examples=200, deadline=None)
@given(NODES, SIZES, st.data())
def test_no_order_of_sizes_places_reports_and_ends_blocks_the_search(
    nodes: list[Node], sizes: list[tuple[int, ...]], data: st.DataObject
) -> None:
    trials = trials_on(nodes, sizes)
    if not trials:
        return
    world = World(nodes, trials)
    while not world.over:
        moves = world.moves()
        assert moves, "deadlock"
        world.make(data.draw(st.sampled_from(moves)), lambda of: data.draw(st.sampled_from(of)))
    assert sorted(world.finished) == list(range(len(trials)))


@settings(max_examples=200, deadline=None)
@given(NODES, SIZES, st.data())
def test_at_most_one_waits_and_none_is_overtaken_where_places_are_known(
    nodes: list[Node], sizes: list[tuple[int, ...]], data: st.DataObject
) -> None:
    trials = trials_on(nodes, sizes)
    if not trials:
        return
    world = World(nodes, trials)
    while not world.over:
        moves = [move for move in world.moves() if move[0] in ("ask", "end")]
        world.make(data.draw(st.sampled_from(moves)), None)
        for key in sorted(world.pending):
            if layouts := world.layouts(key):
                world.place(key, data.draw(st.sampled_from(layouts)))
                world.report(key)
        assert len(world.pending) <= 1
        assert not world.overtaken


def test_a_large_trial_does_not_starve_among_small_ones() -> None:
    nodes = [node("a", 8)]
    world = World(nodes, [npus(1)] * 3 + [npus(8)] + [npus(1)] * 50)
    while 3 not in world.finished:
        while world.may_ask():
            world.ask()
        for key in sorted(world.pending):
            if world.layouts(key):
                world.place(key, ["a"])
                world.report(key)
        world.end(min(world.running))
    assert len(world.finished) == 4, "only those before it have ended"


@pytest.mark.parametrize("strategy", ["STRICT_SPREAD", "STRICT_PACK"])
def test_layouts_that_the_user_demands_are_kept(strategy: Any) -> None:
    room = Room([node("a", 8), node("b", 2)])
    pair = Placement((parse_bundle({"NPU": 3}), parse_bundle({"NPU": 3})), strategy)
    assert room.fits(pair) == (strategy == "STRICT_PACK")
