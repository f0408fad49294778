"""``history/`` is what ``msmodelslim tune`` writes, byte for byte, and keeps what it finds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.views.stories import (
    DATA,
    candidate,
    deliver,
    evaluation,
    failure,
    practices,
    story,
    told,
    tree,
    view,
)
from tuner.compat import TuneRequest, load_plan, translate
from tuner.views.msmodelslim import evaluation_md5, quantization_md5


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def choose(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    choose("UTC")
    yield choose
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ["binary_fallback", "standing_high"])
def test_every_file_is_byte_for_byte_what_the_original_wrote(
    tmp_path: Path, name: str, zone: Any
) -> None:
    records = yaml.safe_load((DATA / name / "history.yaml").read_text())["records"]
    tale = story(tmp_path, name)
    times = [f"{record['time'].replace(' ', 'T')}+00:00" for record in records]
    finished = [replace(item, at=at) for item, at in zip(tale.finished, times, strict=True)]
    view(tmp_path, name).update(replace(tale, finished=tuple(finished)))

    theirs = {file.name: file.read_text() for file in (DATA / name).glob("*.yaml")}
    ours = {file.name: file.read_text() for file in (tmp_path / "save/history").glob("*.yaml")}
    assert ours == theirs


@pytest.mark.parametrize("name", ["binary_fallback", "standing_high"])
def test_keys_are_those_of_the_original(name: str) -> None:
    keys = list(yaml.safe_load((DATA / name / "accuracy.yaml").read_text()))
    found = [f"{evaluation_md5(evaluation(name))}-{quantization_md5(p)}" for p in practices(name)]
    assert found == keys


@pytest.mark.parametrize("name", ["binary_fallback", "standing_high"])
def test_a_plan_that_we_read_has_the_key_of_the_original(tmp_path: Path, name: str) -> None:
    file, story_told = tmp_path / "plan.yaml", told(name)
    plan = {"strategy": story_told["strategy"], "evaluation": story_told["plan"]}
    file.write_text(yaml.safe_dump(plan, allow_unicode=True))
    request = TuneRequest(model_path=tmp_path, save_path=tmp_path / "save")
    (block,) = translate(load_plan(file), request).data["views"]
    assert evaluation_md5(block["evaluation"]) == evaluation_md5(evaluation(name))


def test_times_are_local_as_with_the_original(tmp_path: Path, zone: Any) -> None:
    zone("Asia/Shanghai")
    view(tmp_path).update(story(tmp_path))
    assert index(tmp_path)[0]["time"] == "2026-11-24 18:00:00"


def test_an_accuracy_stands_as_the_benchmark_printed_it(tmp_path: Path) -> None:
    tale = story(tmp_path, "standing_high")
    first = tale.finished[0]
    assert first.measurement is not None
    printed = {"gsm8k": {"values": {"accuracy": "0.50"}}}
    measurement = replace(first.measurement, data={"datasets": printed})
    item = replace(first, measurement=measurement)
    view(tmp_path, "standing_high").update(replace(tale, finished=(item,)))
    assert index(tmp_path)[0]["evaluation"]["accuracies"] == [
        {"dataset": "gsm8k", "accuracy": "0.50"}
    ]


def test_a_failure_is_no_accuracy(tmp_path: Path) -> None:
    tale = story(tmp_path)
    with_failures = (failure(7), tale.finished[0], failure(8), *tale.finished[1:], failure(9))
    view(tmp_path).update(replace(tale, finished=with_failures))
    assert [record["practice_id"] for record in index(tmp_path)] == ["bf_0", "bf_1", "bf_2"]
    assert len(accuracies(tmp_path)) == 3
    assert "'0" not in (tmp_path / "save/history/accuracy.yaml").read_text()


def test_nothing_measured_leaves_an_empty_index(tmp_path: Path) -> None:
    view(tmp_path).update(story(tmp_path, finished=(failure(0),)))
    assert (tmp_path / "save/history/history.yaml").read_text() == "records: []\n"


def test_a_candidate_that_nobody_judged_is_held_against_the_plan(tmp_path: Path) -> None:
    tale = story(tmp_path)
    unjudged = tuple(replace(item, satisfied=None, checks=()) for item in tale.finished)
    view(tmp_path).update(replace(tale, finished=unjudged))
    satisfied = [record["evaluation"]["is_satisfied"] for record in index(tmp_path)]
    assert satisfied == [False, True, True]


def test_the_last_record_is_the_answer_once_there_is_one(tmp_path: Path) -> None:
    tale = story(tmp_path)
    shown = view(tmp_path)
    shown.update(tale)
    assert [record["practice_id"] for record in index(tmp_path)][-1] == "bf_2"
    shown.update(deliver(tale, 1))
    assert [record["practice_id"] for record in index(tmp_path)] == ["bf_0", "bf_1", "bf_2", "bf_1"]


def test_the_same_story_twice_changes_nothing(tmp_path: Path) -> None:
    tale = deliver(story(tmp_path), 2)
    shown = view(tmp_path)
    assert shown.update(tale)
    before = tree(tmp_path / "save")
    stamps = {path: path.lstat().st_mtime_ns for path in (tmp_path / "save").rglob("*")}
    assert shown.update(tale) == ()
    assert not [note for note in view(tmp_path).update(tale) if "moved" in note]
    assert tree(tmp_path / "save") == before
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "save").rglob("*")} == stamps


def test_growing_trial_by_trial_comes_to_the_same_as_one_telling(tmp_path: Path) -> None:
    tale = story(tmp_path)
    shown = view(tmp_path)
    for count in range(len(tale.finished) + 1):
        assert shown.update(replace(tale, finished=tale.finished[:count])) == ()
    assert shown.update(deliver(tale, 2)) != ()
    grown = tree(tmp_path / "save")
    marker = "history/.npu-tuner.json"

    once = tmp_path / "once"
    view(once).update(deliver(story(once), 2))
    assert tree(once / "save") | {marker: ""} == grown | {marker: ""}


def test_what_a_shorter_story_does_not_tell_is_gone_but_its_accuracies_stay(tmp_path: Path) -> None:
    tale = story(tmp_path)
    view(tmp_path).update(tale)
    view(tmp_path).update(replace(tale, finished=tale.finished[:1]))
    assert practice_files(tmp_path) == {"bf_0.yaml"}
    assert len(accuracies(tmp_path)) == 3


def test_a_kill_between_any_two_changes_of_the_disk_leaves_a_readable_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before each change of the disk in turn: what is left reads, the next update heals."""
    whole = tmp_path / "whole"
    view(whole).update(story(whole))
    for budget in range(100):
        root = tmp_path / f"cut-{budget}"
        original_left(root)
        tale = story(root)
        with monkeypatch.context() as patch:
            for name in ("replace", "rename", "unlink", "symlink", "mkdir"):
                patch.setattr(os, name, Cut(budget).wrap(getattr(os, name)))
            Cut.made = 0
            try:
                view(root).update(tale)
                done = True
            except KeyboardInterrupt:
                done = False
        assert_readable(root)
        view(root).update(tale)
        assert "foreign" in accuracies(root)
        assert index(root) == index(whole)
        aside = [path.name for path in (root / "save").glob("history.before*")]
        assert aside == ["history.before"]
        if done:
            assert budget > 15
            return
    raise AssertionError("an update changes the disk more often than expected")


def test_the_history_of_the_original_is_moved_aside_and_its_accuracies_stay(tmp_path: Path) -> None:
    original_left(tmp_path)
    before = tree(tmp_path / "save/history")
    shown = view(tmp_path)
    notes = shown.update(story(tmp_path))
    assert any("history.before" in note for note in notes)
    assert tree(tmp_path / "save/history.before") == before
    assert accuracies(tmp_path)["foreign"] == FOREIGN["foreign"]
    assert len(accuracies(tmp_path)) == 4
    assert practice_files(tmp_path) == {"bf_0.yaml", "bf_1.yaml", "bf_2.yaml"}
    assert shown.update(story(tmp_path)) == ()


def test_the_original_working_in_the_folder_afterwards_is_noticed(tmp_path: Path) -> None:
    view(tmp_path).update(story(tmp_path))
    theirs = "records:\n- practice_id: bf_0\n"
    (tmp_path / "save/history/history.yaml").write_text(theirs)
    (tmp_path / "save/history/bf_0.yaml").write_text("theirs: 1\n")
    view(tmp_path).update(story(tmp_path))
    assert (tmp_path / "save/history.before/history.yaml").read_text() == theirs
    assert (tmp_path / "save/history.before/bf_0.yaml").read_text() == "theirs: 1\n"


def test_another_run_in_the_same_folder_gets_its_own_history(tmp_path: Path) -> None:
    view(tmp_path).update(story(tmp_path))
    other = story(tmp_path / "other", "standing_high")
    view(tmp_path, "standing_high").update(other)
    assert practice_files(tmp_path) == {f"Qwen3-W8A8_{n}.yaml" for n in range(3)}
    assert (tmp_path / "save/history.before/bf_0.yaml").exists()
    assert len(accuracies(tmp_path)) == 6


def test_accuracies_alone_are_taken_up_in_place(tmp_path: Path) -> None:
    history = tmp_path / "save/history"
    history.mkdir(parents=True)
    (history / "accuracy.yaml").write_text(yaml.safe_dump(FOREIGN))
    assert view(tmp_path).update(story(tmp_path)) == ()
    assert len(accuracies(tmp_path)) == 4
    assert not (tmp_path / "save/history.before").exists()


def test_accuracies_that_cannot_be_read_are_kept_aside(tmp_path: Path) -> None:
    history = tmp_path / "save/history"
    history.mkdir(parents=True)
    (history / "accuracy.yaml").write_text("a: [")
    (note,) = view(tmp_path).update(story(tmp_path))
    assert "accuracy.yaml.before" in note
    assert (history / "accuracy.yaml.before").read_text() == "a: ["
    assert len(accuracies(tmp_path)) == 3


def test_an_identifier_becomes_a_name_that_the_original_can_open(tmp_path: Path) -> None:
    tale = story(tmp_path)
    practice = practices("binary_fallback")[0]
    practice["metadata"]["config_id"] = "../Qwen3 W8A8/量化"
    one = candidate(tale.store, 0, practice, {"gsm8k": 70.0}, satisfied=False)
    view(tmp_path).update(replace(tale, finished=(one,)))
    (name,) = practice_files(tmp_path)
    assert index(tmp_path)[0]["practice_id"] == name.removesuffix(".yaml")
    assert name == "_._Qwen3_W8A8____0.yaml"


FOREIGN = {"foreign": {"accuracies": [{"dataset": "mmlu", "accuracy": "1.0"}], "x": None}}


class Cut:
    """A kill: after ``budget`` changes of the disk, no further one happens."""

    made = 0

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def wrap(self, function: Any) -> Any:
        def changed(*arguments: Any, **options: Any) -> Any:
            if Cut.made >= self._budget:
                raise KeyboardInterrupt
            Cut.made += 1
            return function(*arguments, **options)

        return changed


def original_left(root: Path) -> None:
    history = root / "save/history"
    history.mkdir(parents=True, exist_ok=True)
    (history / "history.yaml").write_text("records:\n- practice_id: bf_0\n")
    (history / "bf_0.yaml").write_text("theirs: 1\n")
    (history / "accuracy.yaml").write_text(yaml.safe_dump(FOREIGN))


def index(root: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load((root / "save/history/history.yaml").read_text())
    return list(document["records"])


def accuracies(root: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((root / "save/history/accuracy.yaml").read_text()))


def practice_files(root: Path) -> set[str]:
    names = {file.name for file in (root / "save/history").glob("*.yaml")}
    return names - {"history.yaml", "accuracy.yaml"}


def assert_readable(root: Path) -> None:
    """Every file is whole YAML, and the index names no practice that is missing."""
    history = root / "save/history"
    if not history.exists():
        return
    for file in history.glob("*.yaml"):
        assert yaml.safe_load(file.read_text()) is not None
    if (history / "history.yaml").exists():
        named = {record["practice_id"] for record in index(root)}
        assert named <= {file.stem for file in history.glob("*.yaml")}
