"""``python -m tuner replay`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from tests.tuner.replay.tables import SWEEP, task, write
from tuner.cli import main
from tuner.experiment import ExperimentError
from tuner.replay import Contender, read_contenders
from tuner.replay._strategies import expected_asks

OBJECTIVE = "max throughput, ttft <= 1"
TIMES = ("cpu_s_per_ask",)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tuner", "replay", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """The document, the command running in this process."""
    assert main(["replay", *map(str, arguments), "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    document: dict[str, Any] = json.loads(said.out)
    return document


def timeless(document: Any) -> Any:
    """The document without what a busy machine changes."""
    if isinstance(document, dict):
        return {key: timeless(value) for key, value in document.items() if key not in TIMES}
    return [timeless(item) for item in document] if isinstance(document, list) else document


def test_the_command_prints_json_and_says_what_it_means(tmp_path: Path) -> None:
    file = write(tmp_path, SWEEP)
    done = command(file, "--objective", OBJECTIVE, "--search", "random,grid", "--seeds", "6")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [result["strategy"] for result in document["results"]] == ["random", "grid"]
    assert "taken for parameters: tp, load, engine" in done.stderr
    assert "evaluations until within 5 % of the best" in done.stderr
    grid = document["results"][1]
    assert grid["evaluations_to_within"]["median"] == 4
    assert grid["evaluations_to_within"]["interval_of_median"] == [4, 4]
    assert grid["tasks"][0]["evaluations_to_within"]["per_seed"] == [4] * 6
    assert grid["tasks"][0]["best_found"]["throughput"] == 100
    # The grid: 10, 12, 60, 97, 15, 20, 100, 150 (too slow); its order is tp, load, engine.
    curve = grid["regret_curve"]["median"]
    assert curve == pytest.approx([90, 88, 40, 3, 3, 3, 0, 0])


def test_results_of_several_tasks_and_widths_are_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--objective", OBJECTIVE, "--space", "tp,load", "--by", "engine"]
    arguments += ["--search", "random", "--seeds", "9", "--workers", "1,3"]
    document = replayed(capsys, write(tmp_path, SWEEP), *arguments)
    assert [task["within"] for task in document["tasks"]] == [1, 1]
    assert [task["mean_at_random"] for task in document["tasks"]] == [2.5, 2.5]
    assert [result["workers"] for result in document["results"]] == [1, 3]
    alone, abreast = document["results"]
    needed = [task["evaluations_to_within"] for task in alone["tasks"]]
    assert alone["evaluations_to_within"]["median"] == median(one["median"] for one in needed)
    assert alone["evaluations_to_within"]["mean"] == pytest.approx(
        fmean(fmean(one["per_seed"]) for one in needed)
    )
    assert alone["ended"] == {"budget": 18}
    assert abreast["makespan"] < alone["makespan"]


def test_what_was_never_found_counts_as_one_more_than_the_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--objective", OBJECTIVE, "--search", "grid", "--seeds", "3", "--budget", "2"]
    (result,) = replayed(capsys, write(tmp_path, SWEEP), *arguments)["results"]
    assert result["never_found"] == {"count": 3, "share": 1.0}
    assert result["evaluations_to_within"]["median"] == 3
    assert result["tasks"][0]["evaluations_to_within"]["per_seed"] == [None] * 3
    assert result["time_to_within"] is None


def test_the_same_seeds_give_the_same_results_in_any_number_of_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [write(tmp_path, SWEEP), "--objective", OBJECTIVE, "--search", "random,tpe"]
    arguments += ["--seeds", "3", "--workers", "2"]
    alone = replayed(capsys, *arguments)
    assert timeless(alone) == timeless(replayed(capsys, *arguments))
    assert timeless(alone) == timeless(replayed(capsys, *arguments, "--processes", "2"))


def test_the_json_may_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results" / "replay.json"
    arguments = [str(write(tmp_path, SWEEP)), "--objective", OBJECTIVE, "--search", "random"]
    assert main(["replay", *arguments, "--seeds", "2", "--output", str(output), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(output.read_text())["format"] == 1


def test_a_run_that_may_stop_early_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--objective", OBJECTIVE, "--search", "grid", "--seeds", "1", "--until-found"]
    (result,) = replayed(capsys, write(tmp_path, SWEEP), *arguments)["results"]
    assert result["ended"] == {"found": 1}
    assert result["final_regret"]["median"] == pytest.approx(3)


def test_everything_wrong_is_said_at_once_and_nothing_is_run(tmp_path: Path) -> None:
    file = write(tmp_path, SWEEP)
    wrong = ["--objective", "max goodput", "--space", "tp,cards", "--search", "random,magic"]
    done = command(file, *wrong)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no column 'goodput'; there are: tp, load, engine, throughput, ttft" in done.stderr
    assert "no column 'cards'" in done.stderr
    assert "unknown strategy 'magic'; there are: " in done.stderr
    assert "3 problems; nothing was started" in done.stderr


def test_a_point_without_a_row_can_be_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, SWEEP.replace("    1,8,a,60,0.5\n", ""))
    arguments = [str(file), "--objective", OBJECTIVE, "--search", "grid", "--missing", "fail"]
    assert main(["replay", *arguments, "--quiet"]) == 2
    assert "use free, count or nearest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--seeds", "0"), ("--workers", "1,x"), ("--within", "120")]
)
def test_numbers_that_make_no_sense_are_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(["replay", "t.csv", "--objective", "max x", option, value])
    assert refusal.value.code == 2
    assert option in capsys.readouterr().err


def test_strategies_are_named_by_type_or_short_name_with_options() -> None:
    found = read_contenders("random, optuna{sampler: nsga2, population: 4},tpe{startup: 5} , pso")
    assert [(one.type, dict(one.options)) for one in found] == [
        ("random", {}),
        ("optuna", {"sampler": "nsga2", "population": 4}),
        ("optuna", {"sampler": "tpe", "startup": 5}),
        ("particle_swarm", {}),
    ]
    assert found[1].label == "optuna{sampler: nsga2, population: 4}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("random,random", "random stands twice"),
        ("random{speed: 3}", "random{speed: 3}: speed: unknown key; known keys: trials"),
        ("random{trials", "write a name, or name{option: value}"),
        ("random{[}", "is not valid YAML"),
        (" , ", "names no strategy; there are: "),
    ],
)
def test_strategies_that_cannot_be_understood_are_refused(text: str, said: str) -> None:
    with pytest.raises(ExperimentError) as refusal:
        read_contenders(text)
    assert said in str(refusal.value)


def test_the_length_of_a_strategy_is_its_budget_unless_it_says_otherwise(tmp_path: Path) -> None:
    space = task(tmp_path).space
    assert Contender("random", "random").strategy(space, seed=0, trials=5).most() == 5
    own = Contender("random", "random", {"trials": 3})
    assert own.strategy(space, seed=0, trials=5).most() == 3


def test_what_needs_no_length_is_ended_by_the_replay_alone(tmp_path: Path) -> None:
    space = task(tmp_path).space
    assert Contender("auto", "auto").strategy(space, seed=0, trials=5).most() == space.size()


def test_holes_in_the_table_lengthen_the_search_they_are_free_for() -> None:
    assert expected_asks(30, 100, 100, free=True) == 30
    assert expected_asks(30, None, 50, free=True) == 30
    assert expected_asks(30, 100, 50, free=False) == 30
    assert 60 < expected_asks(30, 1000, 500, free=True) < 90
    assert expected_asks(50, 100, 50, free=True) == 100
