"""What a search learns from earlier runs and from tables of the original optimizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from searchers import Outcome
from trainables import Measurement
from tuner._ledger import Ledger
from tuner._prior import Prior, read_prior
from tuner.experiment import Document, check_experiment

SPEED = "output_tokens_per_s"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def prior(model: Path, *known: Path) -> Prior:
    data: dict[str, Any] = {
        "name": "later",
        "trial": {
            "type": "serving",
            "model": str(model),
            "engine": {"type": "script", "command": ["sleep", "1"], "port": 8123},
            "load": {"type": "fixed"},
        },
        "search": {
            "type": "random",
            "trials": 2,
            "space": {"MAX_NUM_SEQS": {"type": "int", "low": 1, "high": 64}},
            "known": [str(path) for path in known],
        },
        "objective": {"maximize": SPEED, "limits": [{"metric": "ttft_mean_s", "max": 1.0}]},
        "storage": str(model.parent / "results"),
    }
    return read_prior(check_experiment(Document("test", data, {})))


def measured(seqs: int, speed: float, ttft: float, **data: Any) -> Measurement:
    return Measurement(
        f"id-{seqs}", "serving", "candidate", {"MAX_NUM_SEQS": seqs}, 0,
        {SPEED: speed, "ttft_mean_s": ttft}, data, {}, {}, (), 1, "run", "", 1.0,
    )  # fmt: skip


def earlier_run(folder: Path, *measurements: Measurement) -> Path:
    ledger = Ledger(folder / "ledger.jsonl")
    for item in measurements:
        ledger.append(item)
    return folder


def outcomes(found: Prior) -> dict[int, Outcome]:
    return {parameters["MAX_NUM_SEQS"]: outcome for parameters, outcome in found.points}


def test_points_of_an_earlier_run_are_judged_by_the_objective_of_this_one(
    model: Path, tmp_path: Path
) -> None:
    run = earlier_run(tmp_path / "run", measured(8, 100, 0.5), measured(16, 150, 1.5))
    found = outcomes(prior(model, run))
    assert (found[8].satisfied, found[8].objective) == (True, 100)
    assert (found[16].satisfied, found[16].objective) == (False, 150)


def test_what_was_given_up_there_is_no_success_here(model: Path, tmp_path: Path) -> None:
    stopped = {"by": "incumbent", "bound": 120.0}
    run = earlier_run(tmp_path / "run", measured(8, 100, 0.5, stopped=stopped))
    found = outcomes(prior(model, run))
    assert found[8].satisfied is False
    assert found[8].data["stopped"] == stopped


def test_what_was_never_started_teaches_nothing(model: Path, tmp_path: Path) -> None:
    run = earlier_run(tmp_path / "run", measured(8, 100, 0.5, real_evaluation=False))
    assert prior(model, run).points == ()


def test_points_outside_the_space_are_left_out_and_said(model: Path, tmp_path: Path) -> None:
    run = earlier_run(tmp_path / "run", measured(8, 100, 0.5), measured(500, 150, 0.5))
    found = prior(model, run)
    assert set(outcomes(found)) == {8}
    assert any("1 points lie outside the space" in note for note in found.notes)


def test_a_table_of_the_original_is_read(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "data_storage_20260101000000.csv"
    table.write_text(
        "generate_speed,time_to_first_token,time_per_output_token,success_rate,throughput,"
        "MAX_NUM_SEQS,error,backup,duration,real_evaluation,fitness,num_prompts\n"
        "120.5,0.4,0.02,1.0,1.2,32,,,60,True,1.1,100\n"
        ",,,,,64,it crashed,,60,True,inf,100\n"
    )
    found = outcomes(prior(model, table))
    assert (found[32].satisfied, found[32].metrics[SPEED]) == (True, 120.5)
    assert found[64].status == "failed"


def test_what_cannot_be_read_is_a_note_and_no_error(model: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    found = prior(model, empty, tmp_path / "missing.csv")
    assert found.points == ()
    assert len(found.notes) == 2
    assert json.dumps(found.notes)
