"""Decoder blocks as the units of a ranking."""

import pytest
import torch

from trainables.analysis import METRICS, AnalysisRequest, block_groups, fused_groups
from trainables.analysis._blocks import block_mse_scores
from trainables.analysis._groups import block_name, short_name
from trainables.analysis._measure import FakeLayers
from trainables.analysis.analyze import _load, analyze
from trainables.quantization import fallback_patterns

BLOCKS = [f"model.layers.{number}" for number in range(3)]


def plant_activation_outlier(model):
    block = model.model.layers[1]
    block.input_layernorm.weight[5] *= 1000
    for leaf in ("q_proj", "k_proj", "v_proj"):
        getattr(block.self_attn, leaf).weight[:, 5] /= 1000


@pytest.fixture(scope="module")
def planted(checkpoint):
    return checkpoint(plant_activation_outlier)


def request(model, calibration, **changes):
    return {
        "model": str(model),
        "scheme": "w8a8_static",
        "unit": "block",
        "calibration": calibration,
        "threads": 1,
        **changes,
    }


@pytest.mark.parametrize("metric", METRICS)
def test_the_block_of_the_planted_layer_is_first_by_every_metric(planted, calibration, metric):
    result = analyze(request(planted, calibration, metric=metric))
    assert result["ranking"][0]["layers"] == ["model.layers.1"]
    assert sorted(name for step in result["ranking"] for name in step["layers"]) == BLOCKS
    assert result["groups"] == 3
    assert result["unit"] == "block"


def test_a_block_taken_back_takes_all_its_layers(plain_checkpoint, calibration):
    result = analyze(request(plain_checkpoint, calibration))
    first = result["ranking"][0]["layers"]
    assert fallback_patterns(first) == [f"*{first[0]}.*"]


def test_the_error_is_that_of_the_block_with_all_its_layers_quantized(
    plain_checkpoint, calibration
):
    """Not the sum of its layers' errors: they pass through attention, gate and residual."""
    asked = AnalysisRequest.model_validate(request(plain_checkpoint, calibration))
    subject = _load(asked, asked.resolved_practice())
    found = {scored.layers: scored for scored in block_mse_scores(subject)}
    fake = FakeLayers(subject)
    for number, group in enumerate(subject.groups):
        exact, outputs = [], []
        block = subject.model.model.layers[number]
        inputs = []
        watch = block.register_forward_pre_hook(
            lambda _, args, kwargs, inputs=inputs: inputs.append((args, kwargs)), with_kwargs=True
        )
        with torch.inference_mode():
            for ids in subject.batches:
                subject.model(input_ids=ids, use_cache=False)
            watch.remove()
            exact = [block(*args, **kwargs) for args, kwargs in inputs]
            hooks = [
                subject.layer(name).register_forward_hook(
                    lambda _, given, out, name=name: out + fake.error(name, given[0], out)
                )
                for name in group
            ]
            outputs = [block(*args, **kwargs) for args, kwargs in inputs]
        for hook in hooks:
            hook.remove()
        error = torch.cat([(a - b).flatten() for a, b in zip(outputs, exact, strict=True)])
        whole = torch.cat([each.flatten() for each in exact])
        assert found[group].score == pytest.approx(float(error.square().mean()), rel=1e-4)
        relative = float(error.square().sum() / whole.square().sum())
        assert found[group].detail["relative"] == pytest.approx(relative, rel=1e-4)


def test_the_model_is_left_as_it_was(plain_checkpoint, calibration):
    asked = AnalysisRequest.model_validate(request(plain_checkpoint, calibration))
    subject = _load(asked, asked.resolved_practice())
    with torch.inference_mode():
        before = subject.model(subject.batches[0]).logits
        first, second = block_mse_scores(subject), block_mse_scores(subject)
        assert torch.equal(subject.model(subject.batches[0]).logits, before)
    assert first == second


def test_the_worst_input_of_a_block_decides_where_only_inputs_count(plain_checkpoint, calibration):
    def scores(unit):
        result = analyze(request(plain_checkpoint, calibration, metric="kurtosis", unit=unit))
        return {name: step["score"] for step in result["ranking"] for name in step["layers"]}

    layers = scores("fused")
    for block, score in scores("block").items():
        worst = max(value for name, value in layers.items() if name.startswith(f"{block}."))
        assert score == worst


def test_only_blocks_with_a_candidate_are_ranked(plain_checkpoint, calibration):
    result = analyze(request(plain_checkpoint, calibration, include=["*.2.mlp.*"]))
    assert [step["layers"] for step in result["ranking"]] == [["model.layers.2"]]


def test_layers_by_block():
    layers = ["model.layers.0.self_attn.q_proj", "model.layers.10.mlp.up_proj", "score"]
    more = "model.layers.0.mlp.experts.3.up_proj"
    assert block_groups([*layers, more]) == [(layers[0], more), (layers[1],), (layers[2],)]
    assert [block_name(name) for name in layers] == ["model.layers.0", "model.layers.10", None]
    assert fused_groups(BLOCKS) == [(name,) for name in BLOCKS]
    assert short_name(["model.layers.7"]) == "whole block"
