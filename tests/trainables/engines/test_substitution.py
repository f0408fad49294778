"""``$NAME`` in arguments, and command lines split into arguments."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from trainables.engines import split_arguments
from trainables.engines._substitution import in_list, in_mapping, is_void, variables

VALUES: dict[str, Any] = {"A": 1, "B": 0.5, "AB": "x y", "ON": True, "NO": "", "NAN": math.nan}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--a", "$A", "--b", "${B}"], ["--a", "1", "--b", "0.5"]),
        (["--a=$A"], ["--a=1"]),
        (["$A$AB", "${A}B", "$ABC", "$A-B", "x$A"], ["1x y", "1B", "$ABC", "1-B", "x1"]),
        (["--on", "$ON"], ["--on", "True"]),
        (["--j", '{"n": $A, "on": $ON, "s": "$AB"}'], ["--j", '{"n": 1, "on": true, "s": "x y"}']),
        (["$UNKNOWN", "$", "$$", "$1"], ["$UNKNOWN", "$", "$$", "$1"]),
        (["${A", "${A:-3}"], ["${A", "${A:-3}"]),
        (["--x", "$NO", "--y", "$NAN", "--a", "$A"], ["--a", "1"]),
        (["--x=$NO", "--a"], ["--a"]),
        (["serve", "$NO", "--done"], ["serve", "--done"]),
        (["--c=1", "$NO"], ["--c=1"]),
    ],
)  # fmt: skip
def test_variables_in_a_command_line(given: list[str], expected: list[str]) -> None:
    assert in_list(given, VALUES) == expected


def test_what_is_put_in_is_not_looked_at_again() -> None:
    assert in_list(["$A"], {"A": "$B", "B": "2"}) == ["$B"]


def test_variables_in_a_mapping_keep_their_type() -> None:
    given = {"n": "$A", "on": "$ON", "deep": {"list": ["$B", "$NO", 3], "no": "$NAN"}, "t": "v$A"}
    assert in_mapping(given, VALUES) == {
        "n": 1,
        "on": True,
        "deep": {"list": [0.5, 3]},
        "t": "v1",
    }


@pytest.mark.parametrize("argument", ["x$NO", '{"a": $NO}', "--a=1$NAN"])
def test_a_hole_in_an_argument_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="has no value in this trial"):
        in_list([argument], VALUES)


@pytest.mark.parametrize("value", [None, "", "  ", math.nan, math.inf, -math.inf])
def test_void_values(value: Any) -> None:
    assert is_void(value)


@pytest.mark.parametrize("value", [0, 0.0, False, "0", [], {}])
def test_values_that_are_not_void(value: Any) -> None:
    assert not is_void(value)


def test_variables_of_a_program() -> None:
    own = {"A": "own", "B": "b", "C": "c"}
    tuned = {"A": 3, "C": None, "D": [1, {"x": True}], "E": math.inf}
    env, unset = variables(own, tuned)
    assert env == {"A": "3", "B": "b", "D": '[1,{"x":true}]'}
    assert unset == ("C", "E")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("--a 1  --flag", ["--a", "1", "--flag"]),
        ("--name 'with space' --b=2", ["--name", "with space", "--b=2"]),
        ("--n $N --m ${M}", ["--n", "$N", "--m", "${M}"]),
        ("""--c '{"x": $N, "y": "z"}'""", ["--c", '{"x": $N, "y": "z"}']),
        ("""'--c {"x": 1}' --d""", ["--c", '{"x": 1}', "--d"]),
        ("""\"--c '{\\"x\\": 1}'\"""", ["--c", '{"x": 1}']),
        ("""--c '{\\"x\\": [1]}'""", ["--c", '{"x": [1]}']),
        ("""--c '{"x"：1，"s": "中，文"}'""", ["--c", '{"x":1,"s": "中，文"}']),
        ("--c '{“x”：“y”}'", ["--c", '{"x":"y"}']),
        ("'--not json' '{not json}'", ["--not json", "{not json}"]),
    ],
)
def test_splitting(text: str, expected: list[str]) -> None:
    assert split_arguments(text) == expected


def test_what_is_split_is_substituted_into_json() -> None:
    words = split_arguments("""--speculative-config '{"num_speculative_tokens": $N}'""")
    assert json.loads(in_list(words, {"N": 3})[1]) == {"num_speculative_tokens": 3}


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(ValueError, match="quotation"):
        split_arguments("--a 'b")
