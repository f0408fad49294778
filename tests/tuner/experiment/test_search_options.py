"""Options of a search that the trial knows already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

import trainables._types
from searchers import Json
from trainables import Steps, TrialRun, TrialType
from tuner.experiment import Experiment, ExperimentError, load_experiment

FILE = """\
name: demo
trial: {TRIAL}
search: {SEARCH}
objective: {maximize: requests_per_s}
"""


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: str = "shaped"
    devices: int = 2


class Shaped(TrialType):
    Options = Options

    def run(self, trial: TrialRun) -> Steps:
        raise NotImplementedError

    def identity(self, kind: str) -> Json:
        return {}

    def search_options(self) -> Mapping[str, Json]:
        one = {"devices": self.options.devices, "roles": ["prefill", "decode"]}
        return {"shapes": {"own": one}, "nothing_knows_this": 1}


@pytest.fixture(autouse=True)
def shaped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    types = trainables._types._TYPES
    monkeypatch.setattr(
        "tuner.experiment._experiment.trial_type",
        lambda name: Shaped if name == "shaped" else types.find(name),
    )
    yield


def load(tmp_path: Path, trial: str, search: str) -> Experiment:
    file = tmp_path / "experiment.yaml"
    file.write_text(FILE.replace("TRIAL", trial).replace("SEARCH", search))
    return load_experiment(file)


def shapes_searched(experiment: Experiment) -> set[str]:
    account = experiment.search.strategy().account()
    return {one["shape"] for one in account["instances"]}


def test_they_need_not_be_repeated(tmp_path: Path) -> None:
    experiment = load(tmp_path, "type: shaped", "type: pd_split, devices: 8")
    assert shapes_searched(experiment) == {"own"}


def test_what_the_user_wrote_stands(tmp_path: Path) -> None:
    search = "type: pd_split, devices: 8, shapes: {mine: {devices: 1}}"
    assert shapes_searched(load(tmp_path, "type: shaped", search)) == {"mine"}


def test_searches_without_such_options_are_not_told(tmp_path: Path) -> None:
    search = "type: random, trials: 2, space: {x: {type: bool}}"
    assert load(tmp_path, "type: shaped", search).search.type == "random"


def test_a_trial_that_knows_none_leaves_them_to_the_user(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="pd_split needs shapes"):
        load(tmp_path, "type: rehearsal", "type: pd_split, devices: 8")


def test_a_faulty_trial_is_not_also_a_fault_of_the_search(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError) as caught:
        load(tmp_path, "type: shaped, devices: some", "type: pd_split, devices: 8")
    assert "trial.devices" in str(caught.value)
    assert "shapes" not in str(caught.value)
