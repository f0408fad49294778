"""The check of AscendV1 weights sees what is wrong with them, and what a model's names say."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.quantization import (
    Quantized,
    QuantizeJob,
    make_quantizer,
    parse_practice,
    practice_from_scheme,
    with_fallback,
)
from trainables.quantization._ascend import QUANTIZED, ascend_type, verify_ascend
from trainables.quantization._calibration import Calibration
from trainables.quantization._msmodelslim_plan import LinearNames
from trainables.quantization._practice import LinearQConfig

LAYER = "model.layers.0.mlp.up_proj"
FLOAT = "model.layers.1.mlp.down_proj"
WEIGHTS = "quant_model_weights-00001-of-00001.safetensors"
DESCRIPTION = "quant_model_description.json"


@pytest.fixture
def good(tiny_qwen3: Path, tmp_path: Path, msmodelslim_stub) -> tuple[Path, Quantized]:
    document = practice_from_scheme("w8a8_static").document()
    document["spec"]["save"] = [{"type": "ascendv1_saver"}]
    practice = with_fallback(parse_practice(document), "spec.process.0.exclude", [FLOAT])
    folder = tmp_path / "good"
    folder.mkdir()
    job = QuantizeJob(tiny_qwen3, practice, Calibration(samples=1, length=16))
    return folder, make_quantizer(msmodelslim_stub()).quantize(job, folder)


@pytest.fixture
def check(good, tiny_qwen3, tmp_path):
    """Problems of the good artifact after a change of its tensors or their description."""

    def check(change=lambda tensors: None, describe=lambda types: None, quantized=good[1]):
        folder = tmp_path / "changed"
        shutil.copytree(good[0], folder)
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        types = json.loads((folder / DESCRIPTION).read_text())
        describe(types)
        (folder / DESCRIPTION).write_text(json.dumps(types))
        return verify_ascend(folder, tiny_qwen3, quantized, lambda name: False)

    return check


def test_a_good_artifact_has_no_faults(check, good):
    assert check() == []
    assert set(good[1].layers.values()) == {"W8A8", None}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop(f"{LAYER}.deq_scale"), f"{LAYER} has deq_scale in None"),
        (lambda t: t.update({f"{LAYER}.weight": torch.zeros(128, 64)}), "weight in F32, not I8"),
        (lambda t: t.update({f"{LAYER}.deq_scale": torch.ones(128)}), None),
        (lambda t: t.update({f"{LAYER}.quant_bias": torch.ones(128)}), "quant_bias in F32"),
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda t: t[f"{LAYER}.input_scale"].zero_(), "not positive and finite"),
        (lambda t: t.update({"odd.tensor": torch.ones(1)}), "odd.tensor has no type"),
        (lambda t: t.update({"model.global_rotation": torch.ones(1)}), None),
        (
            lambda t: t.update({f"{FLOAT}.weight": torch.zeros(64, 128, dtype=torch.int8)}),
            f"{FLOAT} should be in float, but is FLOAT (I8)",
        ),
    ],
)
def test_wrong_tensors_are_found(check, change, complaint):
    problems = check(change)
    assert bool(problems) == (complaint is not None)
    assert complaint is None or any(complaint in problem for problem in problems)


@pytest.mark.parametrize(
    ("describe", "complaint"),
    [
        (lambda d: d.update({f"{FLOAT}.weight": "W8A8"}), f"{FLOAT} should be in float"),
        (lambda d: d.update({f"{LAYER}.weight": "FLOAT"}), f"{LAYER} should be W8A8, but is FLOAT"),
        (lambda d: d.update({f"{LAYER}.weight": "W8A8_DYNAMIC"}), "should be W8A8, but is W8A8_D"),
        (lambda d: d.update({f"{LAYER}.deq_scale": "FLOAT"}), "but its deq_scale is FLOAT"),
        (lambda d: d.pop("model.norm.weight"), "model.norm.weight has no type"),
        (lambda d: d.update({"model.more.weight": "FLOAT"}), "model.more.weight is described and"),
    ],
)
def test_a_description_that_disagrees_is_found(check, describe, complaint):
    problems = check(describe=describe)
    assert any(complaint in problem for problem in problems)


def test_no_description_is_no_artifact(good, tiny_qwen3):
    (good[0] / DESCRIPTION).unlink()
    (problem,) = verify_ascend(good[0], tiny_qwen3, good[1], lambda name: False)
    assert "has no quant_model_description" in problem


def test_a_file_of_the_index_that_is_short_is_found(good, tiny_qwen3):
    weights = good[0] / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    (problem,) = verify_ascend(good[0], tiny_qwen3, good[1], lambda name: False)
    assert "not written or downloaded to its end" in problem


@pytest.mark.parametrize(
    ("weight", "act", "kind"),
    [
        ("int8", {"scope": "per_tensor", "dtype": "int8"}, "W8A8"),
        ("int8", {"scope": "per_token", "dtype": "int8"}, "W8A8_DYNAMIC"),
        ("int8", {"scope": "pd_mix", "dtype": "int8"}, "W8A8_MIX"),
        ("int8", None, "W8A16"),
        ("int8", {"scope": "per_tensor", "dtype": "float"}, "W8A16"),
        ("int4", {"scope": "per_token", "dtype": "int8"}, "W4A8_DYNAMIC"),
        ("mxfp8", {"scope": "per_block", "dtype": "mxfp8"}, QUANTIZED),
    ],
)
def test_the_type_a_practice_asks_for(weight, act, kind):
    document = {"weight": {"scope": "per_channel", "dtype": weight}, "act": act}
    assert ascend_type(LinearQConfig.model_validate(document)) == kind


def headers(*names, shape=(8, 8)):
    return {f"{name}.weight": {"shape": list(shape), "dtype": "F32"} for name in names}


def test_linear_layers_are_known_by_name_and_shape():
    tensors = {
        **headers("model.layers.10.mlp.up_proj", "model.layers.2.mlp.up_proj"),
        **headers("model.embed_tokens", "lm_head", "model.connector.proj"),
        **headers("model.layers.2.input_layernorm", shape=(8,)),
        **headers("model.layers.2.mlp.experts", shape=(4, 8, 8)),
    }
    names = LinearNames.of(tensors, 11)
    assert names.head == "lm_head"
    assert names.layers == (
        "model.connector.proj",
        "model.layers.2.mlp.up_proj",
        "model.layers.10.mlp.up_proj",
    )


def test_only_decoder_layers_of_a_stack_that_is_quantized_have_to_be():
    layers = (
        "model.layers.0.mlp.up_proj",
        "model.layers.0.mlp.gate",
        "model.layers.1.mlp.up_proj",
        "model.layers.2.mlp.up_proj",
        "visual.blocks.0.mlp.up_proj",
        "model.connector.proj",
    )
    names = LinearNames(layers, "lm_head", blocks=2)
    found = {"model.layers.0.mlp.up_proj"}
    assert names.must_be_quantized(layers, found) == {
        "model.layers.0.mlp.up_proj",
        "model.layers.1.mlp.up_proj",
    }
    assert "visual.blocks.0.mlp.up_proj" in names.must_be_quantized(layers, set())
    assert names.is_spare("model.layers.2.eh_proj.weight")
    assert not names.is_spare("model.layers.1.mlp.up_proj.weight")
