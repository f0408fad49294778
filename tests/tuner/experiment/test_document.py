"""Reading experiment files, and changing them from the command line and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.experiment import ExperimentError, load_experiment, read_document, to_yaml

TEXT = """\
name: demo
trial:
  type: rehearsal
  layers: 8
search: {type: binary_fallback}
objective:
  expectations:
    - {metric: accuracy, target: 0.9}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(TEXT)
    return path


def test_every_value_knows_its_line(file: Path) -> None:
    document = read_document(file)
    assert document.line("trial.layers") == 4
    assert document.line("objective.expectations.0.target") == 8
    assert document.line("trial.layers.nothing.there") == 4
    assert document.line("budget") is None


def test_set_replaces_and_adds_values_in_yaml_form(file: Path) -> None:
    experiment = load_experiment(
        file,
        [
            "trial.layers=16",
            "objective.expectations.0.target=0.5",
            "budget.time=1H",
            "cluster.resources={CPU: 2}",
        ],
    )
    assert experiment.trial.options.layers == 16
    assert str(experiment.objective.expectations[0].target) == "0.5"
    assert experiment.budget.time == 3600
    assert experiment.cluster.resources == {"CPU": 2}


@pytest.mark.parametrize(
    "assignment", ["trial", "=1", "trial..layers=1", "name.x=1: 2: 3", "objective.expectations.7=1"]
)
def test_a_bad_set_is_refused(file: Path, assignment: str) -> None:
    with pytest.raises(ExperimentError, match="--set"):
        read_document(file).set(assignment)


def test_environment_references_are_filled_in_and_stay_out_of_what_is_stored(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMIT", "3H")
    file.write_text(TEXT + "budget: {time: '${LIMIT}', trials: '${TRIALS:-7}'}\n")
    experiment = load_experiment(file)
    assert (experiment.budget.time, experiment.budget.trials) == (3 * 3600, 7)
    experiment.save(tmp_path / "saved.yaml")
    assert "${LIMIT}" in (tmp_path / "saved.yaml").read_text()


def test_what_is_saved_loads_as_the_same_experiment_from_anywhere(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(file, ["trial.layers=12"])
    saved = tmp_path / "saved.yaml"
    experiment.save(saved)
    monkeypatch.chdir("/")
    again = load_experiment(saved)
    assert again.storage == experiment.storage == tmp_path / "results" / "demo"
    assert again.trial.options == experiment.trial.options


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("-2.5E+3", -2500.0), ("1e5x", "1e5x"), ("0x1e5", 0x1E5)]
)
def test_numbers_with_an_exponent_are_numbers(file: Path, text: str, value: object) -> None:
    document = read_document(file)
    document.set(f"trial.x={text}")
    assert document.data["trial"]["x"] == value
    file.write_text(f"{TEXT}x: {text}\n")
    assert read_document(file).data["x"] == value


@pytest.mark.parametrize("text", ["1e5", "0x10", "yes", "3H", "1_000", "null", "${HOME}", "中文"])
def test_words_that_look_like_something_else_stay_words(file: Path, text: str) -> None:
    file.write_text(to_yaml({"name": "x", "word": text}))
    assert read_document(file).data["word"] == text
