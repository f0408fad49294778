"""Parameters and spaces: what may be written, and the way to the unit cube and back."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from searchers import Space

UNITS = st.floats(0, 1)


def space(**parameters: Any) -> Space:
    return Space.model_validate(parameters)


@st.composite
def int_parameters(draw: st.DrawFn) -> dict[str, Any]:
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -(10**6), 10**6))
    step = 1 if log else draw(st.integers(1, 7))
    return {
        "type": "int",
        "low": low,
        "high": low + step * draw(st.integers(0, 10**5)),
        "step": step,
        "log": log,
    }


@st.composite
def float_parameters(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["linear", "log", "step"]))
    if kind == "step":
        low, step = draw(st.integers(-100, 100)) / 20, draw(st.sampled_from([0.05, 0.1, 0.25, 3.0]))
        return {
            "type": "float",
            "low": low,
            "high": low + step * draw(st.integers(0, 60)),
            "step": step,
        }
    magnitudes = st.floats(1e-9, 1e9) if kind == "log" else st.floats(-1e9, 1e9)
    low, high = sorted((draw(magnitudes), draw(magnitudes)))
    assume(low == high or high - low >= 1e-6 * max(abs(low), abs(high)))
    return {"type": "float", "low": low, "high": high, "log": kind == "log"}


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
)
PARAMETERS = st.one_of(
    int_parameters(),
    float_parameters(),
    st.just({"type": "bool"}),
    st.lists(SCALARS, min_size=1, max_size=8, unique_by=json.dumps).map(
        lambda values: {"type": "enum", "values": values}
    ),
    SCALARS.map(lambda value: {"type": "constant", "value": value}),
)
SPACES = st.dictionaries(st.text(min_size=1), PARAMETERS, min_size=1, max_size=4).map(
    Space.model_validate
)


@given(SPACES, st.data())
def test_every_point_of_the_cube_is_legal_and_encodes_back(
    a_space: Space, data: st.DataObject
) -> None:
    vector = [data.draw(UNITS) for _ in a_space.dimensions]
    values = a_space.decode(vector)
    assert list(values) == list(a_space.names)
    assert a_space.contains(values)
    assert json.dumps(a_space.canonical(values)) == json.dumps(values)
    assert json.dumps(a_space.decode(a_space.encode(values))) == json.dumps(values)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


@given(SPACES)
def test_the_ends_of_every_axis_are_legal(a_space: Space) -> None:
    for unit in (0.0, 1.0):
        values = a_space.decode([unit] * len(a_space.dimensions))
        assert a_space.contains(values)
        assert json.dumps(a_space.decode(a_space.encode(values))) == json.dumps(values)


@given(st.one_of(int_parameters(), float_parameters()))
def test_a_range_reaches_both_ends(parameter: dict[str, Any]) -> None:
    a_space = space(x=parameter)
    if not a_space.dimensions:
        assert parameter["low"] == pytest.approx(parameter["high"])
        return
    assert a_space.decode([0.0])["x"] == parameter["low"]
    assert a_space.decode([1.0])["x"] == pytest.approx(parameter["high"])


@given(int_parameters(), st.data())
def test_every_whole_number_can_be_encoded(parameter: dict[str, Any], data: st.DataObject) -> None:
    count = (parameter["high"] - parameter["low"]) // parameter["step"]
    value = parameter["low"] + parameter["step"] * data.draw(st.integers(0, count))
    a_space = space(x=parameter)
    assert a_space.decode(a_space.encode({"x": value})) == {"x": value}


@pytest.mark.parametrize(
    "parameter",
    [
        {"type": "int", "low": 3, "high": 7},
        {"type": "int", "low": 0, "high": 20, "step": 5},
        {"type": "enum", "values": ["a", "b", "c", "d", "e"]},
        {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1},
    ],
)
def test_every_value_owns_an_equal_share_of_its_axis(parameter: dict[str, Any]) -> None:
    a_space = space(x=parameter)
    units = [(index + 0.5) / 1000 for index in range(1000)]
    shares = Counter(a_space.decode([unit])["x"] for unit in units)
    assert list(shares.values()) == [200] * 5


def test_a_logarithmic_range_gives_every_doubling_about_the_same_share() -> None:
    a_space = space(x={"type": "int", "low": 1, "high": 1023, "log": True})
    values = [a_space.decode([(index + 0.5) / 10_000])["x"] for index in range(10_000)]
    octaves = Counter(int(math.log2(value)) for value in values)
    assert set(octaves) == set(range(10))
    assert max(octaves.values()) < 2 * min(octaves.values())


def test_floats_come_out_as_a_person_would_write_them() -> None:
    a_space = space(
        linear={"type": "float", "low": 0.1, "high": 0.7},
        step={"type": "float", "low": 0.1, "high": 0.7, "step": 0.1},
    )
    assert a_space.decode([1 / 3, 0.35]) == {"linear": 0.3, "step": 0.3}


def test_zero_has_no_sign() -> None:
    nothing = space(x={"type": "float", "low": 0.0, "high": -0.0})
    around = space(x={"type": "float", "low": -1.0, "high": 1.0})
    assert str(nothing.decode([])["x"]) == "0.0"
    assert str(around.decode([0.5 - 1e-12])["x"]) == "0.0"


def test_numbers_keep_the_type_of_their_parameter() -> None:
    a_space = space(x={"type": "float", "low": 0, "high": 2})
    assert json.dumps(a_space.canonical({"x": 1})) == '{"x": 1.0}'
    assert not space(x={"type": "int", "low": 0, "high": 2}).contains({"x": 1.0})
    assert not space(x={"type": "int", "low": 0, "high": 2}).contains({"x": True})
    options = space(x={"type": "enum", "values": [1, 1.0, True, "1", None]})
    for unit, value in zip((0.1, 0.3, 0.5, 0.7, 0.9), (1, 1.0, True, "1", None), strict=True):
        assert json.dumps(options.decode([unit])["x"]) == json.dumps(value)
        assert options.encode({"x": value}) == pytest.approx([unit])


def test_single_valued_parameters_are_no_dimensions() -> None:
    a_space = space(
        a={"type": "constant", "value": 128},
        b={"type": "int", "low": 5, "high": 5},
        c={"type": "enum", "values": ["only"]},
        d={"type": "float", "low": 0.5, "high": 0.5},
        e={"type": "bool"},
    )
    assert a_space.dimensions == ("e",)
    assert a_space.decode([0.9]) == {"a": 128, "b": 5, "c": "only", "d": 0.5, "e": True}
    assert a_space.size() == 2


def test_grid_lists_all_points_in_order() -> None:
    a_space = space(
        x={"type": "int", "low": 1, "high": 3, "step": 2},
        y={"type": "float", "low": 0, "high": 1},
        z={"type": "constant", "value": "c"},
    )
    points = [(point["x"], point["y"]) for point in a_space.grid(3)]
    assert points == [(1, 0.0), (1, 0.5), (1, 1.0), (3, 0.0), (3, 0.5), (3, 1.0)]
    assert a_space.size() is None
    assert a_space.size(3) == 6
    with pytest.raises(ValueError, match="y: is continuous"):
        next(a_space.grid())


def test_wrong_values_are_all_named_at_once() -> None:
    a_space = space(
        batch={"type": "int", "low": 8, "high": 64, "step": 8},
        rate={"type": "float", "low": 0.5, "high": 2, "step": 0.5},
        mode={"type": "enum", "values": ["fcfs", "priority"]},
        size={"type": "constant", "value": 128},
        prefix={"type": "bool"},
    )
    wrong = {"batch": 12, "rate": 0.7, "mode": "lifo", "size": 129, "prefix": 1, "extra": 0}
    with pytest.raises(ValueError) as caught:
        a_space.canonical(wrong)
    for said in (
        "extra: no such parameter",
        "batch: must be 8 plus a multiple of 8, not 12",
        "rate: must be 0.5 plus a multiple of 0.5, not 0.7",
        'mode: must be one of "fcfs", "priority", not "lifo"',
        "size: must be 128, not 129",
        "prefix: must be true or false, not 1",
    ):
        assert said in str(caught.value)
    with pytest.raises(ValueError, match="prefix: is missing"):
        a_space.encode({"batch": 8, "rate": 0.5, "mode": "fcfs", "size": 128})


@pytest.mark.parametrize("vector", [[], [0.5, 0.5], [1.1], [-0.1], [math.nan]])
def test_a_point_outside_the_cube_is_refused(vector: list[float]) -> None:
    with pytest.raises(ValueError, match="coordinates"):
        space(x={"type": "bool"}).decode(vector)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"type": "integer"}, "'int', 'range', 'float', 'bool', 'enum', 'constant'"),
        ({"low": 1, "high": 2}, "type"),
        ({"type": "int", "low": 2, "high": 1}, "low 2 is greater than high 1"),
        ({"type": "int", "low": 1, "high": 64, "step": 8}, "use 57 or 65"),
        ({"type": "int", "low": 1, "high": 2.0}, "valid integer"),
        ({"type": "int", "low": "1", "high": 2}, "valid integer"),
        ({"type": "int", "low": True, "high": 2}, "valid integer"),
        ({"type": "int", "low": 0, "high": 2, "log": True}, "must start above 0"),
        ({"type": "int", "low": 1, "high": 5, "log": True, "step": 2}, "log and step exclude"),
        ({"type": "int", "low": 1, "high": 5, "hihg": 3}, "Extra inputs"),
        ({"type": "int", "low": 1, "high": 2**41}, "less than or equal"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "must start above 0"),
        ({"type": "float", "low": 0.5, "high": 0.97, "step": 0.05}, "use 0.95 or 1"),
        ({"type": "float", "low": 0, "high": math.inf}, "finite"),
        ({"type": "float", "low": 1e9, "high": 2e9, "step": 1e-3}, "too small"),
        ({"type": "float", "low": 1, "high": 1.0000001}, "too narrow"),
        ({"type": "enum", "values": []}, "at least 1"),
        ({"type": "enum", "values": ["a", "b", "a"]}, 'repeated: "a"'),
        ({"type": "constant"}, "required"),
    ],
)
def test_a_wrong_parameter_says_what_is_wrong(parameter: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match="x") as caught:
        space(x=parameter)
    assert said in str(caught.value)


def test_a_space_names_at_least_one_parameter() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        space()


@given(SPACES)
def test_a_space_survives_being_written_down(a_space: Space) -> None:
    assert Space.model_validate(json.loads(a_space.model_dump_json())) == a_space
