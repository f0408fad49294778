"""Results of the real AISBench 3.1, recorded with a tiny model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trainables.benchmarks import METRICS, ResultError, read_ais_bench_performance
from trainables.benchmarks._ais_bench_options import AisBenchOptions
from trainables.benchmarks._ais_bench_results import failures, find_performance
from trainables.benchmarks.run_ais_bench import _explained

DATA = Path(__file__).parent / "data" / "ais_bench"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recorded run that a test may change."""
    shutil.copytree(DATA / "plain" / "run" / "performances" / "served", tmp_path / "served")
    return tmp_path / "served"


def test_cells_with_units_become_numbers_under_our_names() -> None:
    metrics = read_ais_bench_performance(DATA / "plain")
    assert set(metrics) <= METRICS
    assert metrics["e2el_mean_s"] == 0.7687
    assert metrics["ttft_min_s"] == 0.0199
    assert metrics["tpot_p50_s"] == 0.0234
    assert metrics["itl_p99_s"] == 0.0591
    assert "ttft_p95_s" not in metrics
    assert (metrics["requests"], metrics["success_rate"], metrics["concurrency"]) == (12, 1, 8)
    assert metrics["output_tokens"] == 375
    tokens = metrics["output_tokens_per_s"] * metrics["duration_s"]
    assert tokens == pytest.approx(metrics["output_tokens"], rel=1e-3)


def test_a_run_is_found_from_all_its_folders() -> None:
    run = DATA / "plain" / "run"
    found = [
        read_ais_bench_performance(folder)
        for folder in (run.parent, run, run / "performances" / "served")
    ]
    assert found[0] == found[1] == found[2]


def test_a_percentile_that_was_asked_for_is_there() -> None:
    assert read_ais_bench_performance(DATA / "some_failed")["ttft_p95_s"] == 0.0546


def test_failed_requests_are_counted() -> None:
    assert read_ais_bench_performance(DATA / "some_failed")["success_rate"] == 7 / 12
    assert failures(find_performance(DATA / "some_failed")) == {"Bad Request": 5}


def test_requests_of_one_token_are_no_part_of_tpot() -> None:
    """AISBench counts each of three among ten as a TPOT of 0."""
    metrics = read_ais_bench_performance(DATA / "few_tokens")
    assert metrics["tpot_mean_s"] == pytest.approx(0.0137 * 10 / 7)
    assert metrics["tpot_max_s"] == 0.028
    assert not {"tpot_min_s", "tpot_p50_s", "tpot_p99_s"} & set(metrics)
    assert metrics["itl_p50_s"] == 0.0038


def test_without_details_a_spoiled_tpot_is_left_out(tmp_path: Path) -> None:
    for file in (DATA / "few_tokens").glob("workload.*"):
        shutil.copy(file, tmp_path)
    found = read_ais_bench_performance(tmp_path)
    assert {name for name in found if name.startswith("tpot")} == {"tpot_max_s"}


def test_one_token_each_has_neither_tpot_nor_itl() -> None:
    metrics = read_ais_bench_performance(DATA / "one_token")
    assert not [name for name in metrics if name.startswith(("tpot", "itl"))]


def test_all_units_of_time_are_known(folder: Path) -> None:
    _set_cell(folder, "TTFT", "Average", "5 us")
    _set_cell(folder, "TTFT", "Min", "2.5")
    _set_cell(folder, "TTFT", "Max", "1.5e1 s")
    metrics = read_ais_bench_performance(folder)
    assert metrics["ttft_mean_s"] == 5e-6
    assert (metrics["ttft_min_s"], metrics["ttft_max_s"]) == (2.5, 15)


def test_the_whole_run_is_read_of_several_stages(folder: Path) -> None:
    table = _rows(folder)
    _write_rows(folder, [{**row, "Stage": "stable", "Average": "1 ms"} for row in table] + table)
    assert read_ais_bench_performance(folder)["e2el_mean_s"] == 0.7687


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no table", "left no table of performance"),
        ("two tables", "holds 2 tables of performance: another.csv, synthetic.csv"),
        ("no rows", "has no rows"),
        ("other table", "has no columns Performance Parameters"),
        ("row twice", "has two rows TTFT"),
        ("two stages", "several stages, none of them total"),
        ("cell", "TTFT Average in .* is 'soon'"),
        ("unit", "TTFT Average in .* is '3 h'"),
        ("no totals", "there is no result"),
        ("torn totals", "cannot be read"),
        ("empty totals", "does not tell duration_s"),
        ("nothing succeeded", "all 12 requests failed"),
    ],
)
def test_what_is_no_measurement_is_refused(fault: str, said: str, folder: Path) -> None:
    _spoil(folder, fault)
    with pytest.raises(ResultError, match=said):
        read_ais_bench_performance(folder)


def test_why_nothing_was_measured_is_what_the_warm_up_said() -> None:
    log = (DATA / "nobody_there.log").read_text()
    error = _explained(1, log, AisBenchOptions(datasets="some_gen"))
    assert error.failure == "network"
    assert "Cannot connect to host 127.0.0.1:18799" in str(error)


def _spoil(folder: Path, fault: str) -> None:
    table, totals = folder / "synthetic.csv", folder / "synthetic.json"
    rows = _rows(folder)
    ttft = next(row for row in rows if row["Performance Parameters"] == "TTFT")
    match fault:
        case "no table":
            table.unlink()
        case "two tables":
            shutil.copy(table, folder / "another.csv")
        case "no rows":
            table.write_text(table.read_text().splitlines()[0] + "\n")
        case "other table":
            table.write_text("a,b\n1,2\n")
        case "row twice":
            _write_rows(folder, [*rows, ttft])
        case "two stages":
            _write_rows(folder, [{**row, "Stage": str(n % 2)} for n, row in enumerate(rows)])
        case "cell":
            _set_cell(folder, "TTFT", "Average", "soon")
        case "unit":
            _set_cell(folder, "TTFT", "Average", "3 h")
        case "no totals":
            totals.unlink()
        case "torn totals":
            totals.write_text(totals.read_text()[:100])
        case "empty totals":
            totals.write_text('{"Total Requests": {"total": 1}, "Success Requests": {"total": 1}}')
        case "nothing succeeded":
            document = json.loads(totals.read_text())
            totals.write_text(json.dumps({**document, "Success Requests": {"total": 0}}))


def _rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / "synthetic.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "synthetic.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _set_cell(folder: Path, name: str, column: str, cell: str) -> None:
    rows = _rows(folder)
    for row in rows:
        if row["Performance Parameters"] == name:
            row[column] = cell
    _write_rows(folder, rows)
