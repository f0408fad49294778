"""A trial that goes well, and evaluations that do not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.script.conftest import Carried, free_port

TPS = [7010.5, 7020.5, 7030.5]


def told(report: dict[str, Any], run: str = "1") -> dict[str, Any]:
    file: Path = report["folder"] / "evaluations" / run / "told.json"
    return dict(json.loads(file.read_text()))


def test_metrics_are_means_over_the_runs_with_their_standard_errors(carry_out: Carried) -> None:
    report = carry_out()
    assert report["status"] == "measured"
    metrics = report["measurement"].metrics
    assert metrics["total_tps"] == pytest.approx(7020.5)
    assert metrics["total_tps_se"] == pytest.approx(10 / math.sqrt(3))
    assert metrics["accuracy"] == pytest.approx((0.8112 + 0.8212 + 0.8312) / 3)
    assert metrics["ok_runs"] == 3
    assert metrics["startup_s"] > 0
    data = report["measurement"].data
    assert (data["status"], data["phase"], data["exit_code"]) == ("ok", "eval", None)
    assert data["health"] == {"status": 200, "said": "ready"}
    assert [run["metrics"]["total_tps"] for run in data["eval_runs"]] == TPS
    assert [(run["i"], run["ok"], run["returncode"]) for run in data["eval_runs"]] == [
        (1, True, 0),
        (2, True, 0),
        (3, True, 0),
    ]
    logs = [data["server_log"], *(run["log"] for run in data["eval_runs"])]
    assert all((report["folder"] / log).read_text() for log in logs)
    assert [stage["name"] for stage in report["measurement"].stages] == ["start", "evaluate"]


def test_one_run_has_no_standard_error(carry_out: Carried) -> None:
    report = carry_out(evaluate={"runs": 1})
    assert set(report["measurement"].metrics) == {"accuracy", "total_tps", "ok_runs", "startup_s"}


def test_parameters_reach_both_commands_as_variables_and_arguments(carry_out: Carried) -> None:
    port = free_port()
    report = carry_out(
        {"SIZE": 7, "STOP_STRINGS": "<|im_end|>,<|endoftext|>", "EMPTY": ""},
        constants={"SIZE": 4, "OTHER": 0.10, "MODE": "a b"},
        start={"env": {"ONLY_START": 1}},
        evaluate={"env": {"ONLY_EVALUATION": "yes"}, "runs": 1},
        port=port,
    )
    heard = told(report)
    env = heard["env"]
    assert heard["argv"] == [f"http://127.0.0.1:{port}"]
    assert env["SIZE"] == "7"
    assert env["STOP_STRINGS"] == "<|im_end|>,<|endoftext|>"
    assert (env["OTHER"], env["MODE"], env["ONLY_EVALUATION"]) == ("0.1", "a b", "yes")
    assert (env["PORT"], env["HOST"], env["EVAL_RUN"]) == (str(port), "127.0.0.1", "1")
    assert env["BASE_URL"] == f"http://127.0.0.1:{port}"
    assert not {"EMPTY", "ONLY_START"} & env.keys()
    assert "starting with --size 7" in (report["folder"] / "server.log").read_text()
    assert report["measurement"].data["params"] == {
        "SIZE": "7",
        "OTHER": "0.1",
        "MODE": "a b",
        "STOP_STRINGS": "<|im_end|>,<|endoftext|>",
    }


def test_metrics_are_read_from_json_that_a_run_writes_or_prints(carry_out: Carried) -> None:
    report = carry_out(
        metrics={
            "written": {"json_path": "scores[0].value", "file": "$EVAL_FOLDER/result.json"},
            "printed": {"json_path": "scores[-1].value"},
        }
    )
    metrics = report["measurement"].metrics
    assert metrics["written"] == metrics["printed"] == pytest.approx(0.2)


def test_a_file_of_an_earlier_run_is_not_read(carry_out: Carried, tmp_path: Path) -> None:
    old = tmp_path / "result.json"
    old.write_text('{"value": 1}')
    metrics = {"value": {"json_path": "value", "file": str(old)}}
    report = carry_out({"EVALUATION": "no file"}, metrics=metrics, evaluate={"runs": 1})
    assert report["status"] == "failed"
    assert f"the run has not written {old}" in report["failure"]["message"]


def test_what_is_no_number_is_no_metric(carry_out: Carried) -> None:
    once = {"runs": 1}
    report = carry_out(metrics={"flag": {"json_path": "flag"}}, evaluate=once)
    assert "no flag: True is no finite number" in report["failure"]["message"]
    report = carry_out(metrics={"deep": {"json_path": "scores[1].value"}}, evaluate=once)
    assert "no deep: its output: it has no scores[1]" in report["failure"]["message"]


def test_an_optional_metric_may_be_missing(carry_out: Carried) -> None:
    metrics = {"rare": {"pattern": "Rare: (.+)", "optional": True}}
    report = carry_out(metrics=metrics)
    assert report["measurement"].data["status"] == "ok"
    assert "rare" not in report["measurement"].metrics


def test_a_failed_run_is_repeated_and_then_counts(carry_out: Carried) -> None:
    report = carry_out({"EVALUATION": "fail 2 once"})
    data = report["measurement"].data
    assert data["status"] == "ok"
    assert [run["metrics"]["total_tps"] for run in data["eval_runs"]] == TPS
    assert [(run["i"], run["returncode"]) for run in data["eval_repeated"]] == [(2, 1)]
    assert data["eval_runs"][1]["log"] != data["eval_repeated"][0]["log"]
    assert report["measurement"].metrics["ok_runs"] == 3


def test_what_stays_partial_says_so_and_counts_its_successes(carry_out: Carried) -> None:
    report = carry_out({"EVALUATION": "fail 2"})
    data, metrics = report["measurement"].data, report["measurement"].metrics
    assert data["status"] == "partial"
    assert len(data["eval_repeated"]) == 1
    assert metrics["ok_runs"] == 2
    assert metrics["total_tps"] == pytest.approx((TPS[0] + TPS[2]) / 2)
    assert "1 of 3 runs failed: run 2: the evaluation ended with exit code 1" in data["note"]
    assert "ValueError: no answers" in data["eval_runs"][1]["error"]


def test_without_repetition_a_partial_trial_stays_as_it_is(carry_out: Carried) -> None:
    report = carry_out({"EVALUATION": "fail 2 once"}, retry_partial=0)
    assert report["measurement"].data["status"] == "partial"
    assert report["measurement"].data["eval_repeated"] == []


def test_a_trial_all_of_whose_runs_fail_is_a_failure(carry_out: Carried) -> None:
    report = carry_out({"EVALUATION": "fail"})
    failure = report["failure"]
    assert report["measurement"] is None
    assert (failure["class"], failure["stage"]) == ("tool", "evaluate")
    assert "none of 3 runs succeeded" in failure["message"]
    assert "ValueError: no answers" in failure["excerpt"]
    record = failure["record"]
    assert (record["status"], record["phase"]) == ("failed", "eval")
    assert [run["returncode"] for run in record["eval_runs"]] == [1, 1, 1]
    assert record["eval_repeated"] == []


def test_an_evaluation_that_says_nothing_is_told_what_was_looked_for(carry_out: Carried) -> None:
    message = carry_out({"EVALUATION": "silent"}, evaluate={"runs": 1})["failure"]["message"]
    assert "no accuracy: its output has nothing like" in message
    assert "no total_tps" in message


def test_runs_out_of_time_are_a_timeout(carry_out: Carried) -> None:
    report = carry_out({"EVALUATION": "sleep"}, evaluate={"runs": 2, "timeout": 0.5})
    failure = report["failure"]
    assert failure["class"] == "timeout"
    assert "did not end within 0.5 s" in failure["message"]
    assert failure["record"]["status"] == "timeout"
    for run in failure["record"]["eval_runs"]:
        assert (run["ok"], run["timeout"], run["returncode"]) == (False, True, None)
        assert run["elapsed_s"] >= 0.5


def test_a_server_that_ends_meanwhile_fails_the_trial(carry_out: Carried) -> None:
    failure = carry_out({"EVALUATION": "kill"})["failure"]
    assert (failure["class"], failure["stage"]) == ("tool", "evaluate")
    assert "ended with exit code 7" in failure["message"]
    assert "while it was evaluated" in failure["message"]
    record = failure["record"]
    assert (record["status"], record["phase"], record["exit_code"]) == ("crashed", "eval", 7)
    assert record["eval_runs"][0]["ok"]


def test_an_evaluation_that_cannot_be_started_is_a_fault_of_the_experiment(
    carry_out: Carried,
) -> None:
    failure = carry_out(evaluate={"command": ["/no/such/program"]})["failure"]
    assert failure["class"] == "input"
    assert "/no/such/program cannot be started" in failure["message"]
    assert "trial.evaluate.command" in failure["suggestion"]


def test_what_both_commands_leave_behind_is_ended(carry_out: Carried) -> None:
    report = carry_out({"BEHAVIOUR": "grandchildren", "EVALUATION": "leave"})
    assert report["status"] == "measured"
