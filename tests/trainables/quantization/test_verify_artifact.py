"""The check of quantized weights sees what is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.quantization import (
    Quantized,
    QuantizeJob,
    make_quantizer,
    named_scheme,
    practice_from_scheme,
    with_fallback,
)
from trainables.quantization._calibration import Calibration
from trainables.quantization._verify import verify_artifact

LAYER = "model.layers.0.mlp.up_proj"
FLOAT = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def good(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Quantized]:
    practice = with_fallback(practice_from_scheme("w8a8_static"), "spec.process.0.exclude", [FLOAT])
    folder = tmp_path_factory.mktemp("good")
    job = QuantizeJob(tiny_llama, practice, Calibration(samples=1, length=16))
    return folder, make_quantizer({"type": "torch_reference"}).quantize(job, folder)


@pytest.fixture
def check(good, tiny_llama, tmp_path) -> Callable[..., list[str]]:
    """Problems of the good artifact after a change of its tensors."""

    def check(change=lambda tensors: None, config=lambda config: None, quantized=good[1]):
        folder = tmp_path / "changed"
        shutil.copytree(good[0], folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        document = json.loads((folder / "config.json").read_text())
        config(document["quantization_config"])
        (folder / "config.json").write_text(json.dumps(document))
        return verify_artifact(folder, tiny_llama, quantized)

    return check


def test_a_good_artifact_has_no_faults(check):
    assert check() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop(f"{LAYER}.weight_scale"), f"{LAYER} should have"),
        (lambda t: t.pop(f"{LAYER}.input_scale"), f"{LAYER} should have"),
        (lambda t: t.update({f"{LAYER}.weight": torch.zeros(128, 64)}), f"{LAYER} should have"),
        (
            lambda t: t.update({f"{FLOAT}.weight": torch.zeros(64, 128, dtype=torch.int8)}),
            f"{FLOAT} should be in float",
        ),
        (lambda t: t.update({f"{FLOAT}.weight_scale": torch.ones(64, 1)}), "should be in float"),
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda t: t.update({"model.norm.weight": torch.ones(63)}), "another shape"),
        (lambda t: t[f"{LAYER}.input_scale"].zero_(), "not positive and finite"),
        (lambda t: t[f"{LAYER}.weight_scale"].fill_(float("nan")), "not positive and finite"),
        (
            lambda t: t.update(
                {f"{LAYER}.weight_scale": torch.full((64, 1), torch.inf).bfloat16()}
            ),
            "not positive and finite",
        ),
        (lambda t: t.update({f"{LAYER}.input_zero_point": torch.ones(1)}), f"{LAYER} should have"),
        (lambda t: t.update({"model.norm.bias": torch.ones(64)}), "model.norm.bias is not 0"),
    ],
)
def test_wrong_tensors_are_found(check, change, complaint):
    problems = check(change)
    assert len(problems) == 1
    assert complaint in problems[0]


@pytest.mark.parametrize(
    "config", [lambda c: c["ignore"].remove(FLOAT), lambda c: c["ignore"].append(LAYER)]
)
def test_a_configuration_that_disagrees_with_the_tensors_is_found(check, config):
    (problem,) = check(config=config)
    assert "config.json" in problem


def test_layers_may_be_ignored_by_a_regular_expression(check):
    def config(config):
        config["ignore"] = [r"re:(?:lm_head|model\.layers\.1\.mlp\.down_proj)(?![.\w])"]

    assert check(config=config) == []


def test_a_regular_expression_that_ignores_too_much_is_found(check):
    def config(config):
        config["ignore"] = [r"re:(?:lm_head|model\.layers\.\d\.mlp\.(?:down|up)_proj)"]

    assert f"config.json ignores {LAYER}" in check(config=config)


def test_integers_that_no_configuration_speaks_of_are_found(good, tiny_llama, tmp_path):
    folder = tmp_path / "silent"
    shutil.copytree(good[0], folder)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    (problem,) = verify_artifact(folder, tiny_llama, good[1])
    assert "no quantization_config" in problem


def test_a_bias_of_zeros_does_no_harm(check):
    assert check(lambda tensors: tensors.update({"model.norm.bias": torch.zeros(64)})) == []


def test_an_index_that_lists_what_no_file_has_is_found(good, tiny_llama, tmp_path):
    folder = tmp_path / "listed"
    shutil.copytree(good[0], folder)
    index = {"weight_map": {"model.norm.weight": "model.safetensors", "x": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (problem,) = verify_artifact(folder, tiny_llama, good[1])
    assert "lists x, which no file has" in problem


def test_tensors_that_may_be_left_out_are_not_missed(good, tiny_llama, tmp_path):
    folder = tmp_path / "spare"
    shutil.copytree(good[0], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert verify_artifact(folder, tiny_llama, good[1], spare=lambda name: "norm" in name) == []


def test_another_plan_than_the_one_carried_out_is_found(check, good):
    planned = {**good[1].layers, FLOAT: named_scheme("w8a8_static")}
    problems = check(quantized=Quantized(planned, good[1].head))
    assert any(problem.startswith(f"{FLOAT} should have") for problem in problems)


def test_a_truncated_file_is_found(good, tiny_llama, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(good[0], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (problem,) = verify_artifact(folder, tiny_llama, good[1])
    assert "not written or downloaded to its end" in problem


def test_experts_may_be_joined_in_the_float_checkpoint(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "artifact"
    expert = "model.layers.0.mlp.experts.0.down_proj"
    for path, tensors, ignored in (
        (source, {"model.layers.0.mlp.experts.down_proj": torch.ones(2, 4, 4)}, []),
        (folder, {f"{expert}.weight": torch.ones(4, 4)}, [expert]),
    ):
        path.mkdir()
        save_file(tensors, path / "model.safetensors")
        config = {"quantization_config": {"ignore": ignored}}
        (path / "config.json").write_text(json.dumps(config))
    assert verify_artifact(folder, source, Quantized({expert: None}, None)) == []
    assert len(verify_artifact(folder, source, Quantized({"other": None}, None))) > 1
