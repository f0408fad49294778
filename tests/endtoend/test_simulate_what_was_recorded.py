"""Trials of the real vLLM that record their iterations, a model of them, and its simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endtoend.served import ENOUGH, experiment, run
from tests.tuner.runs import ledger
from tuner.cli import main

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

CONCURRENCY = 8


def recording(folder: Path) -> Path:
    """Few and many sequences at once, every iteration recorded."""
    load = {"type": "fixed", "concurrency": CONCURRENCY}
    file = experiment(folder, load=load, baseline=None, final_repeats=1)
    document = yaml.safe_load(file.read_text())
    engine = document["trial"]["engine"]
    engine["record_iterations"] = True
    engine["args"] |= {"kv-cache-memory-bytes": ENOUGH, "no-enable-prefix-caching": True}
    document["trial"]["benchmark"]["workload"]["form"] = "token_ids"
    document["search"]["space"] = {"max-num-seqs": {"type": "enum", "values": [4, 16]}}
    file.write_text(yaml.safe_dump(document))
    return file


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_what_trials_recorded_trains_the_model_that_simulates_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xgboost")
    file = recording(tmp_path)
    run(file)
    folder, model = tmp_path / "demo", tmp_path / "model"
    trials = [(item["parameters"]["max-num-seqs"], item["metrics"]) for item in ledger(folder)]
    assert {sequences for sequences, _ in trials} == {4, 16}
    tpot = [metrics["tpot_mean_s"] for _, metrics in trials]
    capsys.readouterr()
    said(capsys, "train", "-i", folder, "-o", model, "-t", "vllm")
    for sequences, measured in trials[:2]:
        found = said(
            capsys,
            *("simulate", file, "--latency", "xgboost", "--path", model, "--no-picture"),
            *("--config", f"max-num-seqs={sequences}", "--concurrency", str(CONCURRENCY)),
            *("--output", tmp_path / f"simulation-{sequences}"),
        )
        assert found["simulation"]["settings"]["max_num_seqs"] == sequences
        assert found["simulation"]["extrapolated"] < 0.2
        for name in ("requests", "input_tokens", "output_tokens", "success_rate"):
            assert found["metrics"][name] == measured[name]
        assert min(tpot) / 3 < found["metrics"]["tpot_mean_s"] < 3 * max(tpot)
