"""A serving search with the real vLLM on a CPU: what it finds and what it refuses to start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.endtoend.served import ENOUGH, TOO_LITTLE, experiment, run
from tests.tuner.runs import assert_nothing_left, assert_nothing_measured_twice, ledger

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]


def test_many_sequences_at_once_win_and_what_cannot_start_is_not_started(tmp_path: Path) -> None:
    result = run(experiment(tmp_path))
    folder = tmp_path / "demo"
    assert result["verdict"] == "satisfied"
    assert result["best"] == {"max-num-seqs": 16, "kv-cache-memory-bytes": ENOUGH}
    assert any("output_tokens_per_s" in note for note in result["notes"])

    rows = ledger(folder)
    refused = [row for row in rows if row["data"].get("real_evaluation") is False]
    assert len(refused) == 2
    assert {row["parameters"]["kv-cache-memory-bytes"] for row in refused} == {TOO_LITTLE}
    assert all(row["data"]["stopped"]["by"] == "kv_memory" for row in refused)
    folders = [folder / "trials" / row["identity"][:16] for row in refused]
    assert all(each.is_dir() and not (each / "engine.log").exists() for each in folders)

    script = (folder / "best" / "serve.sh").read_text()
    assert "--max-num-seqs 16" in script
    point = json.loads((folder / "best" / "operating_point.json").read_text())
    assert point["load"]["concurrency"] > 1
    assert_nothing_measured_twice(folder)
    assert_nothing_left(folder)


def test_vllm_itself_refuses_what_the_arithmetic_refuses(tmp_path: Path) -> None:
    file = experiment(tmp_path, baseline=None, early_rejection={"memory": False})
    result = run(file)
    assert result["failed"] == 2
    assert result["best"]["kv-cache-memory-bytes"] == ENOUGH
    assert_nothing_left(tmp_path / "demo")
