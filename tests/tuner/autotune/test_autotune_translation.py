"""The experiment that flags and variables of ``auto_tune.py`` stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from searchers import Space
from tests.tuner.autotune.calls import experiment, search, translated
from tests.tuner.autotune.repo import write_repo
from tuner.cli import main
from tuner.experiment import load_experiment

ORDER = {
    "GPU_MEMORY_UTILIZATION": "0.97 0.98 0.99",
    "VLLM_MAX_NUM_BATCHED_TOKENS": "65536 98304 131072 196608 262144",
    "VLLM_MAX_NUM_SEQS": "512 768 1024 1536",
    "MAX_MODEL_LEN": "768 1024 1536 2048",
    "STOP_ON_DOUBLE_NEWLINE": "0 1",
    "STOP_STRINGS": "<|im_end|>,<|endoftext|> <|im_end|> <|endoftext|>",
    "OUTPUT_TRIM_EXAMPLES": "0 1",
    "OUTPUT_MAX_SENTENCES": "3 4 6 8",
    "MAX_NEW_TOKENS": "32 48 64 80",
    "MAX_NEW_TOKENS_CODE": "128 160 192 256",
    "MAX_NEW_TOKENS_CODE_SOFT": "64 96 128",
    "MAX_NEW_TOKENS_CODE_HARD": "192 256 320",
    "HARD_CODE_MIN_HITS": "1 2",
    "LONG_ANSWER_ENABLE_DEFAULT": "0 1",
    "LONG_ANSWER_MIN_HITS": "1 2 3",
    "REPETITION_PENALTY": "1.00 1.02 1.05",
    "FREQUENCY_PENALTY": "0.1 0.00 0.05",
}
"""0.1 is where the original starts; its candidate 0.10 is the same number."""
BASE = {
    "MAX_NEW_TOKENS": "64",
    "MAX_NEW_TOKENS_CODE": "192",
    "MAX_NEW_TOKENS_CODE_HARD": "192",
    "MAX_NEW_TOKENS_CODE_SOFT": "96",
    "HARD_CODE_MIN_HITS": "1",
    "LONG_ANSWER_ENABLE_DEFAULT": "1",
    "LONG_ANSWER_MIN_HITS": "1",
    "REPETITION_PENALTY": "1.05",
    "FREQUENCY_PENALTY": "0.1",
    "STOP_STRINGS": "<|im_end|>,<|endoftext|>",
    "STOP_ON_DOUBLE_NEWLINE": "0",
    "GPU_MEMORY_UTILIZATION": "0.97",
    "VLLM_MAX_NUM_BATCHED_TOKENS": "131072",
    "VLLM_MAX_NUM_SEQS": "1024",
    "MAX_MODEL_LEN": "1024",
    "OUTPUT_TRIM_EXAMPLES": "1",
    "OUTPUT_MAX_SENTENCES": "6",
}


def values(document: dict[str, Any]) -> dict[str, list[str | None]]:
    return {name: one["values"] for name, one in document["search"]["space"].items()}


def test_a_call_without_flags_is_the_original_as_it_is_shipped(tmp_path: Path) -> None:
    repo = str(tmp_path)
    assert translated(tmp_path) == {
        "name": "tune_results",
        "trial": {
            "type": "script",
            "preset": "rouge",
            "start": {"command": ["bash", "run_model.sh"], "cwd": repo},
            "ready": {"path": "/", "statuses": [200, 499], "timeout": 240.0},
            "port": 8000,
            "port_busy_retries": 3,
            "port_busy_wait": 10.0,
            "evaluate": {
                "command": [
                    *("python3", "eval_local.py", "--which", "bonus"),
                    "--model_dir_for_tokenizer",
                    "./model/YukinoStuki/Qwen2.5-0.5B-Plus-LLM",
                    *("--batch", "--overwrite_jsonl"),
                ],
                "cwd": repo,
                "runs": 5,
                "timeout": 420.0,
            },
            "cooldown": 1.0,
        },
        "search": {
            "type": "coordinate_ascent",
            "start": {name: BASE[name] for name in ORDER},
            "space": {
                name: {"type": "enum", "values": text.split()} for name, text in ORDER.items()
            },
        },
        "objective": {
            "maximize": "total_tps",
            "limits": [{"metric": "accuracy", "min": 0.88}, {"metric": "ok_runs", "min": 5}],
        },
        "budget": {"concurrent": 1, "retries": {"device": 1, "network": 1, "lost": 1}},
        "storage": f"{repo}/tune_runs",
        "views": [
            {
                "type": "auto_tune",
                "repo": repo,
                "results": f"{repo}/tune_results.jsonl",
                "best": f"{repo}/best_params.json",
                "status": f"{repo}/tune_status.json",
                "server_logs": f"{repo}/tune_server_logs",
                "reuse": True,
            }
        ],
    }


def test_the_order_of_trials_is_the_originals(tmp_path: Path) -> None:
    """Group by group, where it stands first, and each group from the best of the one before."""
    repo = write_repo(tmp_path)

    def speed(point: Any) -> float:
        return float(point["GPU_MEMORY_UTILIZATION"]) * 100 - float(point["MAX_NEW_TOKENS"]) / 100

    done, measured = search(experiment(repo), speed)
    expected, at = [dict(BASE)], dict(BASE)
    for name, text in ORDER.items():
        group = [{**at, name: value} for value in text.split()]
        expected += [point for point in group if point not in expected]
        at = max([at, *group], key=speed)
    assert measured == expected
    assert done.best is not None and dict(done.best.parameters) == at
    assert at["GPU_MEMORY_UTILIZATION"] == "0.99" and at["MAX_NEW_TOKENS"] == "32"


def test_flags_go_into_the_experiment(tmp_path: Path) -> None:
    data = translated(
        tmp_path,
        *("--port", "9000", "--eval_runs", "3", "--startup_timeout", "300", "--eval_timeout", "60"),
        *("--cooldown", "0", "--accuracy_threshold", "0.881", "--port_busy_retries", "5"),
        *("--port_busy_wait_s", "20", "--results", "run2.jsonl", "--best", "b.json"),
        *("--server_log_dir", "logs", "--status_file", "s.json"),
        *("--eval_command", "python3 eval_local.py --which 'all of it'"),
        *("--set", "cluster.resources.NPU=1"),
    )
    trial = data["trial"]
    assert trial["port"] == 9000 and trial["ready"]["timeout"] == 300
    assert trial["evaluate"]["runs"] == 3 and trial["evaluate"]["timeout"] == 60
    assert trial["evaluate"]["command"] == ["python3", "eval_local.py", "--which", "all of it"]
    assert trial["cooldown"] == 0
    assert (trial["port_busy_retries"], trial["port_busy_wait"]) == (5, 20)
    assert [limit["min"] for limit in data["objective"]["limits"]] == [0.881, 3]
    assert data["name"] == "run2"
    assert data["views"][0]["results"] == f"{tmp_path}/run2.jsonl"
    assert data["views"][0]["best"] == f"{tmp_path}/b.json"
    assert data["cluster"] == {"resources": {"NPU": 1}}


def test_an_external_space_is_merged_and_new_names_come_last(tmp_path: Path) -> None:
    space = {"NEW": ["a", 2], "MAX_MODEL_LEN": ["512", "1024"], "VLLM_MAX_NUM_SEQS": "2048"}
    file = tmp_path / "space.json"
    file.write_text(json.dumps(space))
    data = translated(tmp_path, "--search_space_file", str(file))
    assert list(data["search"]["space"]) == [*ORDER, "NEW"]
    assert values(data)["MAX_MODEL_LEN"] == ["768", "1024", "1536", "2048", "512"]
    assert values(data)["VLLM_MAX_NUM_SEQS"] == ["512", "768", "1024", "1536", "2048"]
    assert values(data)["NEW"] == [None, "a", "2"]
    assert data["search"]["start"]["NEW"] is None, "not set before its group comes"


def test_the_base_is_what_the_original_left_as_best(tmp_path: Path) -> None:
    best = {**BASE, "MAX_MODEL_LEN": "1280", "FREQUENCY_PENALTY": "0.10", "ELSE": "1"}
    (tmp_path / "best_params.json").write_text(json.dumps(best))
    data = translated(tmp_path)
    assert data["search"]["start"] == {name: best[name] for name in ORDER}
    assert values(data)["MAX_MODEL_LEN"] == ["1280", "768", "1024", "1536", "2048"]
    assert values(data)["FREQUENCY_PENALTY"] == ["0.00", "0.05", "0.10"]
    assert data["trial"]["constants"] == {"ELSE": "1"}
    assert Space.model_validate(data["search"]["space"]).contains(data["search"]["start"])


def test_notifications_become_channels_whose_secrets_stay_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "TUNE_WEBHOOK_URL": "https://open.feishu.cn/hook/secret-address",
        "TUNE_FEISHU_SECRET": "sign-me",
        "TUNE_SMTP_HOST": "smtp.example.com",
        "TUNE_SMTP_USER": "me@example.com",
        "TUNE_SMTP_PASS": "p@ss/word",
        "TUNE_SMTP_TO": "you@example.com",
        "TUNE_HEARTBEAT_INTERVAL_S": "600",
    }.items():
        monkeypatch.setenv(name, value)
    repo = write_repo(tmp_path)
    data = translated(repo)
    kinds = ["start", "heartbeat", "best", "failed", "timeout", "crashed", "abnormal", "done"]
    assert data["notify"] == [
        {
            "type": "feishu",
            "webhook": "${TUNE_WEBHOOK_URL}",
            "secret": "${TUNE_FEISHU_SECRET}",
            "kinds": kinds,
            "heartbeat": {"trials": 10, "time": 600.0},
        },
        {
            "type": "apprise",
            "url": "${AUTO_TUNE_MAIL_URL}",
            "kinds": ["best", "crashed", "done"],
            "fallback": True,
        },
    ]
    webhook, mail = experiment(repo).notify
    assert webhook.secret_of("secret") == "sign-me"
    address = mail.secret_of("url")
    assert address is not None and "p%40ss%2Fword" in address and "mode=starttls" in address
    assert main(["auto-tune", "--repo", str(repo), "--print-experiment"]) == 0
    shown = capsys.readouterr().out
    assert "sign-me" not in shown and "secret-address" not in shown and "p@ss" not in shown
    assert "export TUNE_WEBHOOK_URL, TUNE_FEISHU_SECRET, AUTO_TUNE_MAIL_URL" in shown


def test_a_generic_webhook_and_mail_alone(tmp_path: Path) -> None:
    data = translated(
        tmp_path,
        *("--webhook_url", "https://example.com/x", "--webhook_kind", "generic"),
        *("--notify_trial_done", "--heartbeat_trials", "0"),
    )
    (channel,) = data["notify"]
    assert channel["type"] == "webhook" and "trial_done" in channel["kinds"]
    assert "heartbeat" not in channel and "heartbeat" not in channel["kinds"]
    assert "trial_done_every" not in channel
    mail = ("--smtp_host", "127.0.0.1", "--smtp_port", "2525", "--smtp_to", "you@example.com")
    (channel,) = translated(tmp_path, *mail, "--smtp_no_starttls")["notify"]
    assert channel["kinds"] == ["best", "crashed", "done"] and "fallback" not in channel
    repo = write_repo(tmp_path / "repo")
    (checked,) = experiment(repo, *mail, "--smtp_no_starttls").notify
    assert (checked.secret_of("url") or "").startswith("mailto://example.com:2525?smtp=127.0.0.1")


def test_every_nth_trial_is_told_where_trials_are(tmp_path: Path) -> None:
    every = ("--notify_trial_done", "--notify_trial_done_every", "4")
    webhook = ("--webhook_url", "https://example.com/x")
    mail = ("--smtp_host", "127.0.0.1", "--smtp_to", "you@example.com")
    first, fallback = translated(tmp_path, *every, *webhook, *mail)["notify"]
    assert first["trial_done_every"] == 4
    assert "trial_done_every" not in fallback
    (alone,) = translated(tmp_path, *every, *mail, "--email_kinds", "trial_done,done")["notify"]
    assert alone["trial_done_every"] == 4


def test_the_printed_experiment_is_one_that_run_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = write_repo(tmp_path / "repo")
    assert main(["auto-tune", "--repo", str(repo), "--port_busy_kill", "--print-experiment"]) == 0
    text = capsys.readouterr().out
    assert "# --port_busy_kill: " in text
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    loaded = load_experiment(file)
    assert loaded.search.type == "coordinate_ascent"
    assert loaded.storage == repo / "tune_runs" / "tune_results"
    assert yaml.safe_load(text)["trial"]["preset"] == "rouge"
