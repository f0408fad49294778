"""Failures in the words of the agents that drive msModelSlim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.views.stories import failure, story, view


@pytest.mark.parametrize(
    ("stage", "kind", "message", "code"),
    [
        ("quantize", "out_of_memory", "no memory", "OOM_ERROR"),
        ("quantize", "input", "Qwen9 is not supported", "VALIDATION_ERROR"),
        ("deploy", "startup", "port 80 is taken", "INFERENCE_START_ERROR"),
        ("health", "tool", "answered 500", "HEALTH_CHECK_ERROR"),
        ("deploy", "device", "HCCL function error", "HCCL_ERROR"),
        ("evaluate-gsm8k", "timeout", "did not finish", "TIMEOUT"),
        ("evaluate-gsm8k", "input", "no such dataset", "DATASET_ERROR"),
        ("evaluate-gsm8k", "tool", "left no result", "UNKNOWN_ERROR"),
    ],
)
def test_each_failed_trial_is_reported_with_a_code(
    tmp_path: Path, stage: str, kind: str, message: str, code: str
) -> None:
    failed = replace(
        failure(4),
        failure={"class": kind, "stage": stage, "message": message, "suggestion": "mend it"},
    )
    told = story(tmp_path)
    view(tmp_path).update(replace(told, finished=(*told.finished, failed)))
    (line,) = (tmp_path / "save" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "ok": False,
        "error": message,
        "error_code": code,
        "suggestion": "mend it",
        "trial": 4,
        "stage": stage,
    }


def test_a_run_without_failures_has_no_such_file_and_keeps_an_older_one(tmp_path: Path) -> None:
    told, it = story(tmp_path), view(tmp_path)
    it.update(told)
    file = tmp_path / "save" / "failures.jsonl"
    assert not file.exists()
    it.update(replace(told, finished=(*told.finished, failure(9))))
    before = file.read_text()
    view(tmp_path).update(told)
    assert file.read_text() == before
