"""What a checkpoint folder says about itself, and whether its files are whole."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainables.models import ModelError, describe_model, read_header, weight_files


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for number in (1, 2):
        save_file({f"t{number}": torch.ones(8, 4)}, tmp_path / f"model-{number}.safetensors")
    index = {"weight_map": {"t1": "model-1.safetensors", "t2": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_facts(checkpoint):
    facts = describe_model(checkpoint)
    assert (facts.architecture, facts.layers, facts.hidden_size) == ("Qwen3ForCausalLM", 36, 4096)
    assert (facts.dtype, facts.quantization) == ("bfloat16", None)
    assert facts.weight_files == ("model-1.safetensors", "model-2.safetensors")
    assert facts.weight_bytes == sum((checkpoint / n).stat().st_size for n in facts.weight_files)


def test_facts_of_a_model_with_a_text_part(checkpoint):
    inner = {"num_hidden_layers": 2, "hidden_size": 8, "dtype": "float16"}
    config = {"text_config": inner, "quantization_config": {"quant_method": "fp8"}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    facts = describe_model(checkpoint)
    assert (facts.architecture, facts.layers, facts.dtype) == ("", 2, "float16")
    assert facts.quantization == "fp8"


def test_without_an_index_all_weight_files_count(checkpoint):
    (checkpoint / "model.safetensors.index.json").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"x")
    assert weight_files(checkpoint) == ("model-1.safetensors", "model-2.safetensors")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda f: (f / "model-2.safetensors").unlink(), r"1 of 2.*first is model-2\.safetensors"),
        (lambda f: (f / "config.json").unlink(), "no Hugging Face checkpoint"),
        (lambda f: (f / "config.json").write_text("{"), "no valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "object is expected"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
    ],
)
def test_damage_is_named(checkpoint, damage, complaint):
    damage(checkpoint)
    with pytest.raises(ModelError, match=complaint):
        describe_model(checkpoint)


def test_no_folder_and_no_weights(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        describe_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        describe_model(tmp_path)


def test_a_file_cut_anywhere_is_noticed(checkpoint):
    file = checkpoint / "model-1.safetensors"
    whole = file.read_bytes()
    assert read_header(file)["t1"]["shape"] == [8, 4]
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"truncated|not written or downloaded to its end"):
            describe_model(checkpoint)
    file.write_bytes(whole + b"x")
    with pytest.raises(ModelError, match="bytes where its header says"):
        describe_model(checkpoint)
