"""How AISBench is called, and the file that tells it about the served model."""

import os
import stat
from pathlib import Path

import pytest

from trainables import StageError
from trainables.evaluation import make_evaluator
from trainables.evaluation._aisbench_command import call_for, configured, model_file

SERVED = {"path": "/models/q", "model": "q", "host_ip": "::1", "host_port": 18000}


@pytest.fixture
def call(aisbench, tmp_path):
    def make(name="add", **keys):
        options = make_evaluator(aisbench(**keys)).options
        return call_for(
            options,
            name,
            served=SERVED,
            trial="cafe",
            folder=tmp_path / "work" / name,
            log=tmp_path / "log",
            timeout=100,
        )

    return make


def loaded(text):
    """The entry of the file, whose imports of AISBench stand for their own names."""
    lines = [line for line in text.splitlines() if not line.startswith("from ")]
    names = {name: name for name in ("VLLMCustomAPIChat", "VLLMCustomAPI", "tidy")}
    names["extract_non_reasoning_content"] = "extract_non_reasoning_content"
    exec("\n".join(lines), names)
    (entry,) = names["models"]
    return entry


def test_the_file_has_the_keys_of_the_original(call):
    text = model_file(call())
    assert loaded(text) == {
        "type": "VLLMCustomAPIChat",
        "attr": "service",
        "abbr": "vllm-api-general-chat",
        "path": "/models/q",
        "model": "q",
        "host_ip": "::1",
        "host_port": 18000,
        "request_rate": 1.0,
        "retry": 2,
        "max_out_len": 512,
        "batch_size": 1,
        "trust_remote_code": False,
        "generation_kwargs": {},
        "pred_postprocessor": {"type": "extract_non_reasoning_content"},
    }
    assert "from ais_bench.benchmark.models import VLLMCustomAPIChat\n" in text


def test_datasets_say_what_the_settings_do_not(call):
    settings = {
        "request_rate": 2.5,
        "max_out_len": 64,
        "retry": 0,
        "pred_postprocessor": "",
        "generation_kwargs": {"temperature": 0.5, "chat_template_kwargs": {"a": 1, "b": 1}},
        "extra_args": ["--debug"],
    }
    datasets = {
        "add": {
            "config_name": "add_gen/add_datasets",
            "mode": "eval",
            "request_rate": 9,
            "max_out_len": 7,
            "returns_tool_calls": False,
            "api_chat_type": "VLLMCustomAPI",
            "chat_template_kwargs": {"b": 2, "text": 'quote " and \\ and \n'},
            "extra_args": ["--num-prompts", "5"],
        },
        "more": {"config_name": "more_gen"},
    }
    made = call(settings=settings, datasets=datasets)
    entry = loaded(model_file(made))
    assert (entry["type"], entry["request_rate"], entry["max_out_len"]) == ("VLLMCustomAPI", 9, 7)
    assert entry["returns_tool_calls"] is False
    assert entry["generation_kwargs"] == {
        "temperature": 0.5,
        "chat_template_kwargs": {"a": 1, "b": 2, "text": 'quote " and \\ and \n'},
    }
    assert entry["retry"] == 1
    assert "pred_postprocessor" not in entry
    assert (made.mode, made.extra_args) == ("eval", ["--debug", "--num-prompts", "5"])
    other = call("more", settings=settings, datasets=datasets)
    entry = loaded(model_file(other))
    assert (entry["request_rate"], entry["max_out_len"], other.mode) == (2.5, 64, "all")
    assert "returns_tool_calls" not in entry


def test_the_command_line_is_that_of_the_original(call, sums):
    made = call(settings={"extra_args": ["--debug"]})
    with configured(made) as argv:
        config = argv[argv.index("--config-dir") + 1]
        assert argv == [
            *made.command,
            "--models",
            made.model_name,
            "--datasets",
            "add_gen",
            "--mode",
            "all",
            "--work-dir",
            f"{made.folder}/output",
            "--config-dir",
            config,
            "--debug",
        ]
        assert (Path(config) / "datasets").resolve() == (sums / "datasets").resolve()
    assert made.model_name.startswith("vllm_api_general_chat_trial_cafe_")


def test_the_file_is_private_and_gone_afterwards(call, monkeypatch):
    old = os.umask(0)
    try:
        made = call()
        with configured(made) as argv:
            folder = Path(argv[argv.index("--config-dir") + 1])
            (file,) = folder.rglob(f"{made.model_name}.py")
            assert file.parent == folder / "models" / "vllm_api"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert Path(made.folder) in file.parents
        assert not file.exists()
    finally:
        os.umask(old)


def test_the_file_is_gone_after_a_failure_too(call):
    made = call()
    with pytest.raises(RuntimeError), configured(made) as argv:
        (file,) = Path(argv[argv.index("--config-dir") + 1]).rglob(f"{made.model_name}.py")
        raise RuntimeError
    assert not file.exists()


def test_it_stays_where_that_is_asked_for(call):
    made = call(settings={"cleanup_model_config": False})
    with configured(made) as argv:
        (file,) = Path(argv[argv.index("--config-dir") + 1]).rglob(f"{made.model_name}.py")
    assert file.exists()


def test_a_folder_of_the_user_is_used_as_the_original_does(call, tmp_path, sums):
    meta = {"directory": str(tmp_path / "models"), "name_suffix": "mine", "base_name": "served"}
    made = call(settings={"model_meta": meta, "config_dir": ""})
    with configured(made) as argv:
        assert (tmp_path / "models" / "served_mine.py").is_file()
        assert "--config-dir" not in argv
    assert not (tmp_path / "models" / "served_mine.py").exists()
    made = call(settings={"model_meta": meta})
    with configured(made) as argv:
        assert argv[argv.index("--config-dir") + 1] == str(sums)


def test_two_trials_never_share_a_file(call, tmp_path):
    meta = {"directory": str(tmp_path / "models"), "name_suffix": "mine"}
    first, second = (call(name, settings={"model_meta": meta}) for name in ("add", "more"))
    with configured(first):
        with pytest.raises(StageError, match="in use by another trial"), configured(second):
            pass
        assert (tmp_path / "models" / "vllm_api_general_chat_mine.py").is_file()
    with configured(second):
        pass


def test_less_time_is_left_than_the_settings_allow(call):
    assert call(settings={"timeout": 7}).timeout == 7
    assert call(settings={"timeout": 7000}).timeout == 100
