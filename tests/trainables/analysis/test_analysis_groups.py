"""Which layers go back to float together, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.analysis import fused_groups
from trainables.analysis._groups import block_number, short_name
from trainables.analysis._ranking import Scored, ranking


def layer(block, *leaves, parent="self_attn"):
    return tuple(f"model.layers.{block}.{parent}.{leaf}" for leaf in leaves)


def test_fused_siblings_are_one_group():
    groups = [
        layer(0, "q_proj", "k_proj", "v_proj"),
        layer(0, "o_proj"),
        layer(0, "gate_proj", "up_proj", parent="mlp"),
        layer(0, "down_proj", parent="mlp"),
        layer(1, "q_a_proj", "kv_a_proj_with_mqa"),
        layer(1, "gate_proj", "up_proj", parent="mlp.shared_expert"),
        layer(2, "w1", "w3", parent="feed_forward"),
        layer(2, "w2", parent="feed_forward"),
        layer(2, "wq", "wk", "wv", parent="attention"),
        layer(3, "query", "key", "value", parent="attention.self"),
        layer(3, "qkv_proj"),
        layer(3, "gate_up_proj", parent="mlp"),
    ]
    layers = [name for group in groups for name in group]
    assert fused_groups(layers) == groups
    assert {frozenset(group) for group in fused_groups(layers[::-1])} == set(map(frozenset, groups))


def test_all_experts_of_a_block_are_one_group():
    experts = [
        f"model.layers.4.mlp.experts.{number}.{leaf}"
        for number in range(3)
        for leaf in ("gate_proj", "up_proj", "down_proj")
    ]
    other = "model.layers.5.mlp.experts.0.down_proj"
    assert fused_groups([*experts, other]) == [tuple(experts), (other,)]
    assert short_name(experts) == "mlp.experts"


def test_siblings_of_different_parents_stay_apart():
    assert len(fused_groups([*layer(0, "q_proj"), *layer(1, "k_proj")])) == 2


@pytest.mark.parametrize(
    ("group", "block", "name"),
    [
        (layer(7, "q_proj", "k_proj", "v_proj"), 7, "self_attn.q/k/v_proj"),
        (layer(12, "o_proj"), 12, "self_attn.o_proj"),
        (layer(0, "w1", "w3", parent="feed_forward"), 0, "feed_forward.w1/w3"),
        (("transformer.h.3.attn.c_attn",), 3, "attn.c_attn"),
        (("score",), None, "score"),
    ],
)
def test_names_for_people(group, block, name):
    assert (block_number(group), short_name(group)) == (block, name)


def test_worst_first_and_equals_together():
    scored = [
        Scored(("a",), 1.0, {"relative": 0.1, "n": 1}),
        Scored(("b", "c"), 3.0, {"relative": 0.5}),
        Scored(("d",), 1.0, {"relative": 0.1, "n": 2}),
        Scored(("e",), 2.0),
    ]
    assert ranking(scored) == [
        {"layers": ["b", "c"], "score": 3.0, "detail": {"relative": 0.5}},
        {"layers": ["e"], "score": 2.0, "detail": {}},
        {"layers": ["a", "d"], "score": 1.0, "detail": {"relative": 0.1}},
    ]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 1e9, -3.0]), max_size=20), st.randoms())
def test_every_layer_is_ranked_once_and_scores_fall(scores, rng):
    scored = [Scored((f"layer{n}",), score) for n, score in enumerate(scores)]
    rng.shuffle(scored)
    steps = ranking(scored)
    assert sorted(name for step in steps for name in step["layers"]) == sorted(
        group.layers[0] for group in scored
    )
    values = [step["score"] for step in steps]
    assert values == sorted(set(scores), reverse=True)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_must_be_a_number(score):
    with pytest.raises(ValueError, match=r"layers\.0\.bad is"):
        ranking([Scored(("layers.0.bad",), score)])


def test_a_layer_is_ranked_once():
    with pytest.raises(ValueError, match="two groups"):
        ranking([Scored(("a", "b"), 1.0), Scored(("b",), 2.0)])
