"""Rankings of a tiny model: planted faults are found, scores are what they say."""

import pytest
import torch

from trainables import StageError
from trainables.analysis import METRICS, AnalysisRequest
from trainables.analysis._measure import _Projections, fisher_scores, mse_scores
from trainables.analysis.analyze import _load, analyze
from trainables.quantization import named_scheme, practice_from_scheme
from trainables.quantization._fake import (
    RangeObserver,
    fake_activation,
    fake_linear,
    quantize_dequantize,
    weight_parameters,
)

PLANTED = [f"model.layers.1.self_attn.{leaf}_proj" for leaf in "qkv"]


def plant_activation_outlier(model):
    """An input channel a thousand times as large, with weights that make up for it: the float
    model computes the same, but a static scale has no room for the other channels."""
    block = model.model.layers[1]
    block.input_layernorm.weight[5] *= 1000
    for leaf in ("q_proj", "k_proj", "v_proj"):
        getattr(block.self_attn, leaf).weight[:, 5] /= 1000


def plant_weight_outlier(model):
    model.model.layers[2].mlp.down_proj.weight[3, 4] = 50.0


def request(model, calibration, metric):
    return {
        "model": str(model),
        "scheme": "w8a8_static",
        "metric": metric,
        "calibration": calibration,
        "threads": 1,
    }


def run(model, calibration, metric, **changes):
    return analyze({**request(model, calibration, metric), **changes})


@pytest.fixture(scope="module")
def planted(checkpoint):
    return checkpoint(plant_activation_outlier)


@pytest.mark.parametrize("metric", METRICS)
def test_the_planted_layer_is_first_by_every_metric(planted, calibration, metric):
    result = run(planted, calibration, metric)
    first, second = result["ranking"][:2]
    assert first["layers"] == PLANTED
    assert first["score"] > 1.5 * second["score"]
    assert result["groups"] == 12
    assert sum(len(step["layers"]) for step in result["ranking"]) == 21


@pytest.mark.parametrize("metric", ["std", "quantile", "kurtosis"])
def test_outliers_of_weights_are_found_where_they_are(checkpoint, calibration, metric):
    folder = checkpoint(plant_weight_outlier)
    result = run(folder, calibration, metric, on="weights")
    assert result["ranking"][0]["layers"] == ["model.layers.2.mlp.down_proj"]
    assert result["on"] == "weights"


def make_confident(model):
    """Predictions nearly without doubt, where a likeliest label is no drawn one."""
    model.lm_head.weight *= 12


@pytest.fixture
def subject(plain_checkpoint, calibration):
    def load(scheme, model=None):
        asked = AnalysisRequest.model_validate(
            {"model": model or plain_checkpoint, "scheme": scheme, "calibration": calibration}
        )
        return _load(asked, asked.resolved_practice())

    return load


def captured_inputs(subject):
    """Inputs of all candidates over the calibration tokens."""
    found = {name: [] for name in subject.schemes}
    hooks = [
        subject.layer(name).register_forward_pre_hook(
            lambda _, inputs, name=name: found[name].append(inputs[0])
        )
        for name in subject.schemes
    ]
    with torch.no_grad():
        for ids in subject.batches:
            subject.model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def static_range(values, scheme):
    observer = RangeObserver()
    observer.update(values)
    return observer.parameters(scheme)


@pytest.mark.parametrize("scheme", ["w8a8_static", "w8a8_dynamic", "w4a16_g32"])
def test_mse_is_the_output_error_under_the_scheme(subject, scheme):
    loaded = subject(scheme)
    linear = named_scheme(scheme)
    inputs = captured_inputs(loaded)
    scores = {scored.layers: scored for scored in mse_scores(loaded)}
    for group in loaded.groups:
        squares = outputs = values = 0
        for name in group:
            layer, given = loaded.layer(name), inputs[name]
            static = linear.activation is not None and not linear.activation.dynamic
            ranges = static_range(given, linear.activation) if static else None
            exact = torch.nn.functional.linear(given, layer.weight)
            lossy = fake_linear(given, layer.weight, None, linear, activation_qparams=ranges)
            squares += float((lossy - exact).double().square().sum())
            outputs += float(exact.double().square().sum())
            values += exact.numel()
        assert scores[group].score == pytest.approx(squares / values, rel=1e-3)
        assert scores[group].detail["relative"] == pytest.approx(squares / outputs, rel=1e-3)


def divergence(subject, group, inputs):
    """Mean KL divergence of the predictions, in nats per token, with one group quantized."""
    scheme = subject.schemes[group[0]]
    hooks, weights = [], {}
    for name in group:
        layer = subject.layer(name)
        ranges = static_range(inputs[name], scheme.activation)
        weights[name] = layer.weight.data
        layer.weight.data = quantize_dequantize(
            layer.weight.data, scheme.weight, *weight_parameters(layer.weight.data, scheme.weight)
        )
        hooks.append(
            layer.register_forward_pre_hook(
                lambda _, given, ranges=ranges: fake_activation(given[0], scheme.activation, ranges)
            )
        )
    lossy = log_probabilities(subject)
    for hook in hooks:
        hook.remove()
    for name, weight in weights.items():
        subject.layer(name).weight.data = weight
    exact = log_probabilities(subject)
    return float((exact.exp() * (exact - lossy)).sum(-1).mean())


def log_probabilities(subject):
    with torch.no_grad():
        logits = [subject.model(input_ids=ids).logits for ids in subject.batches]
    return torch.log_softmax(torch.cat(logits).double(), -1)


@pytest.mark.parametrize("doubt", ["all", "little"])
def test_fisher_estimates_the_divergence_each_group_causes(subject, checkpoint, doubt):
    loaded = subject("w8a8_static", checkpoint(make_confident if doubt == "little" else None))
    exact = log_probabilities(loaded)
    entropy = -(exact.exp() * exact).sum(-1).mean()
    assert (entropy < 1) == (doubt == "little")
    inputs = captured_inputs(loaded)
    found = [scored.score for scored in fisher_scores(loaded, seed=0)]
    truth = [divergence(loaded, group, inputs) for group in loaded.groups]
    for group, estimate, actual in zip(loaded.groups, found, truth, strict=True):
        attention = "q_proj" in group[0]  # errors of one token reach others through it
        assert (0.2 if attention else 0.7) < estimate / actual < 1.4


def test_errors_of_a_group_at_one_token_add_up_before_they_are_squared():
    projections = _Projections()
    for name, values in (("q", [1.0, 2.0]), ("k", [-1.0, 3.0]), ("expert", [5.0])):
        ones = torch.ones(len(values), 1)
        projections.add(name, torch.tensor(values).unsqueeze(1), ones)
    assert projections.square(("q", "k")) == 0 + 25
    assert projections.square(("q", "expert")) == 1 + 4 + 25
    assert projections.square(("never",)) == 0


def test_fisher_is_repeatable_and_leaves_the_model_alone(subject):
    loaded = subject("w8a8_static")
    before = log_probabilities(loaded)
    first, second = (fisher_scores(loaded, seed=3) for _ in range(2))
    assert first == second
    assert torch.equal(log_probabilities(loaded), before)


def test_what_is_ranked_is_what_the_practice_quantizes(plain_checkpoint, calibration):
    practice = practice_from_scheme("w8a8_static").document()
    practice["spec"]["process"][0]["exclude"] = ["*.layers.0.*"]
    practice["spec"]["process"].insert(0, {"type": "smooth_quant", "alpha": 0.5})
    result = run(plain_checkpoint, calibration, "mse", scheme=None, practice=practice)
    layers = [name for step in result["ranking"] for name in step["layers"]]
    assert len(layers) == 14
    assert not any("layers.0." in name or "lm_head" in name for name in layers)
    assert result["not_applied"] == ["smooth_quant"]
    assert result["scheme"] == "w8a8_static"


def test_candidates_can_be_fewer_and_finer(plain_checkpoint, calibration):
    include = ["*.1.self_attn.q_proj", "*.2.mlp.*"]
    result = run(plain_checkpoint, calibration, "mse", include=include)
    groups = {frozenset(step["layers"]) for step in result["ranking"]}
    prefix = "model.layers.2.mlp."
    assert groups == {
        frozenset(PLANTED),
        frozenset({f"{prefix}gate_proj", f"{prefix}up_proj"}),
        frozenset({f"{prefix}down_proj"}),
    }
    alone = run(plain_checkpoint, calibration, "mse", include=include, unit="layer")
    assert sorted(len(step["layers"]) for step in alone["ranking"]) == [1, 1, 1, 1]


def test_layers_with_the_same_input_are_one_step_where_only_inputs_count(
    plain_checkpoint, calibration
):
    result = run(plain_checkpoint, calibration, "kurtosis", unit="layer")
    assert result["groups"] == 21
    assert sorted(len(step["layers"]) for step in result["ranking"]) == [1] * 6 + [2] * 3 + [3] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": None}, "exactly one of"),
        ({"practice": {"spec": {}}}, "exactly one of"),
        ({"scheme": "w3a3"}, "w3a3"),
        ({"metric": "mse", "on": "weights"}, "takes weights and activations together"),
        ({"metirc": "mse"}, "metirc"),
        ({"include": ["*.attention.*"]}, "no quantized layer matches"),
        ({"calibration": {"smaples": 1}}, "smaples"),
        ({"calibration": {"dataset": "/nowhere.jsonl"}}, "/nowhere.jsonl"),
        ({"model": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_requests_are_told_apart_from_failures(
    plain_checkpoint, calibration, changes, message
):
    with pytest.raises(StageError, match=message) as caught:
        analyze({**request(plain_checkpoint, calibration, "mse"), **changes})
    assert caught.value.failure == "input"
