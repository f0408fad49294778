"""The ``evaluation`` block of AISBench: defaults, faults with their paths, what decides results."""

import json

import pytest
from pydantic import ValidationError

from trainables.evaluation import make_evaluator, resolved_block
from trainables.evaluation.testing import check_block

DATASETS = {"gsm8k": {"config_name": "gsm8k_gen_0_shot_cot_chat_prompt"}}


def block(**keys):
    return {
        "type": "aisbench",
        "engine": {"type": "vllm-ascend"},
        "datasets": DATASETS,
        **keys,
    }


def test_defaults_are_those_of_the_original():
    resolved = resolved_block(block())
    assert resolved["datasets"]["gsm8k"] == {
        "config_name": "gsm8k_gen_0_shot_cot_chat_prompt",
        "mode": "",
        "request_rate": 0.0,
        "max_out_len": None,
        "returns_tool_calls": None,
        "api_chat_type": "VLLMCustomAPIChat",
        "chat_template_kwargs": {},
        "extra_args": [],
    }
    assert resolved["settings"] == {
        "binary": "ais_bench",
        "mode": "all",
        "timeout": 7200.0,
        "cleanup_model_config": True,
        "request_rate": 1.0,
        "pred_postprocessor": "extract_non_reasoning_content",
        "retry": 2,
        "batch_size": 1,
        "max_out_len": 512,
        "trust_remote_code": False,
        "generation_kwargs": {},
        "extra_args": [],
        "log_dir": "",
        "config_dir": "",
        "model_meta": {
            "directory": "",
            "subdir": "vllm_api",
            "base_name": "vllm_api_general_chat",
            "name_suffix": "auto",
            "abbr": "vllm-api-general-chat",
            "attr": "service",
        },
        "default_metric_keys": ["accuracy"],
    }
    assert resolved["command"] == ["ais_bench"]
    assert resolved["engine"]["startup_timeout"] == 600
    assert resolved_block(resolved) == resolved


def test_all_faults_are_reported_at_once_with_their_paths():
    wrong = block(
        engine={"type": "vllm-ascend", "port": 0, "prot": 1},
        precheck=[{"type": "garbled_text"}, {"type": "expected_answer", "timeout": -1}],
        datasets={"a": {"config_name": "--models"}, "b": {"config_name": "x", "max_out_len": 0}},
        settings={"timeout": 0, "retry": -1, "batch_size": 0, "request_rate": 0, "wit": 1},
        command=[],
    )
    with pytest.raises(ValidationError) as caught:
        make_evaluator(wrong)
    places = {".".join(map(str, fault["loc"])) for fault in caught.value.errors()}
    assert places == {
        "engine.port",
        "engine.prot",
        "precheck.1.timeout",
        "datasets.a.config_name",
        "datasets.b.max_out_len",
        "settings.timeout",
        "settings.retry",
        "settings.batch_size",
        "settings.request_rate",
        "settings.wit",
        "command",
    }


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine": {}}, "has no type"),
        ({"engine": {"type": "warp"}}, "there is no engine 'warp'"),
        ({"precheck": [{"type": "polite"}]}, "there is no precheck 'polite'"),
        ({"datasets": {}}, "at least 1 item"),
        ({"datasets": {"x" * 201: {"config_name": "a"}}}, "at most 200 characters"),
        ({"settings": {"extra_args": ["--reuse=20250101_000000"]}}, "--reuse cannot be given"),
        ({"settings": {"extra_args": ["-w", "/tmp"]}}, "-w cannot be given"),
        ({"settings": {"binary": "opencompass"}}, "ais_bench"),
        ({"settings": {"model_meta": {"base_name": "../x"}}}, "pattern"),
        ({"settings": {"pred_postprocessor": "os.system"}}, "pattern"),
        ({"settings": {"default_metric_keys": []}}, "at least 1 item"),
    ],
)
def test_what_cannot_work_is_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        make_evaluator(block(**keys))


def test_paths_are_absolute_and_programs_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"config_dir": "own", "log_dir": "logs", "model_meta": {"directory": "models"}}
    resolved = resolved_block(block(command=["./ais_bench", "-x"], settings=settings))
    assert resolved["command"] == [str(tmp_path / "ais_bench"), "-x"]
    assert resolved["settings"]["config_dir"] == str(tmp_path / "own")
    assert resolved["settings"]["log_dir"] == str(tmp_path / "logs")
    assert resolved["settings"]["model_meta"]["directory"] == str(tmp_path / "models")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("score", {"gsm8k": {"score"}, "humaneval": {"score"}}),
        (["accuracy", "score"], {"gsm8k": {"accuracy", "score"}}),
        ({"humaneval": "humaneval_pass@1"}, {"gsm8k": {"accuracy"}}),
        ({"humaneval": ["pass@1", "pass@5"]}, {"humaneval": {"pass@1", "pass@5"}}),
    ],
)
def test_metric_keys_are_for_all_datasets_or_for_one(given, expected):
    datasets = {**DATASETS, "humaneval": {"config_name": "humaneval_gen"}}
    settings = {"default_metric_keys": given}
    found = make_evaluator(block(datasets=datasets, settings=settings)).datasets()
    assert list(found) == ["gsm8k", "humaneval"]
    assert {name: found[name] for name in expected} == expected


def test_problems_are_found_before_anything_starts(aisbench, sums, tmp_path):
    sound = aisbench()
    assert make_evaluator(sound).problems() == []
    rules = [{"type": "garbled_text"}]
    wrong = aisbench(
        engine={"command": ["/nowhere/python"]},
        command=["/nowhere/ais_bench"],
        precheck=rules,
        datasets={
            "precheck": {"config_name": "add_gen"},
            "speed": {"config_name": "add_gen", "mode": "perf"},
        },
        settings={
            "config_dir": str(tmp_path / "absent"),
            "mode": "infer",
            "default_metric_keys": {"wit": "score"},
        },
    )
    places = [place for place, _ in make_evaluator(wrong).problems()]
    assert places == [
        "engine.command",
        "command",
        "settings.config_dir",
        "datasets.precheck",
        "settings.default_metric_keys.wit",
        "settings.mode",
        "datasets.speed.mode",
    ]


def test_names_of_configurations_are_checked_where_aisbench_is_installed(aisbench, sums, tmp_path):
    program = tmp_path / "tool" / "bin" / "ais_bench"
    own = tmp_path / "tool/lib/python3.11/site-packages/ais_bench/benchmark/configs/datasets"
    for file in (program, own / "gsm8k" / "gsm8k_gen.py", own / "add_gen.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o755)
    names = ["gsm8k_gen", "more_gen/more_datasets", "gsm8_gen", "add_gen"]
    datasets = {f"d{n}": {"config_name": name} for n, name in enumerate(names)}
    found = dict(make_evaluator(aisbench(command=[str(program)], datasets=datasets)).problems())
    assert set(found) == {"datasets.d2.config_name", "datasets.d3.config_name"}
    assert "there is gsm8k_gen" in found["datasets.d2.config_name"]
    assert "ambiguous" in found["datasets.d3.config_name"]


def test_the_contract_of_a_block_is_kept(aisbench, sums):
    settings = aisbench()["settings"]
    rules = [{"type": "expected_answer"}]
    check_block(
        aisbench(precheck=rules),
        matters=[
            {"precheck": []},
            {"precheck": [{"type": "expected_answer", "max_tokens": 7}]},
            {"engine": {**aisbench()["engine"], "args": {"max-model-len": 512}}},
            {"datasets": {"add": {"config_name": "two_gen"}}},
            {"datasets": {**aisbench()["datasets"], "two": {"config_name": "two_gen"}}},
            {"settings": {**settings, "generation_kwargs": {"temperature": 0.7}}},
            {"settings": {**settings, "max_out_len": 1024}},
            {"settings": {**settings, "pred_postprocessor": ""}},
            {"settings": {**settings, "default_metric_keys": "score"}},
            {"settings": {**settings, "extra_args": ["--num-prompts", "5"]}},
        ],
        neutral=[
            {"precheck": [{"type": "expected_answer", "timeout": 7}]},
            {"engine": {**aisbench()["engine"], "port": 23456, "startup_timeout": 5}},
            {"settings": {**settings, "timeout": 5, "retry": 9, "batch_size": 9}},
            {"settings": {**settings, "request_rate": 5, "log_dir": "/tmp/logs"}},
        ],
    )


def test_the_data_of_a_dataset_counts_with_its_content(aisbench, sums):
    before = make_evaluator(aisbench()).identity()
    (sums / "unrelated.txt").write_text("x")
    assert make_evaluator(aisbench()).identity() == before
    data = sums / "add.jsonl"
    kept = data.read_bytes()
    data.write_bytes(kept.replace(b"What is 0+3?", b"What is 0+4?"))
    assert make_evaluator(aisbench()).identity() != before
    data.write_bytes(kept)
    assert make_evaluator(aisbench()).identity() == before


def test_the_users_configuration_counts_with_its_content(aisbench, sums):
    before = make_evaluator(aisbench()).identity()
    with (sums / "datasets" / "add_gen.py").open("a") as stream:
        stream.write("# another prompt\n")
    assert make_evaluator(aisbench()).identity() != before
    json.dumps(before)
