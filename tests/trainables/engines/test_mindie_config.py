"""Entries of MindIE's config.json by dotted path, and what is corrected in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainables.engines._mindie_config import (
    addressed,
    canonical,
    corrected,
    parsed,
    value_at,
    values_at,
    with_entries,
    written,
)

SCHEDULE = "BackendConfig.ScheduleConfig"


def document() -> Any:
    return {"a": {"b": 1, "list": [{"tp": 1}, 2]}, "s": "text"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("a.b", 2, {"a": {"b": 2, "list": [{"tp": 1}, 2]}, "s": "text"}),
        ("a.list.0.tp", 4, {"a": {"b": 1, "list": [{"tp": 4}, 2]}, "s": "text"}),
        ("a.list.2", 3, {"a": {"b": 1, "list": [{"tp": 1}, 2, 3]}, "s": "text"}),
        ("a.list.2.dp", 3, {"a": {"b": 1, "list": [{"tp": 1}, 2, {"dp": 3}]}, "s": "text"}),
        ("n.e.w", True, {**document(), "n": {"e": {"w": True}}}),
        ("n.0.w", [1], {**document(), "n": [{"w": [1]}]}),
        ("n.0.0", 1, {**document(), "n": [[1]]}),
    ],
)
def test_entries(path: str, value: Any, expected: Any) -> None:
    original = document()
    changed = with_entries(original, {path: value})
    assert changed == expected
    assert value_at(changed, path) == value
    assert original == document()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a.list.3", "no index of a list of 2"),
        ("a.list.x", "no index of a list of 2"),
        ("a.list.-1", "no index of a list of 2"),
        ("a.list.3.tp", "no index of a list of 2"),
        ("a.0", "but there is none"),
        ("s.x", "no x in 'text'"),
        ("s.x.y", "no x in 'text'"),
        ("a.b.c", "no c in 1"),
        ("a..b", "no path"),
        ("", "no path"),
        (".".join("abcdefghijk"), "at most 10"),
    ],
)
def test_paths_that_lead_nowhere(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_entries(document(), {path: 1})


def test_an_entry_does_not_share_its_value_with_who_gave_it() -> None:
    value = [1]
    changed = with_entries({}, {"a": value})
    value.append(2)
    assert changed == {"a": [1]}


def test_only_values_that_there_are() -> None:
    paths = ["a.list.0.tp", "a.list.5", "a.b.c", "nothing", "s"]
    assert values_at(document(), paths) == {"a.list.0.tp": 1, "s": "text"}


def test_a_prefill_batch_of_nothing_becomes_one() -> None:
    entries, notes = corrected({f"{SCHEDULE}.maxPrefillBatchSize": 0, "x.y": 0})
    assert entries == {f"{SCHEDULE}.maxPrefillBatchSize": 1, "x.y": 0}
    assert len(notes) == 1
    assert "kills the service" in notes[0]


def test_times_mean_nothing_where_batches_are_not_selected() -> None:
    times = {f"{SCHEDULE}.prefillTimeMsPerReq": 120, f"{SCHEDULE}.decodeTimeMsPerReq": 30}
    entries, notes = corrected({f"{SCHEDULE}.supportSelectBatch": False, **times})
    assert entries == {f"{SCHEDULE}.supportSelectBatch": False, **dict.fromkeys(times, 0)}
    assert len(notes) == 1
    again = corrected(entries)
    assert again == (entries, ())
    selected = {f"{SCHEDULE}.supportSelectBatch": True, **times}
    assert corrected(selected) == (selected, ())
    assert corrected(times) == (times, ())


def test_one_address_for_all_interfaces() -> None:
    found = addressed({"ServerConfig": {"maxLinkNum": 9}}, "127.0.0.1", 8000, "m", "/models/m")
    server = found["ServerConfig"]
    assert server["maxLinkNum"] == 9
    assert {server[key] for key in ("port", "managementPort", "metricsPort")} == {8000}
    assert {server[key] for key in ("ipAddress", "managementIpAddress")} == {"127.0.0.1"}
    model = found["BackendConfig"]["ModelDeployConfig"]["ModelConfig"][0]
    assert model == {"modelName": "m", "modelWeightPath": "/models/m"}


def test_what_decides_results() -> None:
    one = addressed({"ServerConfig": {"tlsCert": "a"}, "LogConfig": 1}, "::1", 1025, "m", "/m")
    other = addressed({"ServerConfig": {"tlsCert": "b"}, "LogConfig": 2}, "::1", 1026, "n", "/n")
    assert canonical(one) == canonical(other)
    tuned = with_entries(one, {f"{SCHEDULE}.maxBatchSize": 4})
    assert canonical(tuned) != canonical(one)
    assert canonical({}) == {}


def test_text_and_document() -> None:
    text = written({"名": "±", "n": [1]})
    assert text == '{\n    "名": "±",\n    "n": [\n        1\n    ]\n}\n'
    assert parsed(text) == json.loads(text)
    with pytest.raises(ValueError, match="line 1 column 2"):
        parsed("{nonsense")
    with pytest.raises(ValueError, match="no JSON object"):
        parsed("[]")
