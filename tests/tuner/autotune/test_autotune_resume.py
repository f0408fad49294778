"""Going on from a ``tune_results.jsonl``, the original's own or ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.autotune.calls import experiment, prepared, search
from tests.tuner.autotune.repo import VALUES, original_record, write_repo
from tuner._store import RunStore
from tuner.cli import main
from tuner.compat.autotune import read_tune_results
from tuner.experiment import ExperimentError

OLD = "2026-01-02T03:04:05"
LATER = "2999-01-01T00:00:00"
"""After the scripts were written, as the records of a real run are."""


def write_results(repo: Path, records: Iterable[Mapping[str, Any]], torn: str = "") -> Path:
    file = repo / "tune_results.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records) + torn)
    return file


def only(name: str, *values: str) -> list[str]:
    """Flags that search one parameter."""
    space = {name: {"type": "enum", "values": list(values)}}
    start = {name: values[0]}
    return [
        *("--set", f"search.space={json.dumps(space)}"),
        *("--set", f"search.start={json.dumps(start)}", "--eval_runs", "2"),
    ]


def gpu() -> list[str]:
    return only("GPU_MEMORY_UTILIZATION", *VALUES)


def originals_choice(
    group: Iterable[Mapping[str, Any]], done: Iterable[str], threshold: float = 0.88
) -> Mapping[str, Any] | None:
    """The rule of ``auto_tune.py --skip_existing``: what was measured before is passed over, and
    the best of a group is the fastest of the rest that is accurate enough."""
    known = set(done)
    fresh = [one for one in group if one["trial_key"] not in known]
    good = [one for one in fresh if one["avg_accuracy"] >= threshold]
    return max(good, key=lambda one: one["avg_total_tps"], default=None)


def test_a_known_incumbent_is_not_replaced_by_something_worse(tmp_path: Path) -> None:
    """The fault of the original: from its second group on the current value is always known, so a
    worse one takes its place."""
    tps = {"0.97": 100.0, "0.98": 90.0, "0.99": 95.0}
    known = original_record(tps["0.97"])
    fresh = [original_record(tps[v], GPU_MEMORY_UTILIZATION=v) for v in VALUES[1:]]
    choice = originals_choice([known, *fresh], [known["trial_key"]])
    assert choice is not None and choice["avg_total_tps"] == 95.0, "the rule has its fault here"

    repo = write_repo(tmp_path)
    write_results(repo, [known])
    done, measured = search(
        experiment(repo, *gpu()), lambda point: tps[point["GPU_MEMORY_UTILIZATION"]]
    )
    assert [point["GPU_MEMORY_UTILIZATION"] for point in measured] == ["0.98", "0.99"]
    assert done.best is not None
    assert done.best.parameters == {"GPU_MEMORY_UTILIZATION": "0.97"}


def test_over_all_groups_the_best_never_gets_worse_than_what_is_known(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    write_results(repo, [original_record(1000.0)])
    done, measured = search(experiment(repo, "--eval_runs", "2"), lambda point: 500.0)
    assert len(measured) == 37, "all but the one that is known"
    assert done.best is not None
    assert done.best.parameters["GPU_MEMORY_UTILIZATION"] == "0.97"
    assert done.best.parameters["FREQUENCY_PENALTY"] == "0.1"


def test_a_file_that_knows_everything_leaves_nothing_to_measure(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    records = [original_record(100.0 + i, GPU_MEMORY_UTILIZATION=v) for i, v in enumerate(VALUES)]
    write_results(repo, records)
    done, measured = search(experiment(repo, *gpu()), lambda point: pytest.fail("measured again"))
    assert measured == []
    assert done.verdict == "satisfied" and done.best is not None
    assert done.best.parameters == {"GPU_MEMORY_UTILIZATION": "0.99"}


def test_no_skip_existing_measures_everything_in_a_run_of_its_own(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    write_results(repo, [original_record(100.0)])
    anew = experiment(repo, *gpu(), "--no-skip_existing")
    assert anew.name == "tune_results-2"
    _, measured = search(anew, lambda point: 1.0)
    assert len(measured) == 3


def test_crashes_are_not_tried_again_and_satisfy_nothing(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    crashed = original_record(0, status="crashed", ts=LATER, GPU_MEMORY_UTILIZATION="0.99")
    write_results(repo, [original_record(100.0), crashed])
    done, measured = search(experiment(repo, *gpu()), lambda point: 50.0)
    assert [point["GPU_MEMORY_UTILIZATION"] for point in measured] == ["0.98"]
    assert done.best is not None and done.best.parameters["GPU_MEMORY_UTILIZATION"] == "0.97"


def test_a_crash_from_before_a_script_was_changed_is_tried_again(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    crashed = original_record(0, status="crashed", ts=OLD, GPU_MEMORY_UTILIZATION="0.99")
    write_results(repo, [original_record(100.0, ts=OLD), crashed])
    _, measured = search(experiment(repo, *gpu()), lambda point: 50.0)
    assert [point["GPU_MEMORY_UTILIZATION"] for point in measured] == ["0.98", "0.99"]
    for script in ("run_model.sh", "eval_local.py"):
        os.utime(repo / script, (0, 0))
    (repo / "tune_runs" / "tune_results" / "ledger.jsonl").unlink()
    _, measured = search(experiment(repo, *gpu()), lambda point: 50.0)
    assert [point["GPU_MEMORY_UTILIZATION"] for point in measured] == ["0.98"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "partial"},
        {"status": "failed", "reason": "port 8000 still in use before start"},
        {"eval_ok_n": 1},
        {"avg_total_tps": None},
        {"avg_accuracy": "fast"},
        {"trial_key": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_whole_measurement_is_made_again(tmp_path: Path, change: dict[str, Any]) -> None:
    repo = write_repo(tmp_path)
    write_results(repo, [{**original_record(100.0, ts=LATER), **change}])
    _, measured = search(experiment(repo, *gpu()), lambda point: 50.0)
    assert len(measured) == 3


def test_torn_and_foreign_lines_cost_nothing_else(tmp_path: Path) -> None:
    good = original_record(100.0)
    file = write_results(tmp_path, [good, {"selftest": 1}], torn='{"ts": "2026-01-0')
    found = read_tune_results(file)
    assert list(found.trials) == [good["trial_key"]]
    assert found.broken == 2
    failed_later = [good, {**good, "status": "crashed"}]
    assert read_tune_results(write_results(tmp_path, failed_later)).trials[
        good["trial_key"]
    ].status == ("ok")
    assert read_tune_results(tmp_path / "none.jsonl").trials == {}


def test_a_results_file_that_cannot_be_read_is_a_fault_of_the_call(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    (repo / "tune_results.jsonl").symlink_to("tune_results.jsonl")
    with pytest.raises(ExperimentError, match="--results: cannot be read"):
        prepared("--repo", str(repo))


def test_accuracy_below_the_threshold_keeps_a_known_trial_out(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    write_results(repo, [{**original_record(900.0), "avg_accuracy": 0.85}])
    done, _ = search(experiment(repo, *gpu()), lambda point: 50.0)
    assert done.best is not None and done.best.parameters["GPU_MEMORY_UTILIZATION"] == "0.98"


def test_what_the_run_measured_itself_counts_only_for_the_same_question(tmp_path: Path) -> None:
    """The file has our own lines as well; with another evaluation they answer nothing."""
    repo = write_repo(tmp_path)
    _, first = search(experiment(repo, *gpu()), lambda point: 10.0)
    write_results(repo, [original_record(900.0, GPU_MEMORY_UTILIZATION=v) for v in VALUES])
    _, same = search(experiment(repo, *gpu()), lambda point: 20.0)
    (repo / "eval_local.py").write_text("print('other')\n")
    _, changed = search(experiment(repo, *gpu()), lambda point: 30.0)
    assert (len(first), len(same), len(changed)) == (3, 0, 3)


def begun(repo: Path, *words: str, finished: bool) -> None:
    """Leave a run as a session that was killed, or that ended, leaves it."""
    call = prepared("--repo", str(repo), *words)
    one = call.experiment()
    store = RunStore(one.storage)
    store.folder.mkdir(parents=True)
    record = store.begin(resume=False)
    record.finished = finished
    store.save_record(record)
    one.save(store.experiment_file)


def test_an_unfinished_run_goes_on_from_where_it_started(tmp_path: Path) -> None:
    """Its own best_params.json is not its start: it would be another search."""
    repo = write_repo(tmp_path)
    begun(repo, finished=False)
    start = prepared("--repo", str(repo)).document.data["search"]["start"]
    (repo / "best_params.json").write_text(json.dumps({**start, "MAX_MODEL_LEN": "2048"}))
    again = prepared("--repo", str(repo))
    assert again.resume
    assert again.document.data["search"]["start"] == start
    other = prepared("--repo", str(repo), "--accuracy_threshold", "0.9")
    assert not other.resume
    assert other.document.data["search"]["start"]["MAX_MODEL_LEN"] == "2048"


def test_after_a_finished_run_the_next_starts_from_its_best(tmp_path: Path) -> None:
    repo = write_repo(tmp_path)
    begun(repo, finished=True)
    start = prepared("--repo", str(repo)).document.data["search"]["start"]
    (repo / "best_params.json").write_text(json.dumps({**start, "MAX_MODEL_LEN": "2048"}))
    again = prepared("--repo", str(repo))
    assert not again.resume
    assert again.document.data["search"]["start"]["MAX_MODEL_LEN"] == "2048"


def test_a_results_file_that_a_run_cannot_read_is_said_plainly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = write_repo(tmp_path / "repo")
    assert main(["auto-tune", "--repo", str(repo), *gpu(), "--print-experiment"]) == 0
    file = tmp_path / "experiment.yaml"
    file.write_text(capsys.readouterr().out)
    (repo / "tune_results.jsonl").mkdir()
    assert main(["run", str(file), "--set", "cluster.dashboard=false"]) == 2
    said = capsys.readouterr().err
    assert "views[0].results" in said and "cannot be read: Is a directory" in said
    assert "Traceback" not in said
    assert "nothing was started" in said
