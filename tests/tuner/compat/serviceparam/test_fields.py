"""What becomes of each sort of target field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from searchers import Space
from tests.tuner.compat.serviceparam.settings import field, translated, vllm


def space_of(folder: Path, *fields: str, **text: Any) -> dict[str, Any]:
    found = translated(vllm(*fields, **text), folder)
    assert not found.problems
    space: dict[str, Any] = found.data["search"]["space"]
    TypeAdapter(Space).validate_python(space)
    return space


def problems_of(folder: Path, *fields: str, **text: Any) -> dict[str, str]:
    return dict(translated(vllm(*fields, **text), folder).problems)


def notes_of(folder: Path, *fields: str, **text: Any) -> str:
    return "\n".join(translated(vllm(*fields, **text), folder).notes)


A = field("A", min=1, max=16, dtype="int", value=4)


@pytest.mark.parametrize(
    ("entry", "parameter"),
    [
        ({"min": 1, "max": 64, "dtype": "int"}, {"type": "int", "low": 1, "high": 64}),
        ({"min": 0.5, "max": 10.7, "dtype": "int"}, {"type": "int", "low": 0, "high": 10}),
        ({"min": 8, "max": 8, "dtype": "int"}, {"type": "constant", "value": 8}),
        ({"min": 1, "max": 9, "constant": 4, "dtype": "int"}, {"type": "constant", "value": 4}),
        ({"min": 1, "max": 9, "constant": 0, "dtype": "int"}, {"type": "constant", "value": 0}),
        ({"min": 0.1, "max": 0.9}, {"type": "float", "low": 0.1, "high": 0.9}),
        ({"min": 0.5, "max": 0.5, "dtype": "float"}, {"type": "constant", "value": 0.5}),
        ({"min": 0, "max": 1, "dtype": "bool"}, {"type": "bool"}),
        ({"min": 1, "max": 1, "dtype": "bool"}, {"type": "constant", "value": True}),
        ({"min": 0, "max": 0.4, "dtype": "bool"}, {"type": "constant", "value": False}),
        (
            {"min": 0, "max": 0, "dtype": "str", "value": "fp8"},
            {"type": "constant", "value": "fp8"},
        ),
        (
            {"min": 0, "max": 1000, "dtype": "range", "dtype_param": 10},
            {"type": "int", "low": 0, "high": 1000, "step": 10},
        ),
        (
            {"min": 500, "max": 1250, "dtype": "range", "dtype_param": 100},
            {"type": "int", "low": 500, "high": 1200, "step": 100},
        ),
        (
            {"min": 5, "max": 9, "dtype": "range", "dtype_param": 10},
            {"type": "constant", "value": 5},
        ),
        (
            {"min": 0, "max": 1, "dtype": "enum", "dtype_param": [0, 1, 3]},
            {"type": "enum", "values": [0, 1, 3]},
        ),
        (
            {"min": 0, "max": 1, "dtype": "enum", "dtype_param": ["", "--async"], "value": ""},
            {"type": "enum", "values": ["", "--async"]},
        ),
        (
            {"min": 0, "max": 1, "dtype": "enum", "dtype_param": [2, 2, 4]},
            {"type": "enum", "values": [2, 4]},
        ),
        (
            {"min": 0, "max": 1, "dtype": "enum", "dtype_param": [7]},
            {"type": "constant", "value": 7},
        ),
        (
            {"min": 0, "max": 0, "dtype": "enum", "dtype_param": [1, 3], "value": 3},
            {"type": "constant", "value": 3},
        ),
    ],
)
def test_fields_of_their_own(
    entry: dict[str, Any], parameter: dict[str, Any], tmp_path: Path
) -> None:
    space = space_of(tmp_path, A, field("X", **entry))
    assert space["X"] == parameter
    assert type(space["X"].get("value")) is type(parameter.get("value"))


@pytest.mark.parametrize(
    ("entry", "parameter"),
    [
        (
            {"min": 0.1, "max": 0.7, "dtype": "ratio", "dtype_param": "A"},
            {"type": "ratio", "of": "A", "low": 0.1, "high": 0.7},
        ),
        (
            {"min": 1, "max": 16, "dtype": "share", "dtype_param": "A"},
            {"type": "share", "of": "A", "total": 17},
        ),
        (
            {"dtype": "times", "dtype_param": {"target_name": "A", "product": 2, "dtype": "int"}},
            {"type": "times", "of": "A", "product": 2},
        ),
        (
            {
                "dtype": "factories",
                "dtype_param": {"target_name": "A", "product": 16, "dtype": "int"},
            },
            {"type": "factories", "of": "A", "product": 16, "clamp": True},
        ),
        (
            {
                "dtype": "factories",
                "dtype_param": {"target_name": "A", "product": 1.5, "dtype": "float"},
            },
            {"type": "factories", "of": "A", "product": 1.5, "dtype": "float"},
        ),
        (
            {"dtype": "ternary_times", "dtype_param": {"target_names": ["A", "B"], "product": 3}},
            {"type": "ternary_times", "of": ["A", "B"], "product": 3},
        ),
        (
            {
                "dtype": "ternary_factories",
                "dtype_param": {"target_names": ["A", "B"], "product": 16, "max_value": 8},
            },
            {
                "type": "ternary_factories",
                "of": ["A", "B"],
                "product": 16,
                "low": 1,
                "high": 8,
                "clamp": True,
                "priority": "balanced",
            },
        ),
        (
            {
                "dtype": "ternary_factories",
                "dtype_param": {
                    "target_names": ["A", "B"],
                    "product": 16,
                    "priority_policy": "fixed",
                    "priority": ["B", "A"],
                },
            },
            {
                "type": "ternary_factories",
                "of": ["A", "B"],
                "product": 16,
                "low": 1,
                "clamp": True,
                "priority": ["B", "A"],
            },
        ),
    ],
)
def test_fields_that_follow_from_others(
    entry: dict[str, Any], parameter: dict[str, Any], tmp_path: Path
) -> None:
    other = field("B", min=1, max=4, dtype="int", value=1)
    space = space_of(tmp_path, field("X", **{"min": 0, "max": 0} | entry), A, other)
    assert list(space) == ["A", "B", "X"]
    assert space["X"] == parameter


def test_a_prefill_batch_is_never_empty(tmp_path: Path) -> None:
    position = "BackendConfig.ScheduleConfig.maxPrefillBatchSize"
    entry = {"min": 0, "max": 1, "dtype": "ratio", "dtype_param": "A"}
    space = space_of(tmp_path, A, field("X", position=position, **entry))
    assert space["X"] == {"type": "ratio", "of": "A", "low": 0, "high": 1, "minimum": 1}


def test_a_ratio_of_the_load_is_a_whole_number_of_it(tmp_path: Path) -> None:
    entry = {"min": 0.1, "max": 0.5, "dtype": "ratio", "dtype_param": "CONCURRENCY"}
    assert space_of(tmp_path, field("X", **entry))["X"] == {"type": "int", "low": 10, "high": 50}


def test_a_load_that_is_a_ratio_is_searched_with_its_target(tmp_path: Path) -> None:
    text = vllm(A).replace(
        'name = "CONCURRENCY"\nconfig_position = "env"\nmin = 100\nmax = 100\ndtype = "int"',
        'name = "CONCURRENCY"\nconfig_position = "env"\n'
        'min = 2\nmax = 2\ndtype = "ratio"\ndtype_param = "A"',
    )
    found = translated(text, tmp_path)
    assert not found.problems
    assert found.data["search"]["space"]["CONCURRENCY"]["type"] == "ratio"
    assert found.data["trial"]["positions"]["CONCURRENCY"] == "concurrency"
    assert "concurrency" not in found.data["trial"]["load"]


def test_derived_fields_wait_for_derived_targets(tmp_path: Path) -> None:
    times = {"min": 0, "max": 0, "dtype": "times"}
    later = field("X", dtype_param={"target_name": "Y", "product": 2, "dtype": "int"}, **times)
    first = field("Y", dtype_param={"target_name": "A", "product": 3, "dtype": "int"}, **times)
    found = translated(vllm(later, first, A), tmp_path)
    assert list(found.data["search"]["space"]) == ["A", "Y", "X"]
    assert found.data["views"][0]["fields"] == ["X", "Y", "A", "CONCURRENCY"]
    assert "vllm.target_field[0]: is derived after Y" in "\n".join(found.notes)
    circle = first.replace('"A"', '"X"')
    assert (
        "in a circle" in problems_of(tmp_path, later, circle, A)["vllm.target_field[0].dtype_param"]
    )


@pytest.mark.parametrize(
    ("entry", "place", "said"),
    [
        ({"min": 9, "max": 1, "dtype": "int"}, "min", "9 is more than max, which is 1"),
        ({"min": 0, "max": 1, "dtype": "str"}, "dtype", "never searched"),
        ({"dtype": "range"}, "dtype_param", "step of the range"),
        ({"dtype": "range", "dtype_param": 0}, "dtype_param", "not 0"),
        ({"dtype": "range", "dtype_param": 2.5}, "dtype_param", "not 2.5"),
        ({"dtype": "enum"}, "dtype_param", "list the values"),
        ({"dtype": "enum", "dtype_param": []}, "dtype_param", "list the values"),
        ({"dtype": "enum", "dtype_param": [[1]]}, "dtype_param", "list the values"),
        ({"dtype": "enum", "dtype_param": [1, 3], "constant": 2}, "constant", "2.0 is not in"),
        ({"dtype": "ratio", "dtype_param": "Z"}, "dtype_param", "no field 'Z'; there are A"),
        ({"dtype": "ratio", "dtype_param": "X"}, "dtype_param", "derived from itself"),
        ({"dtype": "ratio", "dtype_param": 3}, "dtype_param", "name of the field"),
        ({"dtype": "share"}, "dtype_param", "name of the field"),
        ({"dtype": "times", "dtype_param": "A"}, "dtype_param", "is a table"),
        ({"dtype": "times", "dtype_param": {"target_name": "A"}}, "dtype_param.product", "number"),
        (
            {"dtype": "ternary_times", "dtype_param": {"target_names": ["A"]}},
            "dtype_param",
            "two fields",
        ),
        (
            {
                "dtype": "times",
                "dtype_param": {"target_name": "A", "product": 1, "dtype": "str"},
            },
            "dtype_param.dtype",
            "int or float",
        ),
    ],
)
def test_fields_that_cannot_be_meant(
    entry: dict[str, Any], place: str, said: str, tmp_path: Path
) -> None:
    found = problems_of(tmp_path, A, field("X", **entry))
    assert said in found[f"vllm.target_field[1].{place}"]


def test_positions_and_names(tmp_path: Path) -> None:
    found = problems_of(tmp_path, A, A, field("X", position="args", min=0, max=1))
    assert "A stands in vllm.target_field[0] already" in found["vllm.target_field[1].name"]
    assert "env, or a path" in found["vllm.target_field[2].config_position"]
    disaggregated = field("X", position="default_p_rate", min=1, max=3, dtype="int")
    assert (
        "is for MindIE with --pd disaggregation"
        in problems_of(tmp_path, A, disaggregated)["vllm.target_field[1].config_position"]
    )


def test_what_comes_to_mean_something_else_is_said(tmp_path: Path) -> None:
    over = field("X", min=500, max=1250, dtype="range", dtype_param=100)
    assert "the last value is 1200" in notes_of(tmp_path, A, over)
    constant = field("X", min=1, max=9, constant=4, dtype="int")
    assert "constant 4: the range is not searched" in notes_of(tmp_path, A, constant)
    ratio = field("X", min=0.5, max=0.5, dtype="ratio", dtype_param="A")
    assert "the original would make it 0" in notes_of(tmp_path, A, ratio)
    twice = field("X", dtype="enum", dtype_param=[1, 1, 2])
    assert "count once" in notes_of(tmp_path, A, twice)


def test_the_baseline_is_the_values_and_what_follows_from_them(tmp_path: Path) -> None:
    share = field("B", min=1, max=16, dtype="share", dtype_param="A")
    flag = field("F", min=0, max=1, dtype="bool", value=True)
    times = {"target_name": "A", "product": 2, "dtype": "int"}
    double = field("D", min=0, max=0, dtype="times", dtype_param=times)
    found = translated(vllm(A, share, flag, double), tmp_path)
    assert found.data["trial"]["baseline"] == {
        "A": 4,
        "F": True,
        "B": 13,
        "D": 8,
        "CONCURRENCY": 100,
    }
