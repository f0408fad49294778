"""The table of ``msserviceprofiler optimizer``, and the copies that ``--backup`` asks for."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from searchers import Space
from trainables import Measurement
from tuner._fitness import Fitness, fitness
from tuner._store import RunRecord, RunStore
from tuner.compat.serviceparam import read_data_storage
from tuner.views import Finished, Story, make_view, view_types
from tuner.views.serviceparam import ServiceparamOptions, ServiceparamView
from tuner.views.serviceparam import _backup as backup_module

STARTED = "2026-11-24T10:00:07+00:00"
STAMP = datetime.fromisoformat(STARTED).astimezone().strftime("%Y%m%d%H%M%S")
METRICS = {
    "output_tokens_per_s": 2500.5,
    "ttft_mean_s": 0.4,
    "tpot_mean_s": 0.03,
    "success_rate": 1.0,
    "requests_per_s": 9.5,
    "concurrency": 100.0,
    "request_rate": 9.975,
}
OPTIONS: dict[str, Any] = {
    "type": "serviceparam",
    "fields": ["MAX_NUM_SEQS", "MODE", "CONCURRENCY", "REQUESTRATE"],
    "load": {"CONCURRENCY": "concurrency", "REQUESTRATE": "request_rate"},
    "constants": {"CONCURRENCY": 100},
    "num_prompts": 3000,
    "sample_size": 1000,
    "fitness": {"ttft_slo": 1, "tpot_penalty": 0, "generate_speed_target": "baseline"},
}
HEADER = (
    "generate_speed,time_to_first_token,time_per_output_token,success_rate,throughput,"
    "MAX_NUM_SEQS,MODE,CONCURRENCY,REQUESTRATE,"
    "error,backup,duration,real_evaluation,fitness,num_prompts,"
    "case_id,phase,timestamp,satisfied,identity,stopped_reason,concurrency,request_rate"
)


def identity_of(number: int) -> str:
    return f"{number:02d}".ljust(32, "0")


def finished(number: int, *, kind: str = "candidate", **changes: Any) -> Finished:
    parameters = {"MAX_NUM_SEQS": 64, "MODE": "--fast"} if kind == "candidate" else {}
    measurement = Measurement(
        identity=identity_of(number),
        type="serving",
        kind=kind,
        parameters=parameters,
        repeat=0,
        metrics=METRICS | changes.pop("metrics", {}),
        data=changes.pop("data", {}),
        artifacts={},
        environment={},
        stages=(),
        attempt=1,
        run_id="run",
        started=STARTED,
        seconds=61.25,
    )
    given = {"measurement": measurement, "satisfied": True, "status": "measured"} | changes
    return Finished(number=number, kind=kind, repeat=0, parameters=parameters, at=STARTED, **given)


def failed(number: int, message: str = "no memory") -> Finished:
    failure = {"class": "out_of_memory", "message": message}
    return finished(number, status="failed", measurement=None, satisfied=None, failure=failure)


def story(folder: Path, *told: Finished) -> Story:
    store = RunStore(folder / "run")
    sessions = [{"pid": 1, "started": STARTED, "ended": None}, {"pid": 2, "started": "2027"}]
    store.folder.mkdir(exist_ok=True)
    store.save_record(RunRecord("run", str(folder), str(store.folder), sessions=sessions))
    experiment: Any = None
    return Story(experiment=experiment, store=store, finished=told)


def view(folder: Path, **options: Any) -> ServiceparamView:
    made = make_view(OPTIONS | {"folder": str(folder / "result")} | options)
    assert isinstance(made, ServiceparamView)
    return made


def file_of(folder: Path) -> Path:
    return folder / "result" / "store" / f"data_storage_{STAMP}.csv"


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file_of(folder).read_text(), newline="")))


def test_the_view_is_known_by_its_name(tmp_path: Path) -> None:
    assert "serviceparam" in view_types()
    with pytest.raises(ValidationError) as refused:
        make_view({"type": "serviceparam", "num_prompts": 0, "folders": "x", "load": {"A": "b"}})
    places = {fault["loc"][0] for fault in refused.value.errors()}
    assert places == {"num_prompts", "folders", "load"}


def test_columns_and_cells_are_those_of_the_original(tmp_path: Path) -> None:
    baseline = finished(0, kind="baseline", metrics={"output_tokens_per_s": 300.0})
    assert view(tmp_path).update(story(tmp_path, baseline, finished(1))) == ()
    raw = file_of(tmp_path).read_bytes().decode()
    lines = raw.split("\r\n")
    assert lines[0] == HEADER
    assert "\n" not in raw.replace("\r\n", "")
    options = Fitness.model_validate(OPTIONS["fitness"])
    cost = fitness(METRICS, options, {"output_tokens_per_s": 300.0})
    assert lines[2] == (
        "2500.5,0.4,0.03,1.0,9.5,64,fast,100,9.975,"
        f",,61.25,True,{cost!r},1000,"
        f"1,candidate,{STARTED},True,{identity_of(1)},,100.0,9.975"
    )
    assert lines[1].startswith("300.0,0.4,0.03,1.0,9.5,,,100,9.975,,,61.25,True,")
    assert rows(tmp_path)[0]["num_prompts"] == "3000"
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o640


def test_a_failed_trial_has_its_reason_and_no_numbers(tmp_path: Path) -> None:
    view(tmp_path).update(story(tmp_path, failed(1, "=cmd|' --calc'!A0\nline 2")))
    (row,) = rows(tmp_path)
    assert [row[name] for name in HEADER.split(",")[:5]] == [""] * 5
    assert row["error"] == "out_of_memory: =cmd|' calc'!A0 line 2"
    assert (row["fitness"], row["real_evaluation"], row["CONCURRENCY"]) == ("inf", "True", "100")
    assert row["MAX_NUM_SEQS"] == "64"


@pytest.mark.parametrize("text", ["=1+1", "+1", "@x", "-2+3", "\t=1"])
def test_no_cell_is_a_formula(text: str, tmp_path: Path) -> None:
    candidate = replace(finished(1), parameters={"MAX_NUM_SEQS": 64, "MODE": text})
    view(tmp_path).update(story(tmp_path, candidate))
    assert rows(tmp_path)[0]["MODE"].startswith("'")


def test_a_simulated_row_has_its_numbers_and_says_that_they_are_not_real(tmp_path: Path) -> None:
    data = {"real_evaluation": False, "simulation": {}}
    view(tmp_path).update(story(tmp_path, finished(1, data=data)))
    (row,) = rows(tmp_path)
    assert row["real_evaluation"] == "False"
    assert row["generate_speed"]
    assert row["fitness"] != "inf"


def test_a_candidate_given_up_early_was_not_really_measured(tmp_path: Path) -> None:
    stopped = {"stopped": {"by": "kv_memory", "reason": "no room for 64"}}
    view(tmp_path).update(story(tmp_path, finished(1, data=stopped, satisfied=False)))
    (row,) = rows(tmp_path)
    assert (row["real_evaluation"], row["fitness"], row["generate_speed"]) == ("False", "inf", "")
    assert row["error"] == "given up (kv_memory): no room for 64"
    assert (row["stopped_reason"], row["satisfied"]) == ("no room for 64", "False")


def test_a_resumed_run_goes_on_in_its_own_file_and_nothing_changes_twice(tmp_path: Path) -> None:
    first = view(tmp_path)
    first.update(story(tmp_path, finished(1)))
    before = file_of(tmp_path).stat().st_ino
    first.update(story(tmp_path, finished(1)))
    assert file_of(tmp_path).stat().st_ino == before
    cancelled = finished(2, status="cancelled", measurement=None)
    reused = finished(1, status="reused")
    view(tmp_path).update(story(tmp_path, reused, cancelled, failed(3)))
    assert [row["case_id"] for row in rows(tmp_path)] == ["1", "3"]
    assert [file.name for file in file_of(tmp_path).parent.iterdir()] == [file_of(tmp_path).name]


def test_nothing_told_leaves_no_file(tmp_path: Path) -> None:
    view(tmp_path).update(story(tmp_path))
    assert not (tmp_path / "result").exists()


def test_by_default_it_lies_in_the_run_and_shows_the_space(tmp_path: Path) -> None:
    made = ServiceparamView(ServiceparamOptions())

    class Search:
        space = TypeAdapter(Space).validate_python({"MODE": {"type": "bool"}})

    class Experiment:
        search = Search()

    told = replace(story(tmp_path, finished(1)), experiment=Experiment())  # type: ignore[arg-type]
    made.update(told)
    file = tmp_path / "run" / "result" / "store" / f"data_storage_{STAMP}.csv"
    assert ",throughput,MODE,error," in file.read_text()
    assert view(tmp_path, store=str(tmp_path / "s")).update(told) == ()
    assert (tmp_path / "s" / file.name).is_file()


def test_what_is_written_can_be_learned_from(tmp_path: Path) -> None:
    bad = {"stopped": {"by": "windows", "reason": "late"}}
    told = story(tmp_path, finished(1), failed(2), finished(3, data=bad))
    view(tmp_path).update(told)
    space = TypeAdapter(Space).validate_python(
        {
            "MAX_NUM_SEQS": {"type": "int", "low": 1, "high": 99},
            "MODE": {"type": "enum", "values": ["", "--fast"]},
        }
    )
    found = read_data_storage(
        file_of(tmp_path), space, num_prompts=1000, loads=("CONCURRENCY", "REQUESTRATE")
    )
    legal = {"MAX_NUM_SEQS": 64, "MODE": "--fast"}
    assert [point[0] for point in found.points] == [legal, legal]
    metrics = found.points[0][1]
    assert metrics == {k: v for k, v in METRICS.items() if not k.startswith(("conc", "request_r"))}
    assert found.points[1][1] is None
    assert "1 rows left out: not really measured" in found.notes[0]


def trial_of(told: Story, number: int) -> Path:
    folder = told.store.trial_folder(identity_of(number))
    (folder / "benchmark-1").mkdir(parents=True)
    (folder / "artifacts").mkdir()
    for name in ("engine.log", "config.json", "benchmark-1.log", "benchmark-1/result.json"):
        (folder / name).write_text(name)
    (folder / "artifacts" / "weights").write_text("heavy")
    Measurement.file(folder).write_text("{}")
    return folder


def test_copies_of_what_each_trial_left(tmp_path: Path) -> None:
    told = story(tmp_path, finished(1), failed(2), finished(3))
    for number in (1, 3):
        trial_of(told, number)
    options = {"backup": True, "classes": ["VllmSimulator", "VllmBenchMark"]}
    view(tmp_path, **options).update(told)
    copies = tmp_path / "result" / "bak"
    assert [row["backup"] for row in rows(tmp_path)] == [str(copies / "1"), "", str(copies / "2")]
    found = {str(p.relative_to(copies / "1")) for p in (copies / "1").rglob("*") if p.is_file()}
    assert found == {
        ".trial",
        "VllmSimulator/engine.log",
        "VllmSimulator/config.json",
        "VllmBenchMark/benchmark-1.log",
        "VllmBenchMark/benchmark-1/result.json",
    }
    view(tmp_path, **options).update(told)
    assert sorted(path.name for path in copies.iterdir()) == ["1", "2"]


def test_copies_end_at_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_module, "LIMIT_BYTES", 10)
    told = story(tmp_path, finished(1), finished(2), finished(3))
    for number in (1, 2, 3):
        trial_of(told, number)
    (note,) = view(tmp_path, backup=True).update(told)
    assert "holds more than 1 GiB" in note
    assert [bool(row["backup"]) for row in rows(tmp_path)] == [True, False, False]


def test_the_fitness_of_nothing_is_infinite(tmp_path: Path) -> None:
    nothing = {"output_tokens_per_s": 0.0}
    view(tmp_path).update(story(tmp_path, finished(1, metrics=nothing)))
    assert math.isinf(float(rows(tmp_path)[0]["fitness"]))
