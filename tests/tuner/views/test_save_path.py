"""Weights, logs and outputs in the ``save_path``: right, free of charge, and nobody's loss."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.views.stories import deliver, evaluation, story, tree, view
from tuner.views import Story


def test_rounds_lead_to_the_weights_that_exist_and_go_with_them(tmp_path: Path) -> None:
    told = story(tmp_path)
    view(tmp_path).update(told)
    save = tmp_path / "save"
    for number in (1, 2, 3):
        weights = save / f"round_{number}/quantized/model.safetensors"
        assert weights.read_text() == f"weights {number - 1}"
    told.store.prune([told.finished[2].measurement.identity])  # type: ignore[union-attr]
    view(tmp_path).update(told)
    assert [path.name for path in save.glob("round_*")] == ["round_3"]


def test_the_delivered_weights_are_the_winners_and_not_the_last(tmp_path: Path) -> None:
    view(tmp_path).update(deliver(story(tmp_path), 1))
    save = tmp_path / "save"
    assert (save / "quant_model/model.safetensors").read_text() == "weights 1"
    assert (save / "round_2/quantized").resolve() == (save / "quant_model").resolve()
    assert [path.name for path in save.glob("round_*")] == ["round_2"]


def test_links_are_relative_and_survive_a_move_of_everything(tmp_path: Path) -> None:
    here = tmp_path / "here"
    view(here).update(deliver(story(here), 2))
    here.rename(tmp_path / "there")
    weights = tmp_path / "there/save/quant_model"
    assert not weights.readlink().is_absolute()
    assert (weights / "model.safetensors").read_text() == "weights 2"


def test_without_an_answer_the_last_one_stays(tmp_path: Path) -> None:
    told = deliver(story(tmp_path), 2)
    view(tmp_path).update(told)
    view(tmp_path).update(replace(told, verdict=None, best=None))
    assert (tmp_path / "save/quant_model/model.safetensors").exists()
    view(tmp_path).update(replace(told, verdict="exhausted", best=None))
    assert (tmp_path / "save/quant_model/model.safetensors").exists()


def test_a_link_follows_a_new_answer_of_the_same_run(tmp_path: Path) -> None:
    told = story(tmp_path)
    view(tmp_path).update(deliver(told, 1))
    assert not [note for note in view(tmp_path).update(deliver(told, 2)) if "moved" in note]
    assert (tmp_path / "save/quant_model/model.safetensors").read_text() == "weights 2"


@pytest.mark.parametrize("name", ["quant_model", "round_1/quantized"])
def test_weights_of_the_original_are_moved_aside_and_it_is_said_once(
    tmp_path: Path, name: str
) -> None:
    told = story(tmp_path)
    for content in ("first", "second"):
        theirs = tmp_path / "save" / name
        if theirs.is_symlink():
            theirs.unlink()
        theirs.mkdir(parents=True)
        (theirs / "model.safetensors").write_text(content)
        shown = view(tmp_path)
        told = deliver(told, 0)
        assert sum("moved to" in note for note in shown.update(told)) == 1
        assert shown.update(told) == ()
    aside = [tmp_path / "save" / f"{name}.before{suffix}" for suffix in ("", ".2")]
    assert [(path / "model.safetensors").read_text() for path in aside] == ["first", "second"]


def test_a_link_of_somebody_else_is_not_taken_away(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "save").mkdir()
    (tmp_path / "save/quant_model").symlink_to(elsewhere)
    view(tmp_path).update(deliver(story(tmp_path), 2))
    assert (tmp_path / "save/quant_model.before").resolve() == elsewhere
    assert (tmp_path / "save/quant_model/model.safetensors").exists()


def test_logs_are_those_of_the_trials(tmp_path: Path) -> None:
    told = with_logs(story(tmp_path))
    dead = told.store.trials / "failed"
    dead.mkdir()
    (dead / "engine.log").write_text("out of memory")

    view(tmp_path).update(told)
    save = tmp_path / "save"
    assert (save / "vllm_server.log").read_text() == "out of memory"
    assert {path.name: path.read_text() for path in (save / "aisbench_logs").iterdir()} == {
        "gsm8k_trial0.log": "gsm8k 0",
        "gsm8k_trial1.log": "gsm8k 1",
        "aime25_trial1.log": "aime25 1",
        "gsm8k_trial2.log": "gsm8k 2",
        "aime25_trial2.log": "aime25 2",
    }
    outputs = sorted((save / "aisbench_output").iterdir())
    assert len(outputs) == 5
    assert all(path.name.startswith("20261124_160833") for path in outputs)
    assert all((path / "results").is_dir() for path in outputs)


def test_logs_are_where_the_plan_wants_them(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    block = evaluation("binary_fallback")
    block["evaluation"]["aisbench"]["log_dir"] = str(logs)
    told = with_logs(story(tmp_path), logs)
    view(tmp_path, evaluation=block).update(told)
    assert (logs / "aime25_trial2.log").read_text() == "aime25 2"
    view(tmp_path, evaluation=block).update(replace(told, finished=told.finished[1:]))
    assert (logs / "aime25_trial1.log").read_text() == "aime25 2"
    assert sorted(path.name for path in logs.iterdir() if path.is_symlink()) == [
        f"{name}_trial{number}.log" for name in ("aime25", "gsm8k") for number in (0, 1)
    ]


def test_a_shorter_story_leaves_no_logs_of_trials_it_does_not_tell(tmp_path: Path) -> None:
    told = with_logs(story(tmp_path))
    view(tmp_path).update(told)
    theirs = tmp_path / "save/aisbench_logs/gsm8k_trial99.log"
    theirs.write_text("of the original")
    view(tmp_path).update(replace(told, finished=told.finished[:1]))
    names = {path.name for path in (tmp_path / "save/aisbench_logs").iterdir()}
    assert names == {"gsm8k_trial0.log", "gsm8k_trial99.log"}
    assert len(list((tmp_path / "save/aisbench_output").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_said_once_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "save").write_text("a file")
    shown, told = view(tmp_path), story(tmp_path)
    notes = shown.update(told)
    assert notes
    assert all("not up to date" in note for note in notes)
    assert shown.update(told) == ()
    (tmp_path / "save").unlink()
    shown.update(told)
    assert len(tree(tmp_path / "save")) > 5


def with_logs(told: Story, logs: Path | None = None) -> Story:
    """The story with what engine and benchmarks leave in the folders of its trials."""
    finished = []
    for number, item in enumerate(told.finished):
        measurement = item.measurement
        assert measurement is not None
        trial = told.store.trial_folder(measurement.identity)
        (trial / "engine.log").write_text(f"engine {number}")
        os.utime(trial / "engine.log", (number, number))
        datasets = {}
        for metric in measurement.metrics:
            name = metric.removesuffix("/accuracy")
            log = (logs or trial / "aisbench_logs") / f"{name}_trial{measurement.identity[:8]}.log"
            log.parent.mkdir(exist_ok=True)
            log.write_text(f"{name} {number}")
            datasets[name] = {"log": str(log)}
            results = trial / f"aisbench_output/{name}/output/20261124_160833/results"
            results.mkdir(parents=True)
        told_of = replace(measurement, data={"datasets": datasets})
        finished.append(replace(item, measurement=told_of))
    return replace(told, finished=tuple(finished))
