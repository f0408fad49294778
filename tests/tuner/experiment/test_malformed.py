"""Malformed experiment files: each fault is named with its path, and nothing is a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuner.experiment import ExperimentError, load_experiment

GOOD = """\
name: demo
trial: {type: rehearsal, layers: 8}
search: {type: binary_fallback}
objective:
  expectations: [{metric: accuracy, target: baseline, tolerance: 0.1}]
budget: {trials: 10, time: 1H}
cluster: {resources: {CPU: 1}}
storage: ./results
"""


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


CASES = {
    "empty file": ("", ""),
    "a list": ("- a\n- b\n", ""),
    "a word": ("hello", ""),
    "a tab": ("name:\n\t- x", ""),
    "unclosed bracket": ("name: [a", ""),
    "unclosed quote": ('name: "a', ""),
    "an object of Python": ("name: !!python/object/apply:os.system ['true']", ""),
    "undefined alias": ("name: *x", ""),
    "binary": ("\x00\x01\x02", ""),
    "no name": (replaced("name: demo\n", ""), "name"),
    "name with a slash": (replaced("demo", "../demo"), "name"),
    "name too long for a folder": (replaced("demo", "模" * 70), "name"),
    "name a number": (replaced("name: demo", "name: 5"), "name"),
    "unknown top key": (GOOD + "serach: {}\n", "serach"),
    "repeated top key": (GOOD + "name: again\n", "name"),
    "repeated inner key": (replaced("layers: 8", "layers: 8, layers: 9"), "trial.layers"),
    "no trial": (replaced("trial: {type: rehearsal, layers: 8}\n", ""), "trial"),
    "trial a word": (replaced("{type: rehearsal, layers: 8}", "rehearsal"), "trial"),
    "trial without type": (replaced("type: rehearsal, ", ""), "trial.type"),
    "unknown trial type": (replaced("type: rehearsal", "type: rehersal"), "trial.type"),
    "trial type a list": (replaced("type: rehearsal", "type: [rehearsal]"), "trial.type"),
    "unknown trial key": (replaced("layers: 8", "leyers: 8"), "trial.leyers"),
    "value out of range": (replaced("layers: 8", "layers: 0"), "trial.layers"),
    "word for a number": (replaced("layers: 8", "layers: many"), "trial.layers"),
    "no search": (replaced("search: {type: binary_fallback}\n", ""), "search"),
    "unknown strategy": (replaced("binary_fallback", "binary_falback"), "search.type"),
    "unknown search key": (
        replaced("binary_fallback}", "binary_fallback, depth: 3}"),
        "search.depth",
    ),
    "negative seed": (replaced("binary_fallback}", "binary_fallback, seed: -1}"), "search.seed"),
    "seed a word": (replaced("binary_fallback}", "binary_fallback, seed: x}"), "search.seed"),
    "grid without a space": (replaced("type: binary_fallback", "type: grid"), "search"),
    "bad parameter type": (
        replaced("binary_fallback}", "random, trials: 3, space: {x: {type: integer}}}"),
        "search.space.x",
    ),
    "low above high": (
        replaced(
            "binary_fallback}", "random, trials: 3, space: {x: {type: int, low: 5, high: 1}}}"
        ),
        "search.space.x",
    ),
    "no objective": (GOOD.split("objective:")[0] + "budget: {}\n", "objective"),
    "empty objective": (GOOD.split("objective:")[0] + "objective: {}\n", "objective"),
    "unknown metric": (replaced("metric: accuracy", "metric: acuracy"), "objective.expectations.0"),
    "negative tolerance": (
        replaced("tolerance: 0.1", "tolerance: -1"),
        "objective.expectations.0.tolerance",
    ),
    "tolerance of no number": (
        replaced("tolerance: 0.1", "tolerance: abc%"),
        "objective.expectations.0.tolerance",
    ),
    "target of no number": (
        replaced("target: baseline", "target: base"),
        "objective.expectations.0.target",
    ),
    "two demands on one metric": (
        replaced("0.1}]", "0.1}, {metric: accuracy, target: 1}]"),
        "objective",
    ),
    "zero trials": (replaced("trials: 10", "trials: 0"), "budget.trials"),
    "lower-case duration": (replaced("1H", "1h"), "budget.time"),
    "unknown failure class": (
        replaced("time: 1H", "retries: {oops: 1}"),
        "budget.retries",
    ),
    "negative resource": (replaced("CPU: 1", "CPU: -1"), "cluster"),
    "unknown cluster key": (
        replaced("resources: {CPU: 1}", "resource: {CPU: 1}"),
        "cluster.resource",
    ),
    "storage a URL": (replaced("./results", "s3://bucket/x"), "storage"),
    "storage a number": (replaced("./results", "7"), "storage"),
    "environment variable not set": (replaced("./results", "${NO_SUCH_VARIABLE}"), "storage"),
}


def test_the_pattern_they_are_made_from_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(GOOD)
    assert load_experiment(file).name == "demo"


@pytest.mark.parametrize("case", CASES)
def test_one_error_with_its_path(case: str, tmp_path: Path) -> None:
    text, path = CASES[case]
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(ExperimentError) as caught:
        load_experiment(file)
    problems = caught.value.problems
    assert [problem.path for problem in problems if problem.path.startswith(path)], str(
        caught.value
    )
    assert len({problem.path for problem in problems}) == 1, str(caught.value)
    assert str(file) in str(caught.value)
    assert all(problem.message for problem in problems)


@pytest.mark.parametrize("name", ["a", "Qwen3-8B_w8a8.v2", "7", "模型-一", "模" * 66, "x" * 100])
def test_names_are_letters_of_any_script(name: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(replaced("demo", f"'{name}'"), encoding="utf-8")
    assert load_experiment(file).name == name


def test_there_are_at_least_forty_of_them() -> None:
    assert len(CASES) >= 40


def test_all_faults_are_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "name: a b\n"
        "trial: {type: rehearsal, layers: 0, leyers: 3}\n"
        "search: {type: nothing}\n"
        "objective: {expectations: [{metric: accuracy}]}\n"
        "budget: {time: soon}\n"
    )
    with pytest.raises(ExperimentError) as caught:
        load_experiment(file)
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (1, "name"),
        (2, "trial.layers"),
        (2, "trial.leyers"),
        (3, "search.type"),
        (4, "objective.expectations.0.target"),
        (5, "budget.time"),
    ]


def test_the_command_line_says_it_plainly_and_exits_2(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(CASES["unknown strategy"][0])
    for command in (["run"], ["validate"], ["run", "--dry-run"], ["analyze"]):
        done = subprocess.run(
            [sys.executable, "-m", "tuner", *command, str(file)], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert f"{file}:3: search.type: unknown type 'binary_falback'" in done.stderr
        assert "Traceback" not in done.stderr
    missing = subprocess.run(
        [sys.executable, "-m", "tuner", "run", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 2
    assert "none.yaml: cannot be read: No such file" in missing.stderr
