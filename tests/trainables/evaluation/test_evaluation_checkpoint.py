"""What is loaded is what the checkpoint declares, or the stage ends."""

import json
import shutil

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file

from trainables import StageError
from trainables.evaluation._checkpoint import context_length, load_model, verify_scheme
from trainables.quantization import named_scheme
from trainables.quantization._fake import fake_activation, quantize_dequantize

LAYERS = 14
"""Linear layers of the tiny model, its output head left out."""
OPTIONS = {"dtype": "float32", "device": "cpu", "trust_remote_code": False}
INTEGERS = torch.tensor([[5, 17, 200, 31, 8, 99, 140, 3]])


def quantized_state(model, scheme, input_scale):
    """The tensors of a compressed-tensors checkpoint, computed here for its own sake."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in [n for n in state if n.endswith("_proj.weight")]:
        scale = state[name].abs().amax(1, keepdim=True) / 127.5
        state[name] = (state[name] / scale).round().clamp(-128, 127).to(torch.int8)
        state[f"{name}_scale"] = scale
        if scheme == "w8a16":
            integers = state.pop(name)
            state[f"{name}_packed"] = pack_to_int32(integers, 8)
            state[f"{name}_shape"] = torch.tensor(integers.shape)
        if scheme == "w8a8_static":
            state[name.replace(".weight", ".input_scale")] = torch.tensor([input_scale])
    return state


def tensor_arguments(scheme):
    return {
        "num_bits": 8,
        "type": "int",
        "strategy": scheme.granularity,
        "symmetric": True,
        "dynamic": scheme.dynamic,
    }


@pytest.fixture(scope="module")
def quantized(tiny_checkpoint, tiny_llama, tmp_path_factory):
    """Makes checkpoint folders of a scheme; the coarse input scale does visible damage."""

    def build(scheme, **changes):
        folder = tmp_path_factory.mktemp("quantized") / "model"
        shutil.copytree(tiny_checkpoint, folder)
        linear = named_scheme(scheme)
        config = json.loads((folder / "config.json").read_text())
        activation = linear.activation and tensor_arguments(linear.activation)
        config["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "format": "int-quantized" if activation else "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": tensor_arguments(linear.weight),
                    "input_activations": activation,
                }
            },
            "ignore": ["lm_head"],
        } | changes
        (folder / "config.json").write_text(json.dumps(config))
        state = quantized_state(tiny_llama(), scheme, input_scale=0.1)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return build


def output(model):
    with torch.no_grad():
        return model(input_ids=INTEGERS).logits


def reference_output(folder, tiny_llama, scheme):
    """Output of the float model with weights and activations quantized by our own arithmetic."""
    state = load_file(folder / "model.safetensors")
    model = tiny_llama()
    linear = named_scheme(scheme)
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            scale = state[f"{name}.weight_scale"]
            module.weight.data = quantize_dequantize(
                module.weight.data, linear.weight, scale, torch.zeros_like(scale)
            )
            given = state.get(f"{name}.input_scale")
            ranges = None if given is None else (given, torch.zeros_like(given))
            module.register_forward_pre_hook(
                lambda _, inputs, ranges=ranges: fake_activation(
                    inputs[0], linear.activation, ranges
                )
            )
    return output(model)


@pytest.mark.parametrize("scheme", ["w8a8_static", "w8a8_dynamic"])
def test_activation_quantization_is_applied(quantized, tiny_llama, scheme):
    folder = quantized(scheme)
    model, _ = load_model(str(folder), **OPTIONS)
    facts = verify_scheme(model, folder)
    assert facts == {"scheme": "compressed-tensors", "layers": LAYERS, "activations": LAYERS}
    expected = reference_output(folder, tiny_llama, scheme)
    assert torch.allclose(output(model), expected, rtol=1e-3, atol=1e-4)
    damage = (expected - output(tiny_llama())).norm() / expected.norm()
    assert damage > (0.05 if scheme == "w8a8_static" else 0.002)


def test_weight_only_quantization_is_applied(quantized):
    folder = quantized("w8a16")
    model, _ = load_model(str(folder), **OPTIONS)
    assert verify_scheme(model, folder)["activations"] == 0


def test_a_float_checkpoint_has_nothing_to_verify(tiny_checkpoint):
    model, tokenizer = load_model(str(tiny_checkpoint), **OPTIONS)
    assert verify_scheme(model, tiny_checkpoint) == {"scheme": "float"}
    assert context_length(model) == 128
    assert len(tokenizer("abc")["input_ids"]) == 3


@pytest.mark.parametrize("scheme", ["w8a8_static", "w8a8_dynamic"])
def test_one_layer_that_computes_in_float_is_found(quantized, scheme):
    folder = quantized(scheme)
    model, _ = load_model(str(folder), **OPTIONS)
    output(model)
    model.get_submodule("model.layers.1.mlp.down_proj").quantization_enabled = False
    with pytest.raises(StageError, match=r"1 of 14 .*layers\.1\.mlp\.down_proj does not quantize"):
        verify_scheme(model, folder)


def test_float_weights_in_a_quantized_layer_are_found(quantized):
    folder = quantized("w8a8_static")
    model, _ = load_model(str(folder), **OPTIONS)
    output(model)
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    layer.weight.data = layer.weight.data + 0.37 * layer.weight_scale * torch.rand_like(
        layer.weight
    )
    with pytest.raises(StageError, match=r"layers\.0\.self_attn\.q_proj has weights that are not"):
        verify_scheme(model, folder)


def test_a_loader_that_drops_layers_is_found(quantized, tiny_llama):
    folder = quantized("w8a8_static")
    with pytest.raises(StageError, match="holds the scales of 14 quantized layers, but only 7"):
        changed = json.loads((folder / "config.json").read_text())
        changed["quantization_config"]["ignore"] += ["re:.*layers.1.*"]
        (folder / "config.json").write_text(json.dumps(changed))
        verify_scheme(tiny_llama(), folder)


def test_other_methods_are_named_but_not_verified(quantized):
    folder = quantized("w8a8_static", quant_method="gptq")
    assert verify_scheme(None, folder) == {"scheme": "gptq"}


@pytest.mark.parametrize("key", ["kv_cache_scheme", "transform_config"])
def test_what_cannot_be_verified_is_no_measurement(quantized, key):
    folder = quantized("w8a8_static", **{key: {"num_bits": 8}})
    with pytest.raises(StageError, match=f"{key} .* cannot be verified"):
        verify_scheme(None, folder)


def test_an_absent_device_is_a_failure_of_the_device(tiny_checkpoint):
    for device in ("npu:0", "cuda:7"):
        with pytest.raises(StageError, match=device) as caught:
            load_model(str(tiny_checkpoint), **{**OPTIONS, "device": device})
        assert caught.value.failure == "device"


@pytest.mark.parametrize("lost", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_missing_tensors_are_not_made_up(tiny_checkpoint, tmp_path, lost):
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    state = load_file(folder / "model.safetensors")
    del state[lost]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=f"lacks 1 tensors .* the first is {lost}"):
        load_model(str(folder), **OPTIONS)


def test_missing_scales_are_not_made_up(quantized):
    folder = quantized("w8a8_static")
    state = load_file(folder / "model.safetensors")
    del state["model.layers.0.mlp.up_proj.input_scale"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="input_scale"):
        load_model(str(folder), **OPTIONS)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(StageError, match="cannot be loaded") as caught:
        load_model(str(tmp_path), **OPTIONS)
    assert caught.value.failure == "input"
