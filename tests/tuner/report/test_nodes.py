"""What a report and the status say of the nodes of a run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.report.folders import (
    BEGUN,
    NODES,
    Folder,
    begun_split_run,
    cluster_run,
    rates,
    serving,
    serving_run,
)
from tuner._status import describe_status, read_status
from tuner.report import export_charts, read_run, report_page
from tuner.report._parts import Block, Code, Table


def blocks(path: Path, name: str) -> list[Block]:
    page = report_page(read_run(path))
    return [block for one in page.sections if one.name == name for block in one.blocks]


def tables(path: Path, name: str) -> list[Table]:
    return [block for block in blocks(path, name) if isinstance(block, Table)]


def bars(path: Path) -> list[dict[str, Any]]:
    page = report_page(read_run(path))
    (chart,) = (one for one in page.charts if one.name == "nodes")
    return list(chart.spec["data"]["values"])


def test_each_part_of_a_trial_is_on_its_node(tmp_path: Path) -> None:
    found = bars(cluster_run(tmp_path / "run"))
    one, two, bad = NODES
    where = {(bar["name"], bar["node"], bar["what"], bar["devices"]) for bar in found}
    assert {
        ("#0 prefill", one, "prefill", "1 NPU"),
        ("#3 candidate", one, "prefill", "1 NPU"),
        ("#3 candidate", two, "decode", "2 NPU"),
        ("#4 candidate", one, "mixed", "1 NPU"),
        ("#4 candidate", two, "mixed", "1 NPU"),
    } <= where
    failed = [bar for bar in found if bar["what"] == "failed"]
    assert [(bar["node"], bar["devices"]) for bar in failed] == [(bad, "not known")] * 2
    assert all(bar["seconds"] == 54.0 for bar in found)


def test_a_failed_trial_is_on_all_nodes_that_it_held(tmp_path: Path) -> None:
    one, two, bad = NODES
    folder = Folder(tmp_path / "run", serving("run", trial={"type": "disaggregated"}))
    device = {"class": "device", "stage": "deploy", "message": "NPU 0 is gone", "node": bad}
    folder.failed(device, on=one, also={two: 4, bad: 2})
    folder.failed({"class": "tool", "message": "no router"}, on=one, also={two: 4})
    path = folder.ends("failed")
    where = [(bar["name"], bar["node"], bar["what"], bar["devices"]) for bar in bars(path)]
    assert where == [
        ("#0 candidate", two, "failed elsewhere", "4 NPU"),
        ("#0 candidate", bad, "failed", "2 NPU"),
        ("#1 candidate", two, "failed", "4 NPU"),
    ]
    nodes, whereabouts = tables(path, "nodes")
    failed = [(row[0].text, row[1].text, row[2].text) for row in nodes.rows]
    assert failed == [(two, "0", "1"), (bad, "0", "1")]
    assert [row[2].text for row in whereabouts.rows] == [f"{bad}; also {two}", f"{one}; also {two}"]


def test_each_part_of_an_instance_is_on_its_node(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving(cluster={"resources": {"NPU": 1}}))
    one, two, _ = NODES
    folder.measured({"a": 1}, rates(1.0), on={"decode-1": one, "decode-1 part 2": two})
    path = folder.ends("satisfied", best={"a": 1})
    assert [(bar["node"], bar["what"]) for bar in bars(path)] == [(one, "decode"), (two, "decode")]
    *_, where = tables(path, "nodes")
    assert where.rows[0][2].text == f"{one}: decode-1; {two}: decode-1 part 2"


def test_bars_of_two_nodes_are_in_bands_of_their_own(tmp_path: Path) -> None:
    found = bars(cluster_run(tmp_path / "run"))
    bands = {
        node: (
            min(bar["low"] for bar in found if bar["node"] == node),
            max(bar["high"] for bar in found if bar["node"] == node),
        )
        for node in NODES
    }
    ordered = [bands[node] for node in NODES]
    assert all(above[1] < below[0] for above, below in itertools.pairwise(ordered))


def test_nodes_are_told_with_how_busy_they_were_and_why_one_is_excluded(tmp_path: Path) -> None:
    table, *_ = tables(cluster_run(tmp_path / "run"), "nodes")
    one, two, bad = (dict(zip(table.columns, row, strict=True))
                     for row in table.rows)  # fmt: skip
    assert one["node"].text == NODES[0]
    assert (one["trials"].text, two["trials"].text) == ("4", "3")
    span = 6 * 60.0
    assert one["held"].sort == pytest.approx(4 * 54 / span)
    assert two["held"].sort == pytest.approx((2 + 1 + 2) * 54 / (2 * span))
    assert bad["failed"].text == "2" and bad["held"].sort is None
    assert bad[""].text == "excluded since 2026-01-05 08:03:00 UTC: 2 device errors in a row"


def test_what_came_and_went_is_told(tmp_path: Path) -> None:
    _, moves, where = tables(cluster_run(tmp_path / "run"), "nodes")
    assert [[cell.text for cell in row] for row in moves.rows] == [
        ["3 min 0 s", "node left: 10.0.0.10 (n3)"]
    ]
    assert [row[2].text for row in where.rows][3:5] == [
        "10.0.0.2: prefill-1; 10.0.0.3: decode-1, decode-2",
        "10.0.0.2: mixed-1; 10.0.0.3: mixed-2",
    ]


def test_a_run_on_one_node_has_no_such_section(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(1.0), on={"mixed-1": NODES[0]})
    names = [one.name for one in report_page(read_run(folder.ends("satisfied"))).sections]
    assert "nodes" not in names and "cost" in names
    assert not blocks(serving_run(tmp_path / "older"), "nodes")


def test_repeated_failures_are_told_with_where_they_were(tmp_path: Path) -> None:
    table, *codes = blocks(cluster_run(tmp_path / "run"), "failures")
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[0]] == ["device", "0", "2"]
    first = codes[0]
    assert isinstance(first, Code)
    assert first.title == "#1 candidate, device in deploy on 10.0.0.10, repeated"


def test_a_split_that_was_given_up_says_what_it_could_reach(tmp_path: Path) -> None:
    table, *_ = tables(cluster_run(tmp_path / "run"), "splits")
    assert table.rows[1][-1].text == "given up: at most 100"


def test_splits_without_any_rate_make_no_chart(tmp_path: Path) -> None:
    page = report_page(read_run(begun_split_run(tmp_path / "run")))
    assert "splits" in [one.name for one in page.sections]
    assert "splits" not in [chart.name for chart in page.charts]


def test_the_answer_is_called_what_the_search_calls_it(tmp_path: Path) -> None:
    page = report_page(read_run(cluster_run(tmp_path / "run")))
    assert page.headline.startswith("Best: 1 x tp1 prefill + 2 x tp1 decode has output_tokens")
    assert len(page.headline) < 150 and page.notes[0].text.startswith("Xxx")
    (deploy,) = (one for one in page.sections if one.name == "deploy")
    commands = next(one for one in deploy.blocks if isinstance(one, Code))
    assert commands.text.splitlines()[-1].endswith("/best/router.sh")
    assert len(commands.text.splitlines()) == 4


def test_a_trial_of_a_driver_that_died_ends_where_it_was_last_heard_of(tmp_path: Path) -> None:
    """The time until the run was resumed is nobody's."""
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(1.0), on={"mixed-1": NODES[0]})
    start, later = BEGUN.timestamp() + 60, BEGUN.timestamp() + 36_000
    common = {"trial": "f" * 16, "number": 1, "kind": "candidate", "message": "", "failure": None}
    taken = {"event": "begun", "trial": "f" * 16, "address": NODES[1], "resources": {"NPU": 1}}
    with folder.store.events_file.open("a") as stream:
        for event in (
            {"ts": start, "event": "proposed", **common},
            {"ts": start + 5, **taken},
            {"ts": later + 10, **taken},
            {"ts": later + 70, "event": "measured", **common},
        ):
            stream.write(json.dumps(event) + "\n")
    record = folder.store.record()
    assert record is not None
    record.sessions.append({"pid": 2, "started": "2026-01-05T18:00:00+00:00", "ended": None})
    folder.store.save_record(record)
    attempts = [one for one in read_run(folder.ends("satisfied")).attempts if one.number == 1]
    assert [(one.status, one.started, one.ended) for one in attempts] == [
        ("lost", start + 5, start + 5),
        ("measured", later + 10, later + 70),
    ]


def test_the_chart_of_the_nodes_is_exported(tmp_path: Path) -> None:
    page = report_page(read_run(cluster_run(tmp_path / "run")))
    files = {file.name: file for file in export_charts(page, tmp_path / "pictures")}
    text = files["nodes.svg"].read_text()
    assert all(node in text for node in NODES) and "#3" in text
    assert files["nodes.png"].read_bytes().startswith(b"\x89PNG")


def test_every_node_is_named_beside_its_band(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    names = [f"10.0.0.{number}" for number in range(2, 14)]
    for name in names:
        folder.measured({"a": 1}, rates(1.0), on={"mixed-1": name})
    page = report_page(read_run(folder.ends("satisfied")))
    files = {file.name: file for file in export_charts(page, tmp_path / "pictures")}
    text = files["nodes.svg"].read_text()
    assert [name for name in names if f">{name}<" not in text] == []


def test_the_status_tells_of_several_nodes_and_of_excluded_ones(tmp_path: Path) -> None:
    said = describe_status(read_status(cluster_run(tmp_path / "run")))
    assert "3 nodes, room for 2 trials at once" in said
    assert (
        "node 10.0.0.10 gets no more trials since 2026-01-05T08:03:00Z: 2 device errors in a row"
    ) in said


def test_the_status_tells_where_trials_run() -> None:
    running = {
        "trial": "t", "kind": "candidate", "why": "next", "stage": "deploy", "stage_s": 3.0,
        "node": NODES[0],
    }  # fmt: skip
    status = {"name": "r", "state": "running", "storage": "s", "running": [running]}
    several = describe_status({**status, "nodes": {"living": 2, "width": 1, "excluded": []}})
    assert f"candidate deploy on {NODES[0]} for 3 s" in several
    assert "2 nodes, room for 1 trial at once" in several
    alone = describe_status({**status, "nodes": {"living": 1, "width": 1, "excluded": []}})
    assert "candidate deploy for 3 s" in alone and "nodes" not in alone
