"""What Ray would wait for in vain is refused in words, and slots are neither lost nor invented."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import STRATEGIES, Bundle, Node, Strategy, infeasible, parse_bundle, selects, slots

NODES = [
    Node("aaaaaaaaaa", "10.0.0.1", {"CPU": 8, "NPU": 8, "node:10.0.0.1": 1}, {"pool": "910b"}),
    Node("bbbbbbbbbb", "10.0.0.2", {"CPU": 8, "NPU": 4}, {"pool": "310p"}),
    Node("cccccccccc", "10.0.0.3", {"CPU": 64}),
]


def bundle(labels: dict[str, str] | None = None, **resources: float) -> Bundle:
    return parse_bundle(resources, labels)


@pytest.mark.parametrize(
    ("bundles", "strategy", "words"),
    [
        ([bundle(NPU=9)], "PACK", ["NPU 9", "the most is 8", "10.0.0.1"]),
        ([bundle({"pool": "310p"}, NPU=8)], "PACK", ["pool=310p", "most is 4", "10.0.0.2"]),
        ([bundle({"pool": "x"}, NPU=1)], "PACK", ["pool=x", "310p, 910b", "(not set)"]),
        ([bundle({"pool": "910b", "a": "b"}, NPU=1)], "PACK", ["a=b"]),
        ([bundle(npu_910b=1)], "PACK", ["no node has npu_910b", "there is CPU, NPU"]),
        ([bundle(CPU=30, NPU=1)], "PACK", ["no single node has all"]),
        ([bundle(NPU=1), bundle(NPU=9)], "PACK", ["bundle 2 of 2 (NPU 9)"]),
        ([bundle(NPU=8)] * 2, "PACK", ["never fit at once", "10.0.0.1"]),
        ([bundle(NPU=8), bundle(NPU=4)], "STRICT_PACK", ["STRICT_PACK", "NPU 12"]),
        ([bundle(NPU=1)] * 3, "STRICT_SPREAD", ["a node of its own", "10.0.0.2"]),
    ],
)
def test_what_is_missing_is_said(
    bundles: list[Bundle], strategy: Strategy, words: list[str]
) -> None:
    reasons = infeasible(bundles, strategy, NODES)
    assert len(reasons) == 1
    for word in words:
        assert word in reasons[0]
    assert slots(bundles, NODES, strategy) == 0


def test_dead_nodes_do_not_count() -> None:
    dead = Node("d" * 10, "10.0.0.9", {"CPU": 8}, alive=False)
    assert infeasible([bundle(CPU=1)], "PACK", [dead]) == ["the cluster has no living node"]
    assert slots([bundle(CPU=1)], [dead]) == 0


@pytest.mark.parametrize(
    ("bundles", "strategy", "count"),
    [
        ([bundle(NPU=2)], "PACK", 6),
        ([bundle({"pool": "!310p"}, NPU=2)], "PACK", 4),
        ([bundle(CPU=0.5)], "PACK", 160),
        ([bundle(NPU=0.3)], "PACK", 36),
        ([bundle(NPU=4), bundle(NPU=4)], "STRICT_PACK", 1),
        ([bundle(NPU=4), bundle(NPU=4)], "PACK", 1),
        ([bundle(NPU=4), bundle(NPU=4)], "STRICT_SPREAD", 1),
        ([bundle(CPU=8), bundle(NPU=4)], "STRICT_SPREAD", 3),
        ([bundle(CPU=0.001)], "PACK", 1000),
    ],
)
def test_slots_are_counted(bundles: list[Bundle], strategy: Strategy, count: int) -> None:
    assert slots(bundles, NODES, strategy) == count


def test_a_trial_placed_greedily_does_not_cost_another_its_place() -> None:
    nodes = [Node(f"n{cpu}", "10.0.0.1", {"CPU": cpu, "NPU": 4}) for cpu in (1, 3, 2, 6)]
    assert slots([bundle(CPU=1), bundle(CPU=1, NPU=1)], nodes, "STRICT_SPREAD") == 6


def test_a_large_cluster_is_counted_quickly() -> None:
    nodes = [Node(f"n{i}", f"10.0.1.{i}", {"CPU": 192, "NPU": 16}) for i in range(64)]
    assert slots([bundle(CPU=1), bundle(NPU=4), bundle(NPU=4)], nodes) == 128
    assert slots([bundle(NPU=8), bundle(NPU=8)], nodes, "STRICT_SPREAD") == 64
    assert infeasible([bundle(NPU=16)] * 65, "STRICT_SPREAD", nodes)


small_nodes = st.lists(
    st.builds(
        lambda number, cpu, npu, pool: Node(
            f"node{number}", "10.0.0.1", {"CPU": cpu, "NPU": npu}, {"pool": pool} if pool else {}
        ),
        st.integers(0, 99),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from(["", "a", "b"]),
    ),
    max_size=3,
)
small_bundles = st.lists(
    st.builds(
        lambda resources, labels: parse_bundle({"CPU": 1} | resources, labels),
        st.dictionaries(st.sampled_from(["CPU", "NPU"]), st.integers(1, 3), max_size=2),
        st.dictionaries(st.just("pool"), st.sampled_from(["a", "!a", "in(a,b)"]), max_size=1),
    ),
    min_size=1,
    max_size=3,
)


def every_layout_tried(
    trials: Sequence[Sequence[Bundle]],
    strategy: Strategy,
    nodes: Sequence[Node],
    apart: Sequence[Sequence[int]] = (),
) -> bool:
    """Whether ``trials`` fit together, by trying all layouts."""
    items = [(number, bundle) for number, bundles in enumerate(trials) for bundle in bundles]
    for layout in itertools.product(range(len(nodes)), repeat=len(items)):
        used: dict[tuple[int, str], float] = {}
        places: dict[int, list[int]] = {}
        legal = True
        for (trial, wanted), place in zip(items, layout, strict=True):
            labels = nodes[place].labels
            legal &= all(selects(s, labels.get(key)) for key, s in wanted.labels.items())
            places.setdefault(trial, []).append(place)
            for name, amount in wanted.resources.items():
                used[place, name] = used.get((place, name), 0) + amount
        legal &= all(have <= nodes[p].resources.get(name, 0) for (p, name), have in used.items())
        for own in places.values():
            legal &= strategy != "STRICT_PACK" or len(set(own)) == 1
            legal &= strategy != "STRICT_SPREAD" or len(set(own)) == len(own)
            for group in apart:
                legal &= len({own[number] for number in group}) == len(group)
        if legal:
            return True
    return False


@given(small_bundles, st.sampled_from(STRATEGIES), small_nodes)
def test_a_request_is_refused_exactly_when_no_layout_exists(
    bundles: list[Bundle], strategy: Strategy, nodes: list[Node]
) -> None:
    possible = every_layout_tried([bundles], strategy, nodes) if nodes else False
    assert (infeasible(bundles, strategy, nodes) == []) == possible
    assert (slots(bundles, nodes, strategy) > 0) == possible


@given(small_bundles.filter(lambda b: len(b) < 3), st.sampled_from(STRATEGIES), small_nodes)
def test_slots_are_the_most_trials_that_fit_at_once(
    bundles: list[Bundle], strategy: Strategy, nodes: list[Node]
) -> None:
    count = slots(bundles, nodes, strategy)
    if count and count <= 3:
        assert every_layout_tried([bundles] * count, strategy, nodes)
    if nodes and count < 3:
        assert not every_layout_tried([bundles] * (count + 1), strategy, nodes)


@given(small_bundles, st.sampled_from(STRATEGIES), small_nodes, small_nodes)
def test_more_nodes_never_mean_fewer_slots(
    bundles: list[Bundle], strategy: Strategy, nodes: list[Node], more: list[Node]
) -> None:
    assert slots(bundles, nodes + more, strategy) >= slots(bundles, nodes, strategy)


@given(small_bundles, st.sampled_from([((0, 1),), ((1, 2),), ((0, 1, 2),)]), small_nodes)
def test_bundles_that_must_not_share_a_node_are_placed_exactly_when_they_can_be(
    bundles: list[Bundle], apart: tuple[tuple[int, ...], ...], nodes: list[Node]
) -> None:
    apart = tuple(tuple(n for n in group if n < len(bundles)) for group in apart)
    possible = every_layout_tried([bundles], "PACK", nodes, apart) if nodes else False
    assert (infeasible(bundles, "PACK", nodes, apart) == []) == possible
    assert (slots(bundles, nodes, "PACK", apart) > 0) == possible


def test_parts_that_never_find_nodes_of_their_own_are_told() -> None:
    parts = [bundle(CPU=1), bundle(NPU=3), bundle(NPU=3), bundle(NPU=3)]
    assert not infeasible(parts, "PACK", NODES, [(1, 2)])
    (said,) = infeasible(parts, "PACK", NODES, [(1, 2, 3)])
    assert "bundles 2, 3, 4 need a node of their own each" in said
    assert "10.0.0.2" in said
