"""Practices: msModelSlim's documents read, edited and written."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.quantization import (
    SCHEMES,
    PracticeError,
    check_rollback_path,
    default_rollback_path,
    layer_schemes,
    linear_targets,
    named_scheme,
    parse_practice,
    practice_from_scheme,
    with_added_fallback,
    with_fallback,
)

DOCUMENT = """
apiversion: modelslim_v1
metadata:
  config_id: qwen3-32b-w8a8
  label: {w_bit: 8, a_bit: 8, is_sparse: false, kv_cache: false}
spec:
  runner: auto
  process:
    - {type: iter_smooth, alpha: 0.5}
    - type: linear_quant
      qconfig:
        act: {scope: per_tensor, dtype: int8, symmetric: false, method: minmax}
        weight: {scope: per_channel, dtype: int8, symmetric: true, method: minmax}
      include: ["*"]
      exclude: ["*lm_head*"]
  save:
    - {type: ascendv1_saver, part_file_size: 4}
  dataset: mix_calib.jsonl
"""


@pytest.fixture
def practice():
    return parse_practice(yaml.safe_load(DOCUMENT))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("smoothquant", [False, True, 0.8])
def test_a_practice_made_from_a_scheme_means_that_scheme(name, smoothquant):
    practice = practice_from_scheme(name, smoothquant)
    (target,) = linear_targets(practice)
    assert target.scheme == named_scheme(name)
    assert practice.spec.process[0].type == ("smooth_quant" if smoothquant else "linear_quant")
    assert practice.metadata.label["w_bit"] == named_scheme(name).weight.bits


def test_alpha_is_a_share():
    with pytest.raises(ValueError, match="alpha"):
        practice_from_scheme("w8a8_static", 1.5)


def test_a_foreign_practice_survives_a_round_trip(practice):
    written = yaml.safe_load(practice.yaml())
    assert written["spec"]["process"] == yaml.safe_load(DOCUMENT)["spec"]["process"]
    assert parse_practice(written) == practice
    assert parse_practice(written).yaml() == practice.yaml()


def test_the_digest_is_about_what_decides_the_weights(practice):
    renamed = practice.model_copy(
        update={"metadata": practice.metadata.model_copy(update={"config_id": "other"})}
    )
    fewer = with_fallback(practice, "spec.process.1.exclude", ["model.layers.2"])
    assert renamed.digest() == practice.digest() != fewer.digest()


def test_all_faults_are_named_with_their_path():
    document = yaml.safe_load(DOCUMENT)
    document["apiversion"] = "modelslim_v0"
    document["spec"]["process"][1]["excluded"] = []
    del document["spec"]["process"][1]["qconfig"]["weight"]["dtype"]
    with pytest.raises(PracticeError) as caught:
        parse_practice(document)
    for path in ("apiversion", "spec.process.1.excluded", "spec.process.1.qconfig.weight.dtype"):
        assert f"{path}: " in str(caught.value)


def test_fallback_replaces_the_list_at_the_path_and_nothing_else(practice):
    changed = with_fallback(practice, "spec.process.1.exclude", ["model.layers.2", "*head*"])
    assert changed.spec.process[1].exclude == ["*model.layers.2.*", "*head*"]
    assert practice.spec.process[1].exclude == ["*lm_head*"]
    assert changed.spec.process[0] == practice.spec.process[0]


def test_added_fallback_keeps_what_was_there(practice):
    once = with_added_fallback(practice, ["model.layers.2"])
    twice = with_added_fallback(once, ["model.layers.2", "model.layers.3"])
    assert twice.spec.process[1].exclude == ["*lm_head*", "*model.layers.2.*", "*model.layers.3.*"]


def test_the_default_path_is_the_last_linear_quant(practice):
    assert default_rollback_path(practice) == "spec.process.1.exclude"
    document = practice.document()
    inner = document["spec"]["process"].pop()
    document["spec"]["process"] += [{"type": "group", "configs": [inner, inner]}]
    grouped = parse_practice(document)
    assert default_rollback_path(grouped) == "spec.process.1.configs.1.exclude"
    check_rollback_path(grouped, "spec.process.1.configs.0.exclude")
    with pytest.raises(PracticeError, match="no linear_quant"):
        default_rollback_path(parse_practice({"spec": {"process": [{"type": "iter_smooth"}]}}))


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("spec.process.2.exclude", "spec.process is a list of 2: iter_smooth, linear_quant"),
        ("spec.process", "must lead to a list of layer patterns"),
        ("spec.proces.1.exclude", "spec has the keys runner, prior, process, save, dataset"),
        ("spec.process.1.qconfig", "has the keys act, weight"),
        ("spec.process.1.exclude.0", "is '\\*lm_head\\*'"),
        ("spec.process.-1.exclude", "leads nowhere"),
        ("", "leads nowhere"),
    ],
)
def test_a_wrong_path_says_what_is_there(practice, path, complaint):
    with pytest.raises(PracticeError, match=complaint):
        check_rollback_path(practice, path)


def test_each_layer_gets_the_first_scheme_that_takes_it():
    attention = practice_from_scheme("w8a8_static").document()["spec"]["process"][0]
    rest = practice_from_scheme("w8a8_dynamic").document()["spec"]["process"][0]
    attention["include"] = ["*self_attn*"]
    practice = parse_practice(
        {"spec": {"process": [attention, rest | {"exclude": ["*down_proj"]}]}}
    )
    schemes = layer_schemes(
        practice, ["m.0.self_attn.q_proj", "m.0.mlp.up_proj", "m.0.mlp.down_proj"]
    )
    expected = [named_scheme("w8a8_static"), named_scheme("w8a8_dynamic"), None]
    assert list(schemes.values()) == expected


@pytest.mark.parametrize(
    ("weight", "complaint"),
    [
        ({"dtype": "mxfp8", "scope": "per_block"}, "weight.dtype 'mxfp8'"),
        ({"dtype": "int8", "scope": "per_channel", "method": "ssz"}, "weight.method 'ssz'"),
        ({"dtype": "int4", "scope": "per_group", "ext": {"group_size": "64"}}, "whole number"),
        ({"dtype": "int8", "scope": "per_token"}, "no tokens"),
    ],
)
def test_what_is_not_known_is_named(weight, complaint):
    process = {"type": "linear_quant", "qconfig": {"weight": weight}}
    with pytest.raises(PracticeError, match=f"spec.process.0.qconfig: .*{complaint}"):
        linear_targets(parse_practice({"spec": {"process": [process]}}))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 40), unique=True, max_size=12))
def test_exactly_the_blocks_named_stay_in_float(blocks):
    practice = practice_from_scheme("w8a8_static")
    path = default_rollback_path(practice)
    practice = with_fallback(practice, path, [f"model.layers.{n}" for n in blocks])
    layers = [
        f"model.layers.{n}.mlp.{leaf}" for n in range(41) for leaf in ("up_proj", "down_proj")
    ]
    floats = {name for name, scheme in layer_schemes(practice, layers).items() if scheme is None}
    assert floats == {name for name in layers if int(name.split(".")[2]) in blocks}
