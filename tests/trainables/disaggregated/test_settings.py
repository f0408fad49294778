"""What nodes are told of a trial: nothing that depends on the folder a process runs in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables import trial_type

BENCH = {"type": "builtin", "workload": {"type": "trace", "path": "data/trace.jsonl"}}


def settings(kind: str = "disaggregated", **blocks: Any) -> dict[str, Any]:
    options = {"model": "model", "engine": {"type": "vllm"}, "benchmark": BENCH, **blocks}
    cls = trial_type(kind)
    document = cls(cls.Options.model_validate({"type": kind, **options})).settings()
    told: dict[str, Any] = json.loads(json.dumps(document))
    return told


def options(kind: str = "disaggregated", **blocks: Any) -> Any:
    return settings(kind, **blocks)["options"]


def test_a_served_model_alone_is_told_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = options("serving", engine={"type": "vllm", "command": ["./venv/bin/vllm", "serve"]})
    assert told["engine"]["command"] == [str(tmp_path / "venv/bin/vllm"), "serve"]
    assert told["benchmark"]["workload"]["path"] == str(tmp_path / "data/trace.jsonl")


def test_paths_of_all_blocks_are_those_of_where_the_experiment_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = options(
        engine={"type": "vllm", "command": ["./venv/bin/python", "-u"], "args": {"seed": 1}},
        transfer={"type": "example", "folder": "caches/kv"},
        router={"type": "vllm_ascend", "script": "proxy.py", "command": ["~/bin/python"]},
    )
    assert told["model"] == str(tmp_path / "model")
    assert told["engine"]["command"] == [str(tmp_path / "venv/bin/python"), "-u"]
    assert told["engine"]["args"] == {"seed": 1}
    assert told["benchmark"]["workload"]["path"] == str(tmp_path / "data/trace.jsonl")
    assert told["transfer"]["folder"] == str(tmp_path / "caches/kv")
    assert told["router"]["script"] == str(tmp_path / "proxy.py")
    assert told["router"]["command"] == [str(Path("~/bin/python").expanduser())]


def test_programs_of_the_search_path_stay_what_they_are() -> None:
    told = options(engine={"type": "vllm", "command": ["vllm", "serve"]})
    assert told["engine"] == {"type": "vllm", "command": ["vllm", "serve"]}
    assert told["router"] == {"type": "builtin"}


def test_a_simulation_finds_its_latency_model_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = {
        "type": "simulated",
        "of": {"type": "vllm", "command": ["./vllm", "serve"]},
        "latency": {"type": "xgboost", "path": "trained"},
    }
    told = options(engine=engine)["engine"]
    assert told["latency"] == {"type": "xgboost", "path": str(tmp_path / "trained")}
    assert told["of"]["command"] == [str(tmp_path / "vllm"), "serve"]


def test_a_twin_in_another_folder_has_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = settings(engine={"type": "vllm", "command": ["bin/python"]})
    monkeypatch.chdir(tmp_path)
    assert trial_type("disaggregated").from_settings(document).settings() == document
