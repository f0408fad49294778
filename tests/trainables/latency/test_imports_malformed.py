"""Malformed profiles: each fault is said with file and line, and good rows are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.trainables.latency.test_imports import (
    BATCHES,
    FEATURES,
    FORWARDS,
    MINDIE,
    REQUESTS,
    contents,
    database,
    listed,
    only,
    public,
)
from trainables.latency.imports import read_recordings

GOOD = '{"prefills": [], "decodes": [5], "seconds": 0.5, "at": 1}'


@pytest.mark.parametrize(
    "line",
    [
        '{"prefills": [], "decodes": [5]}',
        '{"prefills": [[1]], "decodes": [5], "seconds": 0.5}',
        '{"prefills": [[0, 5]], "decodes": [], "seconds": 0.5}',
        '{"prefills": [], "decodes": [-5], "seconds": 0.5}',
        '{"prefills": [], "decodes": [], "seconds": 0.5}',
        '{"prefills": [], "decodes": [5], "seconds": -1}',
        '{"prefills": [], "decodes": [5], "seconds": NaN}',
        '{"prefills": [], "decodes": [5], "sec',
        "[" * 100_000,
        "7",
    ],
)
def test_a_bad_line_of_recorded_iterations_costs_no_other(tmp_path: Path, line: str) -> None:
    path = tmp_path / "iterations.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    imported = read_recordings(tmp_path, "vllm")
    assert len(only(imported)) == 2
    assert len(imported.faults) == 1
    assert imported.faults[0].startswith(f"{path}:2: ")
    assert sum(imported.dropped.values()) == 1


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "iterations.jsonl").write_text(f"{GOOD}\n{GOOD[:20]}")
    imported = read_recordings(tmp_path, "vllm")
    assert len(only(imported)) == 1
    assert not imported.faults


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('BatchSchedule,"[{]",x,1,Decode,1,0,110,111', "res_list"),
        ("BatchSchedule,\"__import__('os').abort()\",x,1,Decode,1,0,110,111", "res_list"),
        ("BatchSchedule,\"[{'iter': 3}]\",x,1,Decode,1,0,110,111", "no rid"),
        ("BatchSchedule,\"[{'rid': 7, 'iter': -1}]\",x,1,Decode,1,0,110,111", "no count"),
        (f'BatchSchedule,"{listed(r7=1)}",x,1,Decode,1,0,110,soon', "no number"),
        (f'BatchSchedule,"{listed(r7=1)}",x,1,Decode', "cells"),
        ("BatchSchedule,,x,1,Decode,1,0,110,111", "nothing in column res_list"),
    ],
)
def test_a_bad_row_of_batches(tmp_path: Path, row: str, said: str) -> None:
    head, first, *_, last = BATCHES.splitlines()
    public(
        tmp_path,
        "\n".join((head, first, row, last)) + "\n",
        FORWARDS + "forward,0,80,1,0,a,h,12,92\nforward,0,20,2,0,a,h,212,232\n",
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [MINDIE[0], MINDIE[2]]
    assert len(imported.faults) == 1
    assert imported.faults[0].startswith(f"{tmp_path / 'batch.csv'}:3: ")
    assert said in imported.faults[0]


def test_a_bad_request_leaves_out_its_batches_only(tmp_path: Path) -> None:
    public(
        tmp_path,
        BATCHES,
        FORWARDS + "forward,0,80,1,0,a,h,12,92\nforward,0,20,2,0,a,h,212,232\n",
        requests=REQUESTS.replace("8,40,2", "8,forty,2"),
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [MINDIE[0]]
    assert imported.faults[0].startswith(f"{tmp_path / 'request.csv'}:3: ")
    assert imported.dropped["a request of the batch is not in request.csv"] == 2


@pytest.mark.parametrize(
    "row",
    [
        '"(\'decode\', 2.0)","((100, 19, 2),)"',
        '"(\'decode\', 1, 1, 1, 1, None)","((100, 19, 2),)"',
        '"(\'decode\', 1, 1, 1, 1, 5.0)","((100, 19),)"',
        "\"('decode', 1, 1, 1, 1, 5.0)\",()",
        "\"('decode', 1, 1, 1, 1, open('x'))\",\"((100, 19, 2),)\"",
        "decode",
    ],
)
def test_a_bad_row_of_the_table_of_features(tmp_path: Path, row: str) -> None:
    good = '"(\'decode\', 1.0, 19, 100, 100, 20000.0)","((100, 19, 2),)"\n'
    path = tmp_path / "feature.csv"
    path.write_text(f"{FEATURES}{good}{row}\n{good}")
    imported = read_recordings(tmp_path, "mindie")
    assert len(only(imported)) == 2
    assert imported.faults[0].startswith(f"{path}:3: ")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("feature.csv", "a,b\n1,2\n", "feature.csv:1: "),
        ("feature.csv", "\"('batch_stage',)\",\"('input_length',)\"\n", "does not name"),
        ("batch.csv", "name,start_time(ms)\nBatchSchedule,5\n", "no column res_list"),
        ("batch.csv", BATCHES.splitlines()[0] + "\n", "forward.csv"),
        ("profiler.db", "this is no database at all, whatever it is called", "no database"),
    ],
)
def test_a_file_that_is_none_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    imported = read_recordings(tmp_path, "mindie")
    assert not imported.sources
    assert any(said in fault and str(tmp_path / name) in fault for fault in imported.faults)


def test_a_torn_database_is_said_and_the_tables_beside_it_are_read(tmp_path: Path) -> None:
    path = database(tmp_path, runs=[(1, "forward", 10, 0, 80_000)], members=[(1, "7", 0)])
    path.write_bytes(path.read_bytes()[:3000])
    public(tmp_path, BATCHES, FORWARDS + "forward,0,80,1,0,a,h,12,92\n")
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [MINDIE[0]]
    assert imported.faults[0].startswith(str(path))


@settings(deadline=None)
@given(text=some.text(max_size=200), where=some.integers(0, 400))
def test_no_text_breaks_a_reader(
    tmp_path_factory: pytest.TempPathFactory, text: str, where: int
) -> None:
    """Anything may be written over anything: faults are said, never raised."""
    folder = tmp_path_factory.mktemp("profile")
    forward = FORWARDS + "forward,0,80,1,0,a,h,12,92\n"
    for name, whole in (
        ("batch.csv", BATCHES),
        ("forward.csv", forward),
        ("request.csv", REQUESTS),
        ("feature.csv", FEATURES),
        ("iterations.jsonl", f"{GOOD}\n{GOOD}\n"),
    ):
        changed = whole[:where] + text + whole[where:]
        (folder / name).write_text(changed, encoding="utf-8", errors="replace")
    for framework in ("mindie", "vllm"):
        read_recordings(folder, framework)  # type: ignore[arg-type]
