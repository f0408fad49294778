"""Derived parameters: shares, ratios, products and quotients of others, and points made to fit."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from searchers import Space

UNITS = st.floats(0, 1)
POWERS = [1, 2, 4, 8, 16]


def space(**parameters: Any) -> Space:
    return Space.model_validate(parameters)


def enum(*values: Any) -> dict[str, Any]:
    return {"type": "enum", "values": list(values)}


def integer(low: int, high: int) -> dict[str, Any]:
    return {"type": "int", "low": low, "high": high}


def quotient(of: Any, number: int = 16, **more: Any) -> dict[str, Any]:
    kind = "factories" if isinstance(of, str) else "ternary_factories"
    return {"type": kind, "of": of, "product": number, **more}


def all_values(a_space: Space) -> list[dict[str, Any]]:
    return list(a_space.grid())


def coordinates(a_space: Space, **values: Any) -> list[float]:
    """The coordinates of searched values, whether or not what is derived from them is legal."""
    return [a_space.root[name].encode(values[name], values) for name in a_space.dimensions]


# ---- whole spaces

NUMBERS = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(0, 40)).map(lambda ends: integer(ends[0], sum(ends))),
    st.tuples(st.integers(1, 40), st.integers(0, 60), st.integers(1, 9)).map(
        lambda t: {"type": "range", "low": t[0], "high": t[0] + t[1], "step": t[2]}
    ),
    st.lists(st.integers(1, 64), min_size=1, max_size=6, unique=True).map(lambda v: enum(*v)),
    st.integers(1, 16).map(lambda value: {"type": "constant", "value": value}),
)
OTHERS = st.one_of(
    st.just({"type": "bool"}),
    st.just(enum("", "fcfs", "priority")),
    st.just({"type": "float", "low": 0.5, "high": 2.5}),
)
PRODUCTS = st.sampled_from([1, 6, 12, 16, 64, 97, 720])


def derived(draw: st.DrawFn, targets: list[str]) -> dict[str, Any]:
    target, other = draw(st.sampled_from(targets)), draw(st.sampled_from(targets))
    kind = draw(st.sampled_from(["ratio", "share", "times", "factories", "ternary"]))
    if kind == "ratio":
        low, high = sorted((draw(st.floats(0, 2)), draw(st.floats(0, 2))))
        minimum = draw(st.integers(0, 3))
        return {"type": "ratio", "of": target, "low": low, "high": high, "minimum": minimum}
    if kind == "share":
        return {"type": "share", "of": target, "total": draw(st.integers(0, 64))}
    if kind == "times":
        return {"type": "times", "of": target, "product": draw(st.sampled_from([1, 2, 0.5, 1.3]))}
    if kind == "factories" or target == other:
        return quotient(target, draw(PRODUCTS), clamp=True)
    priority = draw(st.sampled_from(["balanced", [other, target]]))
    high = draw(st.sampled_from([None, 4, 64]))
    return quotient([target, other], draw(PRODUCTS), priority=priority, high=high, clamp=True)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    parameters = {f"n{index}": draw(NUMBERS) for index in range(draw(st.integers(1, 4)))}
    parameters |= {f"o{index}": draw(OTHERS) for index in range(draw(st.integers(0, 2)))}
    targets = [name for name in parameters if name.startswith("n")]
    for index in range(draw(st.integers(1, 4))):
        parameters[f"d{index}"] = derived(draw, targets)
    return Space.model_validate(parameters)


@settings(deadline=None)
@given(spaces(), st.data())
def test_every_point_of_the_cube_is_made_legal_and_stays_what_it_is(
    a_space: Space, data: st.DataObject
) -> None:
    vector = [data.draw(UNITS) for _ in a_space.dimensions]
    values = a_space.decode(vector)
    assert list(values) == list(a_space.names)
    assert json.dumps(a_space.canonical(values)) == json.dumps(values)
    assert json.dumps(a_space.decode(a_space.encode(values))) == json.dumps(values)


@settings(deadline=None, max_examples=60)
@given(spaces(), st.data())
def test_the_grid_has_every_legal_point_once(a_space: Space, data: st.DataObject) -> None:
    size = a_space.size(2)
    if size is None or size > 3000:
        return
    texts = [json.dumps(point) for point in a_space.grid(2)]
    assert len(texts) == len(set(texts)) == size > 0
    assert all(a_space.contains(json.loads(text)) for text in texts)
    vector = [data.draw(UNITS) for _ in a_space.dimensions]
    if a_space.size() is not None:
        assert json.dumps(a_space.decode(vector)) in texts


@settings(deadline=None)
@given(spaces())
def test_a_derived_space_survives_being_written_down(a_space: Space) -> None:
    assert Space.model_validate(json.loads(a_space.model_dump_json())) == a_space


@settings(deadline=None)
@given(spaces(), st.data())
def test_a_derived_value_cannot_be_chosen(a_space: Space, data: st.DataObject) -> None:
    values = a_space.decode([data.draw(UNITS) for _ in a_space.dimensions])
    for name in a_space.names:
        if name.startswith("d") and name not in a_space.dimensions:
            with pytest.raises(ValueError, match=f"{name}: must"):
                a_space.canonical({**values, name: values[name] + 1})


# ---- each type


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1), st.integers(0, 5), UNITS)
def test_a_ratio_is_a_share_of_its_target(
    target: int, one: float, other: float, minimum: int, unit: float
) -> None:
    low, high = sorted((one, other))
    a_space = space(
        batch={"type": "constant", "value": target},
        prefill={"type": "ratio", "of": "batch", "low": low, "high": high, "minimum": minimum},
    )
    value = a_space.decode([unit] if a_space.dimensions else [])["prefill"]
    assert value >= minimum
    assert value == minimum or low * target - 0.5001 <= value <= high * target + 0.5001


def test_ratios_round_reach_both_ends_and_never_vanish_below_their_minimum() -> None:
    a_space = space(
        batch=enum(3, 10, 100),
        prefill={"type": "ratio", "of": "batch", "low": 0.1, "high": 0.75, "minimum": 1},
    )
    found: dict[int, list[int]] = {}
    for point in a_space.grid():
        found.setdefault(point["batch"], []).append(point["prefill"])
    assert found == {3: [1, 2], 10: list(range(1, 9)), 100: list(range(10, 76))}
    assert a_space.size() == 2 + 8 + 66
    shares = Counter(a_space.decode([0.5, (k + 0.5) / 800])["prefill"] for k in range(800))
    assert shares == dict.fromkeys(range(1, 9), 100)


def test_a_share_is_the_rest_and_no_dimension() -> None:
    a_space = space(
        p={"type": "range", "low": 1, "high": 8, "step": 2},
        d={"type": "share", "of": "p"},
        e={"type": "share", "of": "p", "total": 10},
    )
    assert a_space.dimensions == ("p",)
    assert [(v["p"], v["d"], v["e"]) for v in all_values(a_space)] == [
        (1, 7, 9),
        (3, 5, 7),
        (5, 3, 5),
        (7, 1, 3),
    ]
    fraction = space(a={"type": "float", "low": 0.1, "high": 0.7}, b={"type": "share", "of": "a"})
    assert fraction.decode([1 / 3]) == {"a": 0.3, "b": 0.5}


def test_products_and_quotients() -> None:
    a_space = space(
        tp=enum(*POWERS),
        dp=quotient("tp"),
        moe={"type": "times", "of": "dp", "product": 2},
        world={"type": "ternary_times", "of": ["tp", "dp"], "product": 1},
        half={"type": "times", "of": "tp", "product": 0.5},
        exact={"type": "times", "of": "tp", "product": 0.3, "dtype": "float"},
        inverse={"type": "factories", "of": "tp", "product": 1, "dtype": "float"},
    )
    assert a_space.size() == 5
    values = a_space.decode([0.7])
    assert values == {
        "tp": 8,
        "dp": 2,
        "moe": 4,
        "world": 16,
        "half": 4,
        "exact": 2.4,
        "inverse": 0.125,
    }
    assert a_space.decode([0.0])["half"] == 1  # 0.5 is rounded, not cut off


def test_a_target_that_does_not_divide_becomes_the_nearest_that_does() -> None:
    a_space = space(tp=integer(1, 16), dp=quotient("tp", 12))
    moved = [a_space.decode([(tp - 0.5) / 16])["tp"] for tp in range(1, 17)]
    assert moved == [1, 2, 3, 4, 4, 6, 6, 6, 6, 12, 12, 12, 12, 12, 12, 12]
    assert all_values(a_space) == [{"tp": tp, "dp": 12 // tp} for tp in (1, 2, 3, 4, 6, 12)]
    assert a_space.size() == 6


def legal_pairs(number: int, high: int) -> set[tuple[int, int]]:
    return {
        (a, b)
        for a, b in product(POWERS, POWERS)
        if number % (a * b) == 0 and number // (a * b) <= high
    }


@pytest.mark.parametrize("priority", [["tp", "pp"], ["pp", "tp"], "balanced"])
def test_two_targets_are_moved_in_the_order_of_their_priority(priority: Any) -> None:
    a_space = space(
        tp=enum(*POWERS),
        pp=enum(*POWERS),
        dp=quotient(["tp", "pp"], 16, low=1, high=16, priority=priority),
    )
    assert {(v["tp"], v["pp"]) for v in all_values(a_space)} == legal_pairs(16, 16)
    assert a_space.size() == 15
    values = a_space.decode(coordinates(a_space, tp=8, pp=16))
    kept = {"tp": (8, 2, 1), "pp": (1, 16, 1)}
    expected = kept["pp" if priority == "balanced" else priority[0]]
    assert (values["tp"], values["pp"], values["dp"]) == expected


def test_balanced_keeps_either_target_equally_often() -> None:
    a_space = space(tp=enum(*POWERS), pp=enum(*POWERS), dp=quotient(["tp", "pp"]))
    kept: Counter[str] = Counter()
    for i, j in product(range(100), range(100)):
        units = ((i + 0.25) / 100, (j + 0.75) / 100)
        tp, pp = (POWERS[int(unit * 5)] for unit in units)
        values = a_space.decode(units)
        if 16 % (tp * pp):
            kept["tp" if values["tp"] == tp else "pp"] += 1
    assert kept["tp"] == pytest.approx(kept["pp"], rel=0.1)


def test_both_targets_move_when_neither_can_stay() -> None:
    a_space = space(tp=enum(3, 2, 1), pp=enum(5, 4), dp=quotient(["tp", "pp"]))
    values = a_space.decode(coordinates(a_space, tp=3, pp=5))
    assert values == {"tp": 2, "pp": 4, "dp": 2}


def test_a_quotient_stays_in_its_range() -> None:
    a_space = space(tp=enum(*POWERS), pp=enum(*POWERS), dp=quotient(["tp", "pp"], low=2, high=4))
    assert {v["dp"] for v in all_values(a_space)} == {2, 4}
    assert a_space.decode(coordinates(a_space, tp=1, pp=1))["dp"] in (2, 4)


def test_moving_a_target_keeps_the_quotients_before_it() -> None:
    """tp divides 8, so (tp, pp) may not be repaired with tp 16."""
    a_space = space(
        tp=integer(1, 16),
        pp=integer(3, 16),
        ep=quotient("tp", 8),
        dp=quotient(["tp", "pp"], 48, priority=["pp", "tp"]),
        per_group={"type": "ratio", "of": "ep", "low": 0, "high": 1},
    )
    for i, j in product(range(40), range(40)):
        values = a_space.decode([i / 39, j / 39, 0.9])
        assert a_space.contains(values)
    size = len({(v["tp"], v["pp"]) for v in all_values(a_space)})
    legal = [
        (tp, pp)
        for tp, pp in product(range(1, 17), range(3, 17))
        if 8 % tp == 0 and 48 % (tp * pp) == 0
    ]
    assert size == len(legal)


def test_a_quotient_without_any_legal_targets_is_refused_or_clamped() -> None:
    hopeless = {"tp": enum(3, 5), "pp": enum(7, 11)}
    with pytest.raises(ValidationError, match="no values of its targets are legal: 16 is not div"):
        space(**hopeless, dp=quotient(["tp", "pp"]))
    a_space = space(**hopeless, dp=quotient(["tp", "pp"], 100, high=3, clamp=True))
    assert [v["dp"] for v in all_values(a_space)] == [3, 3, 2, 1]
    values = a_space.decode([0.9, 0.9])
    assert values == {"tp": 5, "pp": 11, "dp": 1}
    assert a_space.decode(a_space.encode(values)) == values


def test_a_quotient_may_divide_by_what_is_derived() -> None:
    a_space = space(
        tp=integer(1, 8),
        ranks={"type": "times", "of": "tp", "product": 2},
        dp=quotient("ranks", 48),
    )
    assert [(v["tp"], v["dp"]) for v in all_values(a_space)] == [
        (tp, 24 // tp) for tp in (1, 2, 3, 4, 6, 8)
    ]
    assert a_space.decode([0.55])["tp"] == 4  # 5 is as far from 4 as from 6


# ---- what is said


@pytest.mark.parametrize(
    ("parameters", "path", "said"),
    [
        ({"d": quotient("tp")}, ["d", "of"], "no parameter is named 'tp'"),
        (
            {"d": quotient("tp"), "tp": enum(1, 2)},
            ["d", "of"],
            "'tp' is not declared before 'd'; put it first",
        ),
        ({"d": {"type": "share", "of": "d", "total": 1}}, ["d", "of"], "'d' is not decl"),
        (
            {"m": enum("a", "b"), "d": {"type": "times", "of": "m", "product": 2}},
            ["d", "of"],
            "'m' has values that are not numbers",
        ),
        (
            {"m": enum(1, 2), "d": {"type": "share", "of": "m"}},
            ["d", "of"],
            "'m' has no low and high: give a total",
        ),
        (
            {"f": {"type": "float", "low": 1, "high": 2}, "d": quotient("f")},
            ["d", "of"],
            "'f' is not made of whole numbers",
        ),
        (
            {"n": integer(0, 4), "d": {**quotient("n"), "dtype": "float"}},
            ["d", "of"],
            "'n' can be 0, which divides nothing",
        ),
        (
            {"n": integer(1, 4), "d": quotient("n", 1.5)},
            ["d"],
            "product must be a whole number",
        ),
        (
            {"a": enum(1), "b": enum(1), "d": quotient(["a", "b"], priority=["a", "c"])},
            ["d"],
            "priority must be balanced, or a and b in their order",
        ),
        (
            {"n": integer(1, 4), "d": {"type": "ratio", "of": "n", "low": 2, "high": 1}},
            ["d"],
            "low 2.0 is greater than high 1.0",
        ),
    ],
)
def test_wrong_targets_are_refused_with_their_path(
    parameters: dict[str, Any], path: list[str], said: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Space.model_validate(parameters)
    [error] = caught.value.errors()
    assert [part for part in error["loc"] if part in ("d", "of")] == path
    assert said in error["msg"]


def test_all_wrong_targets_are_named_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        space(a=quotient("x"), b={"type": "times", "of": "y", "product": 1})
    assert [error["loc"][0] for error in caught.value.errors()] == ["a", "b"]


def test_inconsistent_values_say_why() -> None:
    a_space = space(
        tp=integer(1, 16),
        dp=quotient("tp"),
        rest={"type": "share", "of": "tp", "total": 20},
        part={"type": "ratio", "of": "tp", "low": 0.25, "high": 0.5},
    )
    for values, said in (
        ({"tp": 4, "dp": 3, "rest": 16, "part": 1}, "dp: must be 4 (16 / tp 4), not 3"),
        ({"tp": 3, "dp": 5, "rest": 17, "part": 1}, "dp: 16 is not divisible by tp 3"),
        ({"tp": 4, "dp": 4, "rest": 6, "part": 1}, "rest: must be 16 (20 - tp 4), not 6"),
        ({"tp": 8, "dp": 2, "rest": 12, "part": 5}, "part: must lie in 2..4, not 5 (0.25 to 0.5"),
        ({"tp": 99, "dp": 2, "rest": 12, "part": 5}, "tp: must lie in 1..16, not 99"),
        ({"tp": 4, "rest": 16, "part": 1}, "dp: is missing"),
    ):
        with pytest.raises(ValueError) as caught:
            a_space.canonical(values)
        assert str(caught.value).startswith(said)


# ---- ranges, and what models of a space are told


@given(st.integers(-50, 50), st.integers(0, 200), st.integers(1, 30))
def test_a_range_never_exceeds_its_high(low: int, width: int, step: int) -> None:
    a_space = space(x={"type": "range", "low": low, "high": low + width, "step": step})
    assert [v["x"] for v in a_space.grid()] == list(range(low, low + width + 1, step))
    last = a_space.decode([1.0] * len(a_space.dimensions))["x"]
    assert last <= low + width < last + step


def test_parameters_say_whether_they_are_ordered_numbers() -> None:
    a_space = space(
        n={"type": "int", "low": 1, "high": 9, "log": True},
        f={"type": "float", "low": 0.1, "high": 1},
        t=enum(1, 2, 4, 8),
        u=enum(64, 32, 16),
        v=enum(10, 20, 30),
        w=enum(4, 1, 2),
        m=enum("", "fcfs"),
        b={"type": "bool"},
        r={"type": "ratio", "of": "n", "low": 0, "high": 1},
        p={"type": "times", "of": "r", "product": 2},
    )
    told = {
        name: (parameter.numeric, parameter.ordered, parameter.log_scaled)
        for name, parameter in a_space.root.items()
    }
    assert told == {
        "n": (True, True, True),
        "f": (True, True, False),
        "t": (True, True, True),
        "u": (True, True, True),
        "v": (True, True, False),
        "w": (True, False, False),
        "m": (False, False, False),
        "b": (False, False, False),
        "r": (True, True, False),
        "p": (True, True, False),
    }


def test_a_space_too_large_to_count_is_said_to_be_endless() -> None:
    wide = {"type": "int", "low": 1, "high": 10**6}
    ratio = {"type": "ratio", "of": "n", "low": 0, "high": 1}
    assert space(n=wide, r=ratio).size() is None
    assert space(n=wide, m=wide).size() == 10**12
    assert space(n=integer(10, 1000), r=ratio).size() == sum(n + 1 for n in range(10, 1001))
    assert math.isclose(space(n=integer(1, 4), x=wide, r=ratio).size() or 0, 14 * 10**6)
