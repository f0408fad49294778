"""Accuracies of the original tool: used only where they answer the very question asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.views.stories import DATA, evaluation, practices
from tuner._store import RunStore
from tuner.views.msmodelslim import ImportedAccuracy, NotAnAccuracyFile

FILE = DATA / "binary_fallback/accuracy.yaml"


def tuner(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuner", "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def changed(entry: Any) -> dict[str, Any]:
    key = next(iter(yaml.safe_load(FILE.read_text())))
    return {key: entry}


def test_a_practice_finds_what_the_original_measured_of_it() -> None:
    imported, block = ImportedAccuracy(FILE), evaluation("binary_fallback")
    found = [imported.find(practice, block) for practice in practices("binary_fallback")]
    assert found == [
        {"gsm8k/accuracy": 70.0},
        {"gsm8k/accuracy": 82.5, "aime25/accuracy": 70.0},
        {"gsm8k/accuracy": 81.05, "aime25/accuracy": 66.7},
    ]
    assert (imported.usable, imported.zeros, imported.broken) == (3, 0, 0)


def test_metadata_does_not_matter_all_else_does() -> None:
    imported, block = ImportedAccuracy(FILE), evaluation("binary_fallback")
    practice = practices("binary_fallback")[0]
    assert imported.find(practice | {"metadata": {"config_id": "other"}}, block)
    assert imported.find(practice, block, metric="score") == {"gsm8k/score": 70.0}
    other = practice | {"spec": practice["spec"] | {"dataset": "other.jsonl"}}
    assert imported.find(other, block) is None
    block["inference_engine"]["port"] += 1
    assert imported.find(practice, block) is None


@pytest.mark.parametrize("zero", ["0", 0, "0.0", "0E+2"])
def test_a_zero_may_be_a_failed_benchmark_and_is_not_used(tmp_path: Path, zero: Any) -> None:
    entry = {"accuracies": [{"dataset": "gsm8k", "accuracy": zero}], "is_satisfied": False}
    file = tmp_path / "accuracy.yaml"
    file.write_text(yaml.safe_dump(changed(entry)))
    imported = ImportedAccuracy(file)
    assert imported.find(practices("binary_fallback")[0], evaluation("binary_fallback")) is None
    assert (imported.usable, imported.zeros) == (0, 1)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        [],
        {},
        {"accuracies": []},
        {"accuracies": 3},
        {"accuracies": [{"dataset": "gsm8k"}]},
        {"accuracies": [{"dataset": "gsm8k", "accuracy": "much"}]},
        {"accuracies": [{"dataset": "gsm8k", "accuracy": "NaN"}]},
        {"accuracies": [{"dataset": "gsm8k", "accuracy": "inf"}]},
    ],
)
def test_an_entry_that_says_nothing_is_left_out(tmp_path: Path, entry: Any) -> None:
    file = tmp_path / "accuracy.yaml"
    file.write_text(yaml.safe_dump(changed(entry)))
    imported = ImportedAccuracy(file)
    assert imported.find(practices("binary_fallback")[0], evaluation("binary_fallback")) is None
    assert (imported.usable, imported.broken) == (0, 1)


@pytest.mark.parametrize("text", ["a: [", "- 1", "text", "1: 2", b"\xff\xfe\xfa"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "accuracy.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(NotAnAccuracyFile, match=r"accuracy\.yaml"):
        ImportedAccuracy(file)


def test_nothing_is_imported_without_the_users_word(tmp_path: Path) -> None:
    run = tmp_path / "run"
    refused = tuner(FILE, "--into", run)
    assert refused.returncode == 2
    assert "--trust-same-model" in refused.stderr
    assert "3 accuracies" in refused.stderr
    assert not run.exists()


def test_what_is_imported_is_found_by_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ImportedAccuracy.of_run(run) is None
    done = tuner(FILE, "--into", run, "--trust-same-model", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["imported"] == 3
    imported = ImportedAccuracy.of_run(run)
    assert imported is not None
    assert imported.find(practices("binary_fallback")[0], evaluation("binary_fallback"))

    more = tuner(DATA / "standing_high/accuracy.yaml", "--into", run, "--trust-same-model")
    assert more.returncode == 0, more.stderr
    again = ImportedAccuracy.of_run(run)
    assert again is not None
    assert again.usable == 6
    lines = (run / "imported/imports.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["file"]).parent.name for line in lines] == [
        "binary_fallback",
        "standing_high",
    ]


def test_a_run_under_way_is_not_disturbed(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run").lock():
        refused = tuner(FILE, "--into", tmp_path / "run", "--trust-same-model")
    assert refused.returncode == 2
    assert "in use" in refused.stderr
    assert ImportedAccuracy.of_run(tmp_path / "run") is None


@pytest.mark.parametrize("case", ["no file", "no accuracies", "no run"])
def test_a_wrong_path_is_an_error_and_writes_nothing(tmp_path: Path, case: str) -> None:
    file, run = tmp_path / "accuracy.yaml", tmp_path / "run"
    run.mkdir()
    if case != "no file":
        file.write_text(FILE.read_text() if case == "no run" else "{}")
    if case == "no run":
        (run / "letter.txt").write_text("something else")
    before = sorted(run.iterdir())
    refused = tuner(file, "--into", run, "--trust-same-model")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr
    assert sorted(run.iterdir()) == before
