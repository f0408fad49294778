"""Failed trials in the words of the agents that drive msModelSlim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cluster import write_atomic
from searchers import Json
from trainables.quantization import failure_report
from tuner.views._contract import Finished, Story

FILE = "failures.jsonl"


def write_failures(story: Story, folder: Path) -> None:
    """One line ``{ok, error, error_code, suggestion, trial, stage}`` per failed trial.

    A run without failures leaves the file of an earlier session as it is.
    """
    lines = [json.dumps(_line(each), ensure_ascii=False) for each in story.finished if each.failure]
    if lines:
        write_atomic(folder / FILE, "\n".join(lines) + "\n")


def _line(finished: Finished) -> dict[str, Json]:
    assert finished.failure is not None
    failure = finished.failure
    stage = str(failure.get("stage", ""))
    report = failure_report(failure) if stage == "quantize" else _evaluation_report(failure, stage)
    return {**report, "trial": finished.number, "stage": stage}


def _evaluation_report(failure: Mapping[str, Json], stage: str) -> dict[str, Json]:
    """As the agents' evaluation skill reports: its codes are by stage, timeouts and HCCL first."""
    kind, message = failure["class"], str(failure["message"])
    if kind == "timeout":
        code = "TIMEOUT"
    elif "HCCL" in message:
        code = "HCCL_ERROR"
    elif stage.endswith("deploy"):
        code = "INFERENCE_START_ERROR"
    elif stage.endswith("health"):
        code = "HEALTH_CHECK_ERROR"
    elif kind == "input" and stage.startswith("evaluate"):
        code = "DATASET_ERROR"
    else:
        code = "UNKNOWN_ERROR"
    suggestion = failure.get("suggestion") or ""
    return {"ok": False, "error": message, "error_code": code, "suggestion": suggestion}
