"""Requests are understood as Ray understands them, or refused with a reason."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray._private.label_utils import validate_label_key, validate_label_selector_value

from cluster import Bundle, RequestError, parse_bundle, selects


def test_standard_names_may_be_written_in_any_case() -> None:
    bundle = parse_bundle({"cpu": 2, "Npu": 1, "npu_910b": 1, "GPU": 0}, {"pool": "in(a,b)"})
    assert bundle == Bundle({"CPU": 2, "NPU": 1, "npu_910b": 1}, {"pool": "in(a,b)"})


@pytest.mark.parametrize(
    ("resources", "labels", "message"),
    [
        ({}, {}, "some resource"),
        ({"CPU": 0}, {}, "some resource"),
        ({"CPU": -1}, {}, "CPU must be 0 or more"),
        ({"CPU": float("nan")}, {}, "CPU must be 0 or more"),
        ({"CPU": float("inf")}, {}, "CPU must be 0 or more"),
        ({"CPU": "2"}, {}, "CPU must be a number"),
        ({"CPU": True}, {}, "CPU must be a number"),
        ({"CPU": 0.00001}, {}, "at least 0.0001"),
        ({"cpu": 1, "CPU": 2}, {}, "CPU is given twice"),
        ({"NPU": 1.5}, {}, "NPU must be whole above 1"),
        ({"CPU": 1}, {"pool": ""}, "not a selector"),
        ({"CPU": 1}, {"pool": "in()"}, "not a selector"),
        ({"CPU": 1}, {"pool": "a b"}, "not a selector"),
        ({"CPU": 1}, {"pool": 910}, "not a selector"),
        ({"CPU": 1}, {"a pool": "x"}, "not a label key"),
    ],
)
def test_nonsense_is_refused(
    resources: dict[str, float], labels: dict[str, str], message: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        parse_bundle(resources, labels)


@pytest.mark.parametrize(
    ("selector", "passing"),
    [
        ("a", {"a"}),
        ("!a", {"b", "c", None}),
        ("in(a,b)", {"a", "b"}),
        ("in(a, b)", {"a", "b"}),
        ("!in(a,b)", {"c", None}),
    ],
)
def test_selectors_pass_the_values_they_name(selector: str, passing: set[str | None]) -> None:
    assert {value for value in ("a", "b", "c", None) if selects(selector, value)} == passing


selector_like = st.text(alphabet="ab9-_.!(), in", max_size=12)


@given(selector_like)
def test_ray_understands_every_selector_that_is_accepted(selector: str) -> None:
    try:
        parse_bundle({"CPU": 1}, {"pool": selector})
    except RequestError:
        bare_group = selector.lstrip("!").startswith("(")
        assert validate_label_selector_value(selector) is not None or not selector or bare_group
    else:
        assert validate_label_selector_value(selector) is None


@given(st.text(alphabet="ab9-_./", max_size=12))
def test_ray_understands_every_label_key_that_is_accepted(key: str) -> None:
    try:
        parse_bundle({"CPU": 1}, {key: "x"})
    except RequestError:
        return
    assert validate_label_key(key) is None
