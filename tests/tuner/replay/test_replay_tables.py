"""Tables of strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.replay.tables import SWEEP, point, task, write
from tuner.experiment import ExperimentError
from tuner.replay import Request, Table, TableTask, read_table, read_tasks


def cells(table: Table) -> list[dict[str, object]]:
    return [dict(row.cells) for row in table.rows]


def tasks_of(file: Path, objective: str = "max throughput", **changes: Any) -> list[TableTask]:
    return read_tasks([file], Request(objective, **changes))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "tp,dtype,eager,x\n1,fp8,true,1.5\n2,,False,n/a\n"),
        ("t.csv", "\ufefftp; dtype; eager; x\r\n1;fp8;true;1.5\r\n\r\n2;;false;\r\n"),
        ("t.tsv", "tp\tdtype\teager\tx\n1\tfp8\tTRUE\t1.5\n2\t\tfalse\n"),
        (
            "t.jsonl",
            '{"tp": 1, "dtype": "fp8", "eager": true, "x": 1.5}\n\n'
            '{"tp": 2, "dtype": null, "eager": false}\n',
        ),
        (
            "t.json",
            '[{"tp": 1, "dtype": "fp8", "eager": true, "x": 1.5}, {"tp": 2, "eager": false}]',
        ),
    ],
)
def test_the_same_table_in_many_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert cells(read_table(tmp_path / name)) == [
        {"tp": 1, "dtype": "fp8", "eager": True, "x": 1.5},
        {"tp": 2, "dtype": None, "eager": False, "x": None},
    ]


def test_objects_in_json_lines_become_dotted_columns(tmp_path: Path) -> None:
    line = {"parameters": {"tp": 2}, "metrics": {"throughput": 3.5}}
    file = write(tmp_path, json.dumps(line) + "\n", "ledger.jsonl")
    assert read_table(file).columns == ("parameters.tp", "metrics.throughput")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; the first line names the columns"),
        ("a,b\n", "has no rows"),
        ("a,b,a\n1,2,3\n", "column a stands there more than once"),
        ("a,b\n1,2,3\n", "line 2 has 3 cells, but there are 2 columns"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        read_table(write(tmp_path, text))


def test_every_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExperimentError) as refusal:
        read_tasks([tmp_path / "a.csv", tmp_path / "b.csv"], Request("max x"))
    assert "cannot be read" in str(refusal.value)
    assert "is not UTF-8" in str(refusal.value)


def test_where_keeps_rows_and_by_makes_tasks(tmp_path: Path) -> None:
    file = write(tmp_path, SWEEP)
    (alone,) = tasks_of(file, space="tp,load", where=["engine=B"])
    assert len(alone.configurations) == 4
    assert alone.best.metrics["throughput"] == 150
    both = tasks_of(file, space="tp,load", by=["Engine"], where=["load>=1", "tp!=7"])
    assert [one.name for one in both] == ["sweep: engine=a", "sweep: engine=b"]
    with pytest.raises(ExperimentError, match=r"'engine=c' leaves no row of .*; engine has a, b"):
        tasks_of(file, space="tp", where=["engine=c"])
    with pytest.raises(ExperimentError, match="no condition; write COLUMN=VALUE"):
        tasks_of(file, space="tp", where=["engine"])


def test_several_files_are_several_tasks(tmp_path: Path) -> None:
    files = [write(tmp_path, SWEEP, name) for name in ("one.csv", "two.csv")]
    found = read_tasks(files, Request("max throughput", space="tp,load,engine"))
    assert [one.name for one in found] == ["one", "two"]


def test_the_best_row_keeps_the_limits(tmp_path: Path) -> None:
    one = task(tmp_path)
    assert one.best is not None
    assert (one.best.point, one.best.truth) == (point(2, 8, "a"), 100.0)
    assert one.near(95.0) == 2
    assert one.summary()["feasible"] == 7
    assert one.summary()["points_without_row"] == 0


def test_the_best_row_of_what_is_minimised(tmp_path: Path) -> None:
    one = task(tmp_path, objective="min ttft, throughput >= 50")
    assert one.best is not None
    assert (one.best.point, one.best.truth) == (point(1, 8, "a"), -0.5)


def test_rows_alike_are_repeats(tmp_path: Path) -> None:
    text = "tp,throughput\n1,10\n1,20\n2,12\n2,\n3,1\n"
    file = write(tmp_path, text)
    (mean,) = tasks_of(file, space="tp")
    assert {c.point["tp"]: c.truth for c in mean.configurations.values()} == {1: 15, 2: 12, 3: 1}
    (first,) = tasks_of(file, space="tp", repeats="first")
    assert {c.point["tp"]: c.truth for c in first.configurations.values()} == {1: 10, 2: 12, 3: 1}
    (drawn,) = tasks_of(file, space="tp", repeats="random")
    assert [len(c.attempts) for c in drawn.configurations.values()] == [2, 2, 1]


def test_rows_alike_that_look_like_no_repeats_are_doubted(tmp_path: Path) -> None:
    notes: list[str] = []
    read_tasks([write(tmp_path, SWEEP)], Request("max throughput", space="tp,load"), notes.append)
    assert any("rows of one differ in engine" in note for note in notes)


@pytest.mark.parametrize(
    ("column", "cell", "failed"),
    [
        ("status", "OOM", True),
        ("status", "Completed", False),
        ("status", "", False),
        ("error", "no memory left", True),
        ("error", "None", False),
        ("failed", "true", True),
        ("failed", "false", False),
    ],
)
def test_columns_say_which_rows_failed(
    tmp_path: Path, column: str, cell: str, failed: bool
) -> None:
    text = f"tp,throughput,{column}\n1,10,{cell}\n2,20,\n4,30,{'true' if cell == 'false' else ''}\n"
    (one,) = tasks_of(write(tmp_path, text), space="tp")
    judged = [c.judgement for c in one.configurations.values()]
    assert (judged[0] is None) == failed
    (ignoring,) = tasks_of(write(tmp_path, text), space="tp", failures="none")
    assert ignoring.summary()["failed"] == 0


@pytest.mark.parametrize("cell", ["", "nan", "OOM", "n/a", "failed", "inf"])
def test_an_empty_metric_is_a_failed_trial(tmp_path: Path, cell: str) -> None:
    (one,) = tasks_of(write(tmp_path, f"tp,throughput\n1,{cell}\n2,5\n4,7\n"), space="tp")
    assert one.summary()["failed"] == 1


def test_a_metric_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "tp,throughput\n1,3\n2,fast\n4,quick\n")
    with pytest.raises(ExperimentError, match=r"line 3 of .* has 'fast' \(and 1 more rows\)"):
        tasks_of(file, space="tp")


def test_what_no_row_keeps_is_said_with_the_values_there_are(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError) as refusal:
        task(tmp_path, objective="max throughput, ttft <= 0.01, throughput >= 50")
    said = "ttft <= 0.01 by 0 of 8 (values 0.1 to 3), throughput >= 50 by 4 of 8"
    assert said in str(refusal.value)


def test_a_hopeless_task_is_left_out_beside_a_good_one(tmp_path: Path) -> None:
    notes: list[str] = []
    request = Request("max throughput, ttft<=0.15", space="tp,load", by=["engine"])
    text = SWEEP.replace("2,1,b,20,0.1", "2,1,b,20,0.7")
    (one,) = read_tasks([write(tmp_path, text)], request, notes.append)
    assert one.name == "sweep: engine=a"
    assert any(note.startswith("left out: no configuration of sweep: engine=b") for note in notes)


def test_a_table_of_failures_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "tp,throughput,status\n1,1,new\n2,1,new\n")
    with pytest.raises(ExperimentError, match=r"counts as failed.*--failures none"):
        tasks_of(file, space="tp")


def test_all_faults_of_a_request_are_said_at_once(tmp_path: Path) -> None:
    request = Request("max goodput", space="tp,nodes", failures="state", duration="hours")
    with pytest.raises(ExperimentError) as refusal:
        read_tasks([write(tmp_path, SWEEP)], request)
    places = {problem.path for problem in refusal.value.problems}
    assert places >= {"--objective", "--space", "--failures"}
