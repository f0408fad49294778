"""Which trial ran where, read back from an event log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner._gantt import Bar, bars, draw, lanes, read_bars, spread, utilisation


def begun(trial: str, ts: float, node: str = "n1", npu: float = 1.0) -> dict[str, Any]:
    where = {"node": node, "address": f"10.0.0.{node[1:]}", "resources": {"CPU": 2, "NPU": npu}}
    return {"event": "begun", "trial": trial, "ts": ts, **where}


def ended(trial: str, ts: float, event: str = "measured", number: int = 0) -> dict[str, Any]:
    return {"event": event, "trial": trial, "ts": ts, "number": number, "kind": "candidate"}


def test_every_attempt_is_a_bar() -> None:
    log = [
        begun("x", 1.0),
        ended("x", 3.0, "retry"),
        begun("y", 3.0, "n2", 4.0),
        begun("x", 4.0, "n2"),
        ended("x", 6.0),
        {"event": "nodes", "message": "node joined", "ts": 5.0},
        begun("never ends", 6.0),
        ended("y", 7.0, "failed"),
        ended("reused", 8.0, "reused"),
    ]
    found = [(bar.node, bar.devices, bar.begun, bar.ended, bar.status) for bar in bars(log)]
    assert found == [
        ("n1", 1.0, 1.0, 3.0, "retry"),
        ("n2", 4.0, 3.0, 7.0, "failed"),
        ("n2", 1.0, 4.0, 6.0, "measured"),
    ]


def test_utilisation_is_the_share_of_device_time_that_was_held() -> None:
    log = [begun("x", 0.0, npu=2.0), begun("y", 0.0), ended("y", 5.0), ended("x", 10.0)]
    assert utilisation(bars(log), 4) == (2 * 10 + 1 * 5) / 40
    assert utilisation([], 4) == 0.0


def test_a_trial_on_several_nodes_has_a_bar_for_each_part() -> None:
    (bar,) = bars([begun("x", 1.0, npu=3.0), ended("x", 3.0)])
    places = {("10.0.0.1", "prefill"): 1.0, ("10.0.0.2", "decode"): 2.0}
    parts = spread(bar, places)
    assert [(one.node, one.part, one.devices) for one in parts] == [
        ("10.0.0.1", "prefill", 1.0),
        ("10.0.0.2", "decode", 2.0),
    ]
    assert utilisation(parts, 3) == utilisation([bar], 3) == 1.0
    assert spread(bar, {}) == [bar]


spans = st.builds(
    lambda node, devices, begin, seconds: Bar(
        0, "candidate", node, node, devices, begin, begin + seconds, "measured"
    ),
    st.sampled_from(["n1", "n2"]),
    st.sampled_from([1.0, 2.0, 4.0]),
    st.floats(0, 20),
    st.floats(0.5, 9),
)


@given(st.lists(spans, max_size=12))
def test_bars_never_cover_each_other(found: list[Bar]) -> None:
    found.sort(key=lambda bar: bar.begun)
    placed = list(zip(found, lanes(found), strict=True))
    for number, (one, low) in enumerate(placed):
        for other, base in placed[:number]:
            together = other.ended > one.begun and one.node == other.node
            apart = low + one.devices <= base or base + other.devices <= low
            assert apart or not together


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_it_is_drawn_from_the_file_of_a_run(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    log = [begun("x", 0.0, npu=2.0), begun("y", 0.0, "n2"), ended("y", 5.0), ended("x", 10.0)]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, log)) + '\n{"event": "torn')
    picture = tmp_path / f"gantt.{suffix}"
    draw(read_bars(file), picture, title="one run")
    text = picture.read_bytes()
    assert (b"10.0.0.2" in text or b"<svg" in text) if suffix == "svg" else text[1:4] == b"PNG"
