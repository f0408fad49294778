"""Objectives as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.experiment import ExperimentError
from tuner.replay import read_objective
from tuner.replay._objective import metrics_of

COLUMNS = [
    "tp",
    "output_throughput",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "Cost ($/h, all)",
]


def read(text: str, notes: list[str] | None = None) -> dict[str, object]:
    objective = read_objective(text, COLUMNS, [].append if notes is None else notes.append)
    return objective.model_dump(exclude_defaults=True)


def limit(metric: str, **bounds: float) -> dict[str, object]:
    return {"metric": metric, **bounds}


@pytest.mark.parametrize(
    "text",
    [
        "max output_throughput, mean_ttft_ms<=2000, mean_tpot_ms<=30",
        "maximize output_throughput subject to mean_ttft_ms <= 2000 and mean_tpot_ms <= 30",
        "Maximise Output Throughput s.t. 2000 >= mean_ttft_ms; mean_tpot_ms < 30ms",
        "highest throughput while mean-ttft-ms ≤ 2,000 & tpot =< 3e1",
        "{maximize: output_throughput, limits: [{metric: mean_ttft_ms, max: 2000}, "
        "{metric: mean_tpot_ms, max: 30}]}",
        '{"objective": {"maximize": ["output_throughput"], "limits": '
        '[{"metric": "mean_ttft_ms", "max": 2000}, {"metric": "mean_tpot_ms", "max": 30}]}}',
    ],
)
def test_the_same_objective_in_many_words(text: str) -> None:
    assert read(text) == {
        "maximize": ("output_throughput",),
        "limits": [limit("mean_ttft_ms", max=2000.0), limit("mean_tpot_ms", max=30.0)],
    }


@pytest.mark.parametrize("text", ["min Cost ($/h, all)", 'minimize "cost ($/h, all)"'])
def test_names_with_blanks_and_commas_are_understood(text: str) -> None:
    assert read(f"{text}, throughput >= 5") == {
        "minimize": ("Cost ($/h, all)",),
        "limits": [limit("output_throughput", min=5.0)],
    }


def test_equality_bounds_from_both_sides() -> None:
    assert read("min tpot, tp = 2")["limits"] == [limit("tp", max=2.0, min=2.0)]


def test_a_name_that_is_not_written_out_is_said() -> None:
    notes: list[str] = []
    read("max throughput", notes)
    assert notes == ["throughput in the objective is taken for column 'output_throughput'"]


def test_the_block_of_an_experiment_file(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("name: x\nobjective:\n  minimize: mean_tpot_ms\n")
    assert read(str(file)) == {"minimize": ("mean_tpot_ms",)}


def test_the_fitness_needs_the_metrics_it_is_made_of() -> None:
    columns = ["output_tokens_per_s", "ttft_mean_s", "tpot_mean_s", "success_rate"]
    objective = read_objective("{fitness: {ttft_slo: 1}}", columns, [].append)
    assert metrics_of(objective) == columns
    with pytest.raises(ExperimentError, match="no column 'success_rate'"):
        read_objective("{fitness: {ttft_slo: 1}}", columns[:3], [].append)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max ttft", "'ttft' could be 'mean_ttft_ms' or 'p99_ttft_ms'; write one of them"),
        ("max outputthroughputs", "did you mean 'output_throughput'?"),
        ("max goodput", "no column 'goodput'; there are: tp, output_throughput"),
        ("mean_ttft_ms <= 3", "name a metric to maximize or minimize; write for example"),
        ("max throughput, tpot <= fast", "the limit of tpot must be a number, not 'fast'"),
        ("max throughput, tp <= 2 s", "in the column's unit, without 's'"),
        ("max throughput, 1 <= tpot <= 3", "has several signs"),
        ("throughput", "cannot understand 'throughput'; write for example"),
        ("{maximise: tp}", "unknown key; known keys: expectations, fitness, limits, maximize"),
        ("{maximize: [tp", "is not valid YAML"),
        ("there/is/no.yaml", "there is no file there/is/no.yaml"),
        ("{expectations: [{target: baseline}]}", "name a metric to maximize or minimize"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ExperimentError) as refusal:
        read(text)
    assert said in str(refusal.value)
    assert "--objective" in str(refusal.value)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(ExperimentError) as refusal:
        read("max goodput, latency <= 3, ttft >= 1")
    assert len(refusal.value.problems) == 3
