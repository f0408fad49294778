"""Tables of the original tool, and of ours, read back as what is known beforehand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from searchers import Space
from tuner.compat.serviceparam import (
    NotADataStorageError,
    data_storage_files,
    read_data_storage,
    wanted_rows,
)

HEAD = "generate_speed,time_to_first_token,time_per_output_token,success_rate,throughput"
TAIL = "error,backup,duration,real_evaluation,fitness,num_prompts"
SPACE: Space = TypeAdapter(Space).validate_python(
    {
        "MAX_NUM_SEQS": {"type": "int", "low": 32, "high": 512},
        "UTIL": {"type": "float", "low": 0.5, "high": 0.95},
        "CHUNKED": {"type": "bool"},
        "MODE": {"type": "enum", "values": ["", "--enforce-eager", "fp8"]},
        "TP": {"type": "enum", "values": [1, 2, 4]},
        "HOST": {"type": "constant", "value": "a"},
    }
)
FIELDS = "MAX_NUM_SEQS,UTIL,CHUNKED,MODE,TP,CONCURRENCY,REQUESTRATE"
LEGAL = {
    "MAX_NUM_SEQS": 64,
    "UTIL": 0.9,
    "CHUNKED": True,
    "MODE": "--enforce-eager",
    "TP": 2,
    "HOST": "a",
}


def table(folder: Path, *rows: str, fields: str = FIELDS, name: str = "data_storage_1.csv") -> Path:
    file = folder / name
    file.write_bytes("".join(f"{row}\r\n" for row in (f"{HEAD},{fields},{TAIL}", *rows)).encode())
    return file


def row(
    metrics: str = "2500.5,0.4,0.03,1.0,9.5",
    fields: str = "64,0.9,True,enforce-eager,2,100,10.5",
    tail: str = ",,61.2,True,1.25,1000",
) -> str:
    return f"{metrics},{fields},{tail}"


def reasons(file: Path, **options: Any) -> list[str]:
    found = read_data_storage(file, SPACE, **{"loads": ("CONCURRENCY", "REQUESTRATE")} | options)
    assert found.points == ()
    return [note.partition("rows left out: ")[2] for note in found.notes]


def test_a_row_is_parameters_and_metrics_by_our_names(tmp_path: Path) -> None:
    found = read_data_storage(
        table(tmp_path, row()), SPACE, num_prompts=1000, loads=("CONCURRENCY", "REQUESTRATE")
    )
    ((parameters, metrics),) = found.points
    assert parameters == LEGAL
    assert SPACE.contains(parameters)
    assert metrics == {
        "output_tokens_per_s": 2500.5,
        "ttft_mean_s": 0.4,
        "tpot_mean_s": 0.03,
        "success_rate": 1.0,
        "requests_per_s": 9.5,
    }
    assert found.notes == ()


def test_a_failed_row_has_no_metrics(tmp_path: Path) -> None:
    failed = row(",,,,", tail="Exception: out of memory,,61.2,True,inf,1000")
    (point,) = read_data_storage(
        table(tmp_path, failed), SPACE, loads=("CONCURRENCY", "REQUESTRATE")
    ).points
    assert point == (LEGAL, None)


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"tail": ",,6,False,1.2,1000"}, {}, "not really measured"),
        ({"tail": ",,6,True,1.2,3000"}, {"num_prompts": 1000}, "with 3000 requests, not 1000"),
        ({"tail": ",,6,True,1.2,"}, {"num_prompts": 1000}, "an unknown number of requests"),
        ({"metrics": ",,,,"}, {}, "nothing was measured"),
        ({"metrics": "2500,0.4,0.03,0,1"}, {}, "nothing was measured"),
        ({"fields": "16,0.9,True,fp8,2,100,1"}, {}, "MAX_NUM_SEQS lies outside the space"),
        ({"fields": "64.5,0.9,True,fp8,2,100,1"}, {}, "MAX_NUM_SEQS lies outside the space"),
        ({"fields": "64,0.9,maybe,fp8,2,100,1"}, {}, "CHUNKED lies outside the space"),
        ({"fields": "64,0.9,True,int4,2,100,1"}, {}, "MODE lies outside the space"),
        ({"fields": "64,0.9,True,fp8,3,100,1"}, {}, "TP lies outside the space"),
        ({}, {"constants": {"CONCURRENCY": 1000}}, "another CONCURRENCY than 1000"),
    ],
)
def test_rows_that_answer_another_question(
    changes: dict[str, str], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (said,) = reasons(table(tmp_path, row(**changes)), **options)
    assert reason in said


def test_columns_that_are_foreign_or_missing(tmp_path: Path) -> None:
    foreign = table(tmp_path, row(), row(), fields=FIELDS.replace("TP", "PP"))
    assert reasons(foreign) == ["PP: no parameter of this search"]
    missing = table(tmp_path, row(fields="64,0.9"), fields="MAX_NUM_SEQS,UTIL")
    assert reasons(missing) == ["CHUNKED is missing"]


def test_an_empty_text_is_a_value_of_an_enum(tmp_path: Path) -> None:
    file = table(tmp_path, row(fields="64,0.9,0,,4,100,1"))
    ((parameters, _),) = read_data_storage(file, SPACE, loads=("CONCURRENCY", "REQUESTRATE")).points
    assert (parameters["MODE"], parameters["CHUNKED"], parameters["TP"]) == ("", False, 4)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"x,y\r\n1,2\r\n"), ("b.csv", b""), ("c.csv", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotADataStorageError, match=name):
            read_data_storage(tmp_path / name, SPACE)
    with pytest.raises(NotADataStorageError, match="cannot be read"):
        read_data_storage(tmp_path / "nowhere.csv", SPACE)


def test_files_of_a_folder_come_in_the_order_of_their_making(tmp_path: Path) -> None:
    made = [table(tmp_path, name=f"data_storage_{name}.csv") for name in ("c", "a", "b")]
    (tmp_path / "other.csv").write_text("")
    assert {*data_storage_files(tmp_path)} == {*made}
    os.utime(made[0])  # changes its ctime
    assert data_storage_files(tmp_path)[-1] == made[0]
    assert data_storage_files(tmp_path / "nowhere") == []


def test_what_rows_an_experiment_wants(tmp_path: Path) -> None:
    view = {
        "type": "serviceparam",
        "num_prompts": 3000,
        "sample_size": 1000,
        "constants": {"CONCURRENCY": 100},
        "load": {"CONCURRENCY": "concurrency", "REQUESTRATE": "request_rate"},
        "fitness": {"ttft_metric": "ttft_p90_s"},
    }
    wanted = wanted_rows([{"type": "other"}, view])
    ((_, metrics),) = read_data_storage(table(tmp_path, row()), SPACE, **wanted).points
    assert metrics is not None
    assert metrics["ttft_p90_s"] == 0.4
    assert wanted_rows([])["num_prompts"] is None
