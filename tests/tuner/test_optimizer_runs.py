"""``optimizer`` as its users start it: shipped settings, smaller numbers, stubs in the place of all
engines and tools."""

from __future__ import annotations

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.optimizer import COLUMNS, TAIL, Table, World, cost
from tests.tuner.runs import (
    Run,
    assert_nothing_left,
    assert_nothing_measured_twice,
    events,
    ledger,
)

pytestmark = pytest.mark.ray

VLLM_FIELDS = ["MAX_NUM_BATCHED_TOKENS", "MAX_NUM_SEQS", "CONCURRENCY", "REQUESTRATE"]
MINDIE_FIELDS = [
    *("max_batch_size", "max_prefill_batch_size", "prefill_time_ms_per_req"),
    *("decode_time_ms_per_req", "support_select_batch", "max_queue_deloy_mircroseconds"),
    *("max_preempt_count", "CONCURRENCY", "REQUESTRATE"),
]
SMALL = {"n_particles": 2, "iters": 2, "num_prompts": 24, "sample_size": 16}


def assert_costs(table: Table, target: float, ttft_slo: float = 1.0) -> None:
    """Every row's fitness is what the original's formula makes of the row's own metrics."""
    for row in table.rows:
        expected = cost(row, target, ttft=(1, ttft_slo), tpot=(0, 0.05))
        assert math.isclose(float(row["fitness"]), expected, rel_tol=1e-9), row


def delivered(run: Run, name: str) -> Any:
    text = (run.folder / "best" / name).read_text()
    return json.loads(text) if name.endswith(".json") else text


def candidates(run: Run) -> list[dict[str, Any]]:
    return [item for item in ledger(run.folder) if item["kind"] == "candidate"]


def assert_sound(run: Run) -> None:
    assert_nothing_measured_twice(run.folder)
    assert_nothing_left(run.folder)


@pytest.mark.parametrize("engine", ["vllm", "mindie"])
def test_shipped_settings_are_a_valid_plan(engine: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    run = (world.with_vllm() if engine == "vllm" else world.with_mindie()).run("--dry-run")
    assert run.process.returncode == 0
    assert "particle_swarm: at most 50 trials" in run.stdout
    assert not run.folder.exists()


def test_vllm_with_a_candidate_that_cannot_start(tmp_path: Path) -> None:
    world = World(tmp_path, tpot=0.03).with_vllm(**SMALL)
    # Of two particles one begins in the upper half of the range.
    world.environment["STUB_MOST_SEQS"] = "272"
    run = world.run()
    assert run.process.returncode == 0
    assert run.result()["verdict"] == "satisfied"

    table = world.table()
    assert re.fullmatch(r"data_storage_\d{14}\.csv", table.file.name)
    prefix = [*COLUMNS, *VLLM_FIELDS, *TAIL]
    assert table.columns[: len(prefix)] == prefix
    verified = table.of("verification")
    phases = ["baseline", *["candidate"] * 4, *["verification"] * len(verified)]
    assert [row["phase"] for row in table.rows] == phases
    baseline, *measured = table.rows
    assert [baseline[name] for name in VLLM_FIELDS] == ["8192", "64", "100", "0"]
    assert {row["num_prompts"] for row in table.of("candidate")} == {"16"}
    assert {row["CONCURRENCY"] for row in measured} == {"1000"}
    assert {row["REQUESTRATE"] for row in measured} == {"0"}
    failed = [row for row in table.rows if int(row["MAX_NUM_SEQS"]) > 272]
    assert failed
    for row in failed:
        assert "NPU out of memory" in row["error"]
        assert [row[name] for name in COLUMNS] == [""] * 5
        assert row["fitness"] == "inf"
    good = [row for row in table.rows if row not in failed]
    assert not any(row["error"] for row in good)
    assert {row["success_rate"] for row in good} == {"1.0"}
    assert {row["real_evaluation"] for row in table.rows} == {"True"}
    assert_costs(table, 5000.0)

    best = min(table.of("candidate"), key=lambda row: float(row["fitness"]))
    assert verified[0]["MAX_NUM_SEQS"] == best["MAX_NUM_SEQS"]
    point = delivered(run, "operating_point.json")
    assert point["load"] == {"concurrency": 1000}
    speed = point["measured"]["output_tokens_per_s"]
    (chosen,) = [row for row in verified if float(row["generate_speed"]) == speed]
    assert f"--max-num-seqs {chosen['MAX_NUM_SEQS']}" in delivered(run, "serve.sh")
    assert chosen["num_prompts"] == baseline["num_prompts"] == "24"
    assert_sound(run)


def test_mindie_and_aisbench_with_a_backup(tmp_path: Path) -> None:
    world = World(tmp_path, ttft=0.05).with_mindie(**SMALL | {"n_particles": 1})
    world.environment["CONCURRENCY"] = "2"
    installed = world.installed.read_bytes()
    run = world.run("--backup")
    assert run.process.returncode == 0
    assert world.installed.read_bytes() == installed

    table = world.table()
    prefix = [*COLUMNS, *MINDIE_FIELDS, *TAIL]
    assert table.columns[: len(prefix)] == prefix
    baseline, *measured = table.rows
    in_use = ["200", "50", "150", "50", "True", "5000", "0", "2", "100.0"]
    assert [baseline[name] for name in MINDIE_FIELDS] == in_use
    assert {row["CONCURRENCY"] for row in measured} == {"1001"}
    assert_costs(table, 10 * float(baseline["generate_speed"]))

    for item in candidates(run):
        first, second = item["data"]["runs"]
        reached = first["metrics"]["requests_per_s"]
        assert math.isclose(second["request_rate"], 1.05 * reached, rel_tol=1e-9)
        assert first["metrics"]["requests"] == second["metrics"]["requests"] == 16

    for number, row in enumerate(table.rows, start=1):
        copies = world.output / "bak" / str(number)
        assert row["backup"] == str(copies)
        assert list(copies.glob("Simulator/engine/config-*.json"))
        assert list(copies.glob("AisBench/benchmark-*/**/performances/*/*.csv"))

    config, parameters = delivered(run, "config.json"), delivered(run, "parameters.json")
    schedule = config["BackendConfig"]["ScheduleConfig"]
    assert schedule["maxBatchSize"] == parameters["max_batch_size"]
    assert schedule["maxPrefillBatchSize"] == parameters["max_prefill_batch_size"]
    assert config["备注"] == json.loads(installed)["备注"]
    assert "mindieservice_daemon" in delivered(run, "serve.sh")
    assert delivered(run, "operating_point.json")["load"]["concurrency"] == 1001
    assert_sound(run)

    again = world.run("-lb", "--backup")
    assert again.process.returncode == 0
    assert again.result()["trials_run"] == 0
    assert again.result()["best"] == run.result()["best"]


def _two_and_another(run: Run) -> bool:
    """Two candidates are measured, and the next engine is on its way."""
    if len(candidates(run)) < 2:
        return False
    begun = [event["number"] for event in events(run.folder, "proposed")]
    ended = [event["number"] for event in events(run.folder, "measured")]
    return max(begun) > max(ended)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    world = World(tmp_path, start_delay=0.2).with_vllm(**SMALL)
    first = world.start()
    first.until(_two_and_another)
    first.signal(signal.SIGKILL)
    first.wait()
    assert_nothing_left(first.folder)
    known = ledger(first.folder)
    rows = world.table().rows

    second = world.run("-lb")
    assert second.process.returncode == 0
    assert ledger(second.folder)[: len(known)] == known
    assert len(candidates(second)) == 4
    assert second.result()["trials_run"] == len(ledger(second.folder)) - len(known)
    table = world.table()
    assert table.rows[: len(rows)] == rows
    assert [row["phase"] for row in table.rows][:5] == ["baseline", *["candidate"] * 4]
    assert_sound(second)


FOREIGN = ["12000.5,0.2,0.01,1.0,80.0,20000,250,1000,0.0,,,61.2,True,0.5,16"]


def write_foreign(world: World, *rows: str) -> Path:
    """A table as the original leaves it."""
    file = world.output / "store" / "data_storage_20250101000000.csv"
    file.parent.mkdir(parents=True)
    header = ",".join([*COLUMNS, *VLLM_FIELDS, *TAIL])
    file.write_text("".join(f"{line}\r\n" for line in (header, *rows)), newline="")
    return file


def test_what_the_original_measured_is_learned_and_not_delivered(tmp_path: Path) -> None:
    world = World(tmp_path).with_vllm(**SMALL | {"n_particles": 1, "iters": 1})
    other_load = FOREIGN[0].replace(",16", ",3000")
    file = write_foreign(world, *FOREIGN, other_load)
    before = file.read_bytes()
    run = world.run("-lb")
    assert run.process.returncode == 0
    assert "1 rows left out: measured with 3000 requests, not 16" in " ".join(run.said().split())
    settings = yaml.safe_load((run.folder / "experiment.yaml").read_text())
    assert settings["search"]["known"] == [str(file)]
    (candidate,) = candidates(run)
    assert candidate["parameters"] == {"MAX_NUM_BATCHED_TOKENS": 20000, "MAX_NUM_SEQS": 250}
    measured = delivered(run, "operating_point.json")["measured"]
    assert measured["output_tokens_per_s"] < 12000
    assert file.read_bytes() == before
    own = Table(max((world.output / "store").glob("data_storage_2*.csv")))
    assert own.file != file
    assert [row["phase"] for row in own.rows] == ["baseline", "candidate", "verification"]
    assert_sound(run)


@pytest.mark.slow
def test_the_load_of_the_best_is_refined_on_one_engine_each(tmp_path: Path) -> None:
    numbers = {"n_particles": 3, "iters": 1, "num_prompts": 64, "pso_top_k": 2, "ttft_slo": 0.22}
    # With the 16 slots there are at most, 64 requests at once wait for 0.26 s on average.
    world = World(tmp_path, ttft=0.1).with_vllm(**SMALL | numbers)
    run = world.run(settings=("trial.refine.high=64",))
    assert run.process.returncode == 0
    table = world.table()
    refined = [item for item in ledger(run.folder) if item["kind"] == "verification"]
    assert len(refined) == 2
    for item in refined:
        *short, last = item["data"]["runs"]
        assert len(short) > 1
        assert last["full"]
        log = run.folder / "trials" / item["identity"][:16] / "engine.log"
        assert log.read_text().count("stub engine: ") == 1
    kept = [row for row in table.of("verification") if float(row["time_to_first_token"]) <= 0.22]
    assert kept
    assert {row["num_prompts"] for row in table.of("verification")} == {"64"}
    best = min(kept, key=lambda row: float(row["fitness"]))
    load = delivered(run, "operating_point.json")["load"]
    assert load["concurrency"] == int(best["CONCURRENCY"]) < 64
    assert f"--max-num-seqs {best['MAX_NUM_SEQS']}" in delivered(run, "serve.sh")
    assert_costs(table, 5000.0, ttft_slo=0.22)
    assert_sound(run)


@pytest.mark.slow
def test_an_installed_file_is_restored_after_a_kill(tmp_path: Path) -> None:
    world = World(tmp_path, start_delay=1.0).with_mindie(**SMALL)
    installed = world.installed.read_bytes()
    edit = ("trial.engine.edit=in_place",)
    first = world.start(settings=edit)
    first.until(_two_and_another)
    first.until(lambda _: world.installed.read_bytes() != installed)
    first.signal(signal.SIGKILL)
    first.wait()
    assert_nothing_left(first.folder)
    known = ledger(first.folder)
    second = world.run("-lb", settings=edit)
    assert second.process.returncode == 0
    assert world.installed.read_bytes() == installed
    assert world.installed.stat().st_mode & 0o777 == 0o640
    assert ledger(second.folder)[: len(known)] == known
    assert len(candidates(second)) == 4
    assert_sound(second)


@pytest.mark.slow
def test_natively_every_trial_searches_its_load(tmp_path: Path) -> None:
    numbers = {"n_particles": 3, "num_prompts": 64, "ttft_slo": 0.15}
    world = World(tmp_path, ttft=0.03).with_vllm(**SMALL | numbers)
    run = world.run("--native", settings=("trial.load.high=64",))
    assert run.process.returncode == 0
    load = delivered(run, "operating_point.json")["load"]
    assert 1 <= load["concurrency"] <= 64
    rows = world.table().of("candidate")
    assert len(rows) == 6
    assert any(row["CONCURRENCY"] != rows[0]["CONCURRENCY"] for row in rows)
    assert_sound(run)
