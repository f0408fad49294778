"""The ledger keeps every measurement through any crash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainables import Measurement
from tuner._ledger import Ledger


def measurement(identity: str, *, run_id: str = "run", kind: str = "candidate") -> Measurement:
    return Measurement(
        identity=identity,
        type="rehearsal",
        kind=kind,
        parameters={"fallback": ["层.0"]},
        repeat=0,
        metrics={"accuracy": 0.5},
        data={},
        artifacts={},
        environment={},
        stages=({"name": "measure", "seconds": 1.0, "resumed": False},),
        attempt=1,
        run_id=run_id,
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )


def test_measurements_come_back_as_they_were(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(measurement("a"))
    ledger.append(measurement("b"))
    again = Ledger(tmp_path / "ledger.jsonl")
    assert list(again) == [measurement("a"), measurement("b")]
    assert again.find("b") == measurement("b")
    assert again.find("c") is None


@pytest.mark.parametrize("cut", [1, 20, 10_000])
def test_a_torn_last_line_costs_only_itself_and_does_not_spoil_the_next(
    tmp_path: Path, cut: int
) -> None:
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger(file)
    ledger.append(measurement("a"))
    whole = len(file.read_bytes())
    ledger.append(measurement("b"))
    torn = file.read_bytes()
    file.write_bytes(torn[: max(whole + 1, len(torn) - cut)])

    after = Ledger(file)
    assert [item.identity for item in after] == ["a"]
    assert after.faults
    after.append(measurement("c"))
    assert [item.identity for item in Ledger(file)] == ["a", "c"]


def test_a_broken_line_in_the_middle_is_reported_and_the_rest_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger(file)
    ledger.append(measurement("a"))
    with file.open("a") as stream:
        stream.write('{"schema": 99}\n\x00\x00\n')
    ledger.append(measurement("b"))
    again = Ledger(file)
    assert [item.identity for item in again] == ["a", "b"]
    assert [fault.split(": ")[0] for fault in again.faults] == [f"{file}:2", f"{file}:3"]


def test_what_trials_finished_while_nobody_listened_is_adopted(tmp_path: Path) -> None:
    measurement("a").write(tmp_path / "trials" / "a")
    measurement("b").write(tmp_path / "trials" / "b")
    (tmp_path / "trials" / "unfinished").mkdir()
    broken = tmp_path / "trials" / "broken"
    broken.mkdir()
    (broken / "measurement.json").write_text('{"schema": 1, "identity"')

    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(measurement("a"))
    assert ledger.adopt(tmp_path / "trials") == 1
    assert [item.identity for item in ledger] == ["a", "b"]
    assert any("broken" in fault for fault in ledger.faults)
    assert [item.identity for item in Ledger(tmp_path / "ledger.jsonl")] == ["a", "b"]


def test_the_budget_counts_candidates_of_this_run_only(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(measurement("a", run_id="old"))
    ledger.append(measurement("b"))
    ledger.append(measurement("c", kind="baseline"))
    assert ledger.spent("run") == 1


def test_a_simulated_candidate_is_spent_and_one_rejected_by_arithmetic_is_not(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    unreal = {"real_evaluation": False}
    ledger.append(replace(measurement("a"), data=unreal))
    ledger.append(replace(measurement("b"), data=unreal | {"simulation": {}}))
    assert ledger.spent("run") == 1
