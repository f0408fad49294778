"""The space of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.replay.tables import SWEEP, write
from tuner.experiment import ExperimentError
from tuner.replay import Part, Request, Table, make_space, read_space, read_table, read_tasks
from tuner.replay._space import point_of
from tuner.replay._table import Row

TEXT = """
    tp,batch,dtype,eager,util,"max seqs, total",throughput
    8,16,fp8,true,0.9,1,1
    1,32,none,false,0.85,2,2
    2,48,,true,0.9,4,3
    4,16,fp8,true,0.8,8,4
"""


def space_of(folder: Path, text: str) -> dict[str, Any]:
    table = read_table(write(folder, TEXT))
    return read_space(text, [table], [].append)(table).model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("tp", {"type": "enum", "values": (1, 2, 4, 8)}),
        ("TP:log", {"type": "enum", "values": (1, 2, 4, 8)}),
        ("tp:categorical", {"type": "enum", "values": ("1", "2", "4", "8")}),
        ("batch", {"type": "int", "low": 16, "high": 48, "step": 16}),
        ("batch:enum", {"type": "enum", "values": (16, 32, 48)}),
        ("dtype", {"type": "enum", "values": ("fp8", "none", None)}),
        ("eager", {"type": "bool"}),
        ("util:float", {"type": "enum", "values": (0.8, 0.85, 0.9)}),
        ("max seqs, total", {"type": "enum", "values": (1, 2, 4, 8)}),
        ("`max seqs, total`:log", {"type": "enum", "values": (1, 2, 4, 8)}),
    ],
)
def test_a_column_becomes_a_parameter(tmp_path: Path, text: str, parameter: dict[str, Any]) -> None:
    assert list(space_of(tmp_path, text).values()) == [parameter]


def test_a_dense_column_may_be_logarithmic(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "n\n" + "\n".join(map(str, range(1, 20)))))
    assert make_space(table, [Part("n", "log")]).model_dump(exclude_defaults=True) == {
        "n": {"type": "int", "low": 1, "high": 19, "log": True}
    }


def test_the_space_of_an_experiment(tmp_path: Path) -> None:
    block = "{tp: {type: enum, values: [1, 2]}, fixed: {type: constant, value: 3}}"
    file = tmp_path / "experiment.yaml"
    file.write_text(f"search: {{type: random, trials: 3, space: {block}}}\n")
    for text in (block, f"{{space: {block}}}", str(file)):
        assert list(space_of(tmp_path, text)) == ["tp", "fixed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tp,nodes", "no column 'nodes'; there are: tp, batch"),
        ("tp,TP", "tp stands twice"),
        ("tp:cube", "unknown type 'cube'; there are: enum"),
        ("dtype:int", "dtype:int does not suit"),
        ("util:int", "not whole; use float"),
        ("tp:bool", "1, 2, 4, 8 are not true and false"),
        (",", "names no column; there are: tp"),
        ("{tp: {type: enum}}", "each name needs a block such as"),
        ("{nodes: {type: bool}}", "nodes is no column of the table; there are"),
        ("throughput", "throughput: is in the objective, so it cannot be searched"),
    ],
)
def test_what_cannot_be_a_space_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ExperimentError) as refusal:
        read_tasks([write(tmp_path, TEXT)], Request("max throughput", space=text))
    assert said in str(refusal.value)
    assert "--space" in str(refusal.value)


def test_rows_outside_of_a_given_space_are_left_out(tmp_path: Path) -> None:
    block = "{tp: {type: int, low: 1, high: 4}, batch: {type: enum, values: [16, 32]}}"
    (task,) = read_tasks([write(tmp_path, TEXT)], Request("max throughput", space=block))
    assert task.summary()["rows_outside_space"] == 2
    assert task.summary()["points_without_row"] == 6


def test_without_a_space_what_looks_chosen_is_searched_and_said(tmp_path: Path) -> None:
    text = """
        run_id,date,model,tp,dtype,throughput,mean_e2el_ms,power_w,peak
    """
    rows = [
        f"{n},2025-01-0{n},m,{2 ** (n % 3)},{'ab'[n % 2]},{n},{n}.5,{n},{n}.25"
        for n in range(1, 10)
    ]
    notes: list[str] = []
    file = write(tmp_path, text + "\n".join(rows))
    (task,) = read_tasks([file], Request("max throughput"), notes.append)
    assert task.space.names == ("tp", "dtype")
    assert notes[0] == "--space is not given; taken for parameters: tp, dtype"
    assert "model (has one value)" in notes[1]


def test_every_task_has_the_values_that_stand_in_its_rows(tmp_path: Path) -> None:
    text = SWEEP + "    4,8,b,1,0.1\n"
    request = Request("max throughput", space="tp,load", by=["engine"])
    small, large = read_tasks([write(tmp_path, text)], request)
    assert (small.space.size(), large.space.size()) == (4, 6)


CELLS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from(["x", "1", "true"]))


@given(st.lists(CELLS, min_size=1))
def test_every_row_lies_in_the_space_of_its_table(cells: list[Any]) -> None:
    table = Table("t", "t.csv", ("a",), tuple(Row({"a": cell}, 1) for cell in cells))
    space = make_space(table, [Part("a")])
    assert all(point_of(space, row.cells) is not None for row in table.rows)
