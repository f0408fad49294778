"""The files that ``auto_tune.py`` leaves, as ours are."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.autotune.calls import experiment, measurement
from tests.tuner.autotune.repo import base, key, original_record, write_repo
from tuner._store import RunStore
from tuner.experiment import Experiment
from tuner.views import Begun, Finished, Story
from tuner.views.autotune import AutoTuneOptions, AutoTuneView, say_crashed

AT = "2026-01-02T03:04:05+00:00"
RUN = {
    "i": 1,
    "ok": True,
    "returncode": 0,
    "timeout": False,
    "elapsed_s": 2.5,
    "metrics": {"accuracy": 0.9, "answer_tps": 50.0, "total_tps": 100.0, "total_time_s": 1.5},
    "error": "",
    "log": "evaluate-1.log",
}
LATE = {**RUN, "i": 2, "ok": False, "returncode": None, "timeout": True, "metrics": {}}
BAD = {**RUN, "i": 2, "ok": False, "returncode": 1, "metrics": {}, "error": "exit code 1"}
RECORD: dict[str, Any] = {
    "params": {},
    "status": "ok",
    "phase": "eval",
    "health": {"status": 200, "said": "ready"},
    "exit_code": None,
    "startup_s": 3.5,
    "server_log": "server.log",
    "eval_runs": [RUN],
    "eval_repeated": [],
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Times in the files are local."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return write_repo(tmp_path)


class Told:
    """A run's story, told step by step to a view of its own."""

    def __init__(self, repo: Path) -> None:
        self.experiment: Experiment = experiment(repo)
        self.store = RunStore(self.experiment.storage)
        self.story = Story(self.experiment, self.store, ())
        self.again()

    def again(self) -> None:
        """A new session: the view knows nothing."""
        options = AutoTuneOptions.model_validate(dict(self.experiment.views[0]))
        self.view = AutoTuneView(options)
        self.story = replace(self.story, finished=(), begun=(), best=None, verdict=None)

    def begin(self, number: int, group: str = "GPU_MEMORY_UTILIZATION", **changes: str) -> None:
        labels = {"group": group}
        one = Begun(number, "candidate", base(**changes), f"{number:032d}", labels)
        self.tell(begun=(*self.story.begun, one))

    def log(self, number: int, text: str) -> None:
        folder = self.store.trial_folder(f"{number:032d}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.log").write_text(text)

    def end(self, number: int, tps: float = 100.0, status: Any = "measured", **more: Any) -> None:
        changes = more.pop("changes", {})
        failure = more.pop("failure", None)
        identity = f"{number:032d}"
        metrics = {"accuracy": 0.9, "total_tps": tps, "answer_tps": tps / 2, "total_time_s": 1.5}
        record = {**RECORD, **more}
        made = None
        if failure is None:
            made = measurement(identity, base(**changes), metrics, **record)
        one = Finished(
            number=number,
            kind="candidate",
            repeat=0,
            parameters=base(**changes),
            status=status,
            measurement=made,
            failure=failure,
            at=AT if made is None else made.ended,
            identity=identity,
            labels={"group": "GPU_MEMORY_UTILIZATION"},
        )
        begun = tuple(other for other in self.story.begun if other.number != number)
        self.tell(finished=(*self.story.finished, one), begun=begun)

    def tell(self, **changes: Any) -> None:
        self.story = replace(self.story, **changes)
        self.view.update(self.story)


def lines(repo: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (repo / "tune_results.jsonl").read_text().splitlines()]


def status(repo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo / "tune_status.json").read_text())
    return found


def test_a_measured_trial_is_one_line_of_the_originals_fields_in_their_order(repo: Path) -> None:
    told = Told(repo)
    told.begin(0)
    told.log(0, "serving\n")
    told.end(0)
    expected = {
        "ts": "2026-01-02T03:04:05",
        "trial_key": key(),
        "status": "ok",
        "phase": "eval",
        "param_under_test": "GPU_MEMORY_UTILIZATION",
        "params": base(),
        "health": "health=200 ready",
        "eval_ok_n": 1,
        "eval_runs": [
            {
                "i": 1,
                "ok": True,
                "returncode": 0,
                "accuracy": 0.9,
                "answer_tps": 50.0,
                "total_tps": 100.0,
                "total_time_s": 1.5,
                "elapsed_s": 2.5,
            }
        ],
        "avg_accuracy": 0.9,
        "avg_total_tps": 100.0,
        "avg_answer_tps": 50.0,
        "avg_total_time_s": 1.5,
        "server_log": "tune_server_logs/trial_00001.log",
        "total_s": 5.25,
    }
    text = (repo / "tune_results.jsonl").read_text()
    assert text == json.dumps(expected, ensure_ascii=False) + "\n"
    assert list(expected) == list(original_record(1.0)), "as the original's own"


@pytest.mark.parametrize("how", ["timeout", "crashed"])
def test_a_server_that_does_not_come_up(repo: Path, how: str) -> None:
    told = Told(repo)
    story = {**RECORD, "status": how, "phase": "startup", "eval_runs": [], "exit_code": 1}
    story["health"] = {"status": None, "said": "it does not listen yet"}
    told.log(0, "no memory\n")
    failure = {"class": "startup", "stage": "start", "message": "m", "record": story}
    told.end(0, status="failed", failure=failure)
    (line,) = lines(repo)
    assert list(line) == list(original_record(0, status=how))
    assert line["status"] == how and line["exit_code"] == 1 and line["startup_s"] == 3.5
    assert line["health"] == "it does not listen yet"


def test_a_taken_port_and_a_lost_worker_have_a_reason_and_no_phase(repo: Path) -> None:
    told = Told(repo)
    port = {"class": "startup", "stage": "port", "message": "port 8000 is taken", "record": RECORD}
    told.end(0, status="failed", failure=port)
    told.end(1, status="failed", failure={"class": "lost", "message": "its worker died"})
    told.end(2, status="cancelled", failure={})
    first, second = lines(repo)
    assert list(first) == ["ts", "trial_key", "status", "reason", "params"]
    assert (first["status"], first["reason"]) == ("failed", "port 8000 is taken")
    assert second["reason"] == "its worker died"


def test_runs_that_failed_have_the_originals_forms(repo: Path) -> None:
    told = Told(repo)
    told.end(0, status="measured", eval_runs=[RUN, LATE])
    told.end(1, eval_runs=[RUN, BAD], changes={"MAX_MODEL_LEN": "768"})
    late, bad = (line["eval_runs"][1] for line in lines(repo))
    assert late == {"i": 2, "ok": False, "timeout": True}
    assert bad["returncode"] == 1 and bad["total_tps"] is None and not bad["ok"]
    assert lines(repo)[0]["eval_ok_n"] == 1


def test_telling_everything_again_after_a_restart_adds_nothing(repo: Path) -> None:
    told = Told(repo)
    for number, value in enumerate(("0.97", "0.98")):
        told.log(number, "log\n")
        told.end(number, changes={"GPU_MEMORY_UTILIZATION": value})
    before = (repo / "tune_results.jsonl").read_bytes()
    told.again()
    for number, value in enumerate(("0.97", "0.98")):
        told.end(number, status="reused", changes={"GPU_MEMORY_UTILIZATION": value})
    assert (repo / "tune_results.jsonl").read_bytes() == before
    assert sorted(path.name for path in (repo / "tune_server_logs").iterdir()) == [
        "trial_00001.log",
        "trial_00002.log",
    ]
    told.end(2, changes={"GPU_MEMORY_UTILIZATION": "0.99"})
    assert (repo / "tune_results.jsonl").read_bytes().startswith(before)
    assert len(lines(repo)) == 3


def test_what_others_wrote_stays_and_a_torn_end_is_not_grown_onto(repo: Path) -> None:
    theirs = json.dumps(original_record(1.0)) + '\n{"ts": "2026'
    (repo / "tune_results.jsonl").write_text(theirs)
    told = Told(repo)
    told.end(0, changes={"GPU_MEMORY_UTILIZATION": "0.98"})
    text = (repo / "tune_results.jsonl").read_text()
    assert text.startswith(theirs + "\n")
    assert json.loads(text.splitlines()[-1])["status"] == "ok"


def test_imported_measurements_are_not_written_a_second_time(repo: Path) -> None:
    told = Told(repo)
    made = replace(measurement("x" * 32, base(), {"total_tps": 1.0}), run_id="imported")
    one = Finished(0, "candidate", 0, base(), "reused", made, at=AT, identity="x" * 32)
    told.tell(finished=(one,))
    assert not (repo / "tune_results.jsonl").exists()


def test_best_params_hold_parameters_alone_as_the_original_writes_them(repo: Path) -> None:
    told = Told(repo)
    told.end(0)
    told.tell(best=base())
    expected = json.dumps(base(), ensure_ascii=False, indent=2, sort_keys=True)
    assert (repo / "best_params.json").read_text() == expected


def test_the_best_is_left_alone_until_a_restarted_run_has_caught_up(repo: Path) -> None:
    told = Told(repo)
    told.end(0)
    told.tell(best=base(MAX_MODEL_LEN="2048"))
    kept = (repo / "best_params.json").read_bytes()
    told.again()
    told.end(0, status="reused")
    told.tell(best=base())
    assert (repo / "best_params.json").read_bytes() == kept, "an older best while it is told again"
    told.tell(best=base(MAX_MODEL_LEN="2048"))
    told.begin(1)
    assert (repo / "best_params.json").read_bytes() == kept


def test_the_status_goes_through_the_originals_phases(repo: Path) -> None:
    told = Told(repo)
    told.tell()
    assert status(repo) == {
        "ts": status(repo)["ts"],
        "phase": "start",
        "best_params": base(),
        "results": "tune_results.jsonl",
    }
    told.begin(0)
    assert status(repo)["phase"] == "trial_start"
    assert status(repo)["trial_index"] == 1 and status(repo)["trial_key"] == key()
    assert status(repo)["param"] == "GPU_MEMORY_UTILIZATION" and status(repo)["params"] == base()
    told.end(0)
    assert status(repo)["phase"] == "trial_done"
    assert status(repo)["result"] == {
        "status": "ok",
        "avg_accuracy": 0.9,
        "avg_total_tps": 100.0,
        "avg_total_time_s": 1.5,
    }
    told.tell(verdict="satisfied", best=base())
    assert status(repo)["phase"] == "done"
    text = (repo / "tune_status.json").read_text()
    assert text == json.dumps(json.loads(text), ensure_ascii=False, indent=2, sort_keys=True)
    told.view.update(told.story)
    assert (repo / "tune_status.json").read_text() == text
    say_crashed(told.experiment.views, "the run died with SIGKILL")
    assert status(repo)["phase"] == "crashed"


def test_groups_are_announced_between_their_trials(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(repo)
    said: list[str] = []
    monkeypatch.setattr(
        "tuner.views.autotune._view.write_status", lambda file, phase, facts: said.append(phase)
    )
    told.begin(0)
    told.end(0)
    told.tell(best=base())
    told.begin(1, group="MAX_MODEL_LEN", MAX_MODEL_LEN="768")
    assert said == [
        *("start", "param_group", "trial_start", "trial_done"),
        *("group_best", "param_group", "trial_start"),
    ]


def test_the_log_of_a_running_server_can_be_followed_and_outlives_the_run(repo: Path) -> None:
    told = Told(repo)
    told.begin(0)
    log = repo / "tune_server_logs" / "trial_00001.log"
    told.log(0, "loading\n")
    assert log.is_symlink() and log.read_text() == "loading\n"
    told.again()
    told.begin(0)
    assert [path.name for path in log.parent.iterdir()] == ["trial_00001.log"], "the same trial"
    told.end(0)
    assert not log.is_symlink() and log.read_text() == "loading\n"
    told.begin(1)
    assert (log.parent / "trial_00002.log").is_symlink()
