"""Files of a trained model: where they are, loaded again, and refused when they are not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.latency.cost_engine import device, serve
from trainables.latency import (
    LatencyError,
    Served,
    make_latency_model,
    train_latency,
    write_records,
)
from trainables.latency.imports import Imported, read_recordings

pytest.importorskip("xgboost")

SERVED = Served(config={})
NEW = [one.batch for one in serve(device, 100, seed=9, sequences=64, budget=1024)]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("profiles")
    for number, sequences in enumerate((8, 32)):
        records = serve(device, 250, seed=number, sequences=sequences, noise=0.01)
        write_records(folder / f"{number}.jsonl", records)
    (folder / "0.json").write_text(json.dumps({"max_num_seqs": 8}))
    return read_recordings(folder, "vllm")


@pytest.fixture(scope="module")
def trained(imported: Imported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "out"
    train_latency(imported, folder, "vllm")
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def load(folder: Path) -> Any:
    return make_latency_model({"type": "xgboost", "path": str(folder)}).model(SERVED)


def change(folder: Path, **values: object) -> None:
    path = folder / "latency_model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_files_are_where_the_original_has_them(trained: Path, imported: Imported) -> None:
    """Only formats that execute nothing."""
    files = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert files == {
        "bak/base/xgb_model.ubj",
        "model/xgb_model.ubj",
        "cache/train_data.csv",
        "req_id_and_decode_num.json",
        "latency_model.json",
        "model_card.json",
        "model_card.md",
    }
    rows = (trained / "cache/train_data.csv").read_text().splitlines()
    assert len(rows) == imported.iterations + 1


def test_xgboost_itself_can_read_the_trees(trained: Path) -> None:
    import xgboost

    booster = xgboost.Booster(model_file=str(trained / "bak/base/xgb_model.ubj"))
    card = json.loads((trained / "model_card.json").read_text())
    assert booster.num_boosted_rounds() == card["training"]["trees"]


def test_a_model_that_was_moved_predicts_the_same(trained: Path, copied: Path) -> None:
    here, there = load(trained), load(copied)
    assert [here.seconds(batch) for batch in NEW] == [there.seconds(batch) for batch in NEW]


def test_the_identity_is_of_the_content(trained: Path, copied: Path) -> None:
    def identity(folder: Path) -> object:
        return make_latency_model({"type": "xgboost", "path": str(folder)}).identity()

    assert identity(trained) == identity(copied)
    change(copied, offset=0.0)
    assert identity(trained) != identity(copied)


def test_the_same_seed_gives_the_same_files(
    trained: Path, imported: Imported, tmp_path: Path
) -> None:
    train_latency(imported, tmp_path, "vllm")
    for path in sorted(trained.rglob("*.*")):
        assert (tmp_path / path.relative_to(trained)).read_bytes() == path.read_bytes()


def test_the_card_says_what_one_needs_to_judge_it(trained: Path, imported: Imported) -> None:
    card = json.loads((trained / "model_card.json").read_text())
    assert card["data"]["iterations"] == imported.iterations
    assert {"all", "decode", "mixed"} <= set(card["held_out"])
    assert card["held_out"]["all"]["median"] < 0.05
    assert set(card["other_loads"]["all"]) == {"rows", "median", "p90", "p99", "bias"}
    counts = [point["trained_on"] for point in card["learning_curve"]]
    assert counts == sorted(counts)
    assert len(counts) > 1
    assert list(card["engine_settings"].values()) == [{"max_num_seqs": 8}]
    text = (trained / "model_card.md").read_text()
    assert card["data"]["sha256"] in text
    assert "max_num_seqs: 8" in text


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["latency_model.json", "bak/base/xgb_model.ubj"])
def test_a_torn_file_is_refused(copied: Path, name: str, share: float) -> None:
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(LatencyError, match=r"train it again") as caught:
        load(copied)
    assert str(copied / name) in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"format": "something else"},
        {"features": ["tokens"]},
        {"power": 2},
        {"offset": None},
        {"pause": -1},
        {"shares": {"tokens": 1}},
        {"shares": None},
        {"baseline": {"intercept": -1, "terms": []}},
        {
            "baseline": {
                "intercept": 1,
                "terms": [{"feature": 99, "low": 0, "high": 1, "weight": 1}],
            }
        },
        {"hull": {"low": [0], "high": [1], "cells": []}},
        {"trees": [{"left": [0], "right": [0], "feature": [0], "threshold": [0]}]},
        {"trees": [{"left": [1], "right": [2], "feature": [0], "threshold": [0]}]},
        {"trees": "none"},
    ],
)
def test_a_changed_file_is_refused(copied: Path, values: dict[str, object]) -> None:
    change(copied, **values)
    with pytest.raises(LatencyError, match=r"train it again"):
        load(copied)
    source = make_latency_model({"type": "xgboost", "path": str(copied)})
    assert [place for place, _ in source.problems()] == ["path"]


def test_trees_of_another_model_are_refused(copied: Path) -> None:
    path = copied / "bak/base/xgb_model.ubj"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LatencyError, match="belongs to another model"):
        load(copied)


def test_a_folder_of_the_original_is_recognised(copied: Path) -> None:
    (copied / "latency_model.json").unlink()
    with pytest.raises(LatencyError, match="msServiceProfiler trained it"):
        load(copied)


def test_a_missing_folder_is_a_problem_of_the_path(tmp_path: Path) -> None:
    source = make_latency_model({"type": "xgboost", "path": str(tmp_path / "none")})
    ((place, said),) = source.problems()
    assert place == "path"
    assert "python -m tuner train" in said


def test_a_whole_model_has_no_problems(trained: Path) -> None:
    assert make_latency_model({"type": "xgboost", "path": str(trained)}).problems() == []


def test_another_number_of_devices_than_was_recorded_is_refused(copied: Path) -> None:
    change(copied, shares={"tensor_parallel": 2})
    source = make_latency_model({"type": "xgboost", "path": str(copied)})
    with pytest.raises(LatencyError, match="tensor_parallel 2 and says nothing about 1"):
        source.model(SERVED)
    assert source.model(Served(config={}, tensor_parallel=2)).seconds(NEW[0]) > 0


def test_recordings_of_different_numbers_of_devices_are_not_mixed(tmp_path: Path) -> None:
    for ranks in (1, 2):
        write_records(tmp_path / f"{ranks}.jsonl", serve(device, 60, seed=ranks))
        (tmp_path / f"{ranks}.json").write_text(json.dumps({"tensor_parallel": ranks}))
    with pytest.raises(LatencyError, match="train one for each") as caught:
        train_latency(read_recordings(tmp_path, "vllm"), tmp_path / "out", "vllm")
    assert str(tmp_path / "2.jsonl") in str(caught.value)


def test_too_few_iterations_are_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "few.jsonl", serve(device, 49, seed=1))
    with pytest.raises(LatencyError, match="49 usable iterations"):
        train_latency(read_recordings(tmp_path, "vllm"), tmp_path / "out", "vllm")
    assert not (tmp_path / "out").exists()
