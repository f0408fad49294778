"""Which layers a pattern covers: msModelSlim's globs, and layers an engine fuses."""

import pytest

from trainables.quantization import (
    engine_patterns,
    fallback_patterns,
    fused_with,
    is_excluded,
    split_groups,
    unmatched_patterns,
)

DOWN = "model.layers.2.mlp.down_proj"


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        (DOWN, True),
        ("*down_proj", True),
        ("*model.layers.2.*", True),
        ("*model.layers.2.mlp.down_proj.*", True),
        ("*model.layers.{1,2}.*", True),
        ("*.mlp.{gate,up}_proj*", False),
        ("*model.layers.2[01].*", False),
        ("*model.layers.12.*", False),
        ("*ayers.?.mlp*", True),
        ("down_proj", False),
        ("*DOWN_PROJ", False),
    ],
)
def test_patterns_cover_whole_names(pattern, covered):
    assert is_excluded(DOWN, [pattern]) is covered
    assert is_excluded(DOWN, ["nothing", pattern]) is covered


def test_layer_two_is_not_layer_twelve():
    assert not is_excluded("model.layers.12.mlp.down_proj", ["*model.layers.2.*"])


def test_plain_names_become_patterns_and_bring_their_fused_siblings():
    assert fallback_patterns(["model.layers.3", "model.layers.4.mlp.up_proj", "*x*", "*x*"]) == [
        "*model.layers.3.*",
        "*model.layers.4.mlp.gate_proj.*",
        "*model.layers.4.mlp.up_proj.*",
        "*x*",
    ]


def test_fused_layers_know_their_siblings():
    assert fused_with("a.k_proj") == ("a.q_proj", "a.k_proj", "a.v_proj")
    assert fused_with("a.o_proj") == ("a.o_proj",)


def test_a_split_group_is_found():
    quantized = {"a.q_proj": True, "a.k_proj": False, "a.v_proj": True, "a.o_proj": False}
    assert split_groups(quantized) == [("a.q_proj", "a.k_proj", "a.v_proj")]
    assert split_groups(quantized | {"a.k_proj": True}) == []


def test_misspelt_patterns_are_found():
    assert unmatched_patterns(["*down_proj", "*dwon_proj"], [DOWN]) == ["*dwon_proj"]


def test_msmodelslims_own_matcher_covers_the_same_layers():
    from wcmatch import fnmatch

    patterns = engine_patterns(["*model.layers.2.mlp.down_proj.*", "*model.layers.5.*"])
    theirs = [
        any(fnmatch.fnmatch(n, p, flags=fnmatch.BRACE) for p in patterns) for n in (DOWN, "a")
    ]
    assert theirs == [True, False]
    assert not is_excluded("model.layers.25.mlp.up_proj", patterns)
