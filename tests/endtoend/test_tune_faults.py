"""What a user of ``tune`` sees when something breaks: the engine, the benchmark, the quantizer, the
disk, the port, the clock. None of it is a measurement, and nothing is left running."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.endtoend.adder import binary_fallback, write_data, write_plan
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import assert_nothing_left, events, ledger

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

STUBS = Path(__file__).parents[1] / "stubs"


class Told:
    """What came of a run of ``tune`` with stub tools."""

    def __init__(self, save: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder = save / "tuner"
        self.code = done.returncode
        self.said = done.stderr
        self.result = json.loads(done.stdout.splitlines()[-1])

    def failures(self) -> list[dict[str, str]]:
        """Failures of trials, retried ones included."""
        kinds = ("retry", "failed")
        return [event["failure"] for kind in kinds for event in events(self.folder, kind)]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_tiny_qwen3(tmp_path / "model", hidden=64, head_dim=16)
    calibration, _ = write_data(tmp_path / "data", 12)
    file = write_plan(tmp_path / "plan.yaml", binary_fallback(calibration))
    document = yaml.safe_load(file.read_text())
    document["evaluation"]["inference_engine"] |= {
        "entrypoint": "openai_engine",
        "env_vars": {"PYTHONPATH": str(STUBS)},
        "args": {},
    }
    file.write_text(yaml.safe_dump(document))
    return file


def tune(
    plan: Path,
    *settings: str,
    benchmark: str = "",
    environment: dict[str, str] | None = None,
    save: Path | None = None,
) -> Told:
    """Run ``tune`` with stub tools, every stub healthy unless told otherwise."""
    world, save = plan.parent, save or plan.parent / "save"
    python = sys.executable
    changes = [
        f"trial.evaluation.settings.config_dir={world / 'data/aisbench'}",
        "cluster.dashboard=false",
        "search.max_failures=0",
        *settings,
    ]
    done = subprocess.run(
        [
            *(python, "-m", "tuner", "tune", "--json", "--device", "cpu"),
            *("--model_path", str(world / "model"), "--save_path", str(save)),
            *("--config", str(plan), "--vllm", python),
            *("--msmodelslim", f"{python} {STUBS / 'msmodelslim.py'}"),
            *("--ais_bench", f"{python} {STUBS / 'ais_bench.py'} {benchmark}".strip()),
            *(word for change in changes for word in ("--set", change)),
        ],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=800,
    )
    print(done.stderr)
    assert "Traceback" not in done.stderr
    return Told(save, done)


def assert_failed(told: Told, failure: str, *words: str) -> None:
    """The run failed, each attempt for this reason, and measured nothing from it."""
    assert told.code == 1
    assert told.result["verdict"] == "failed"
    assert told.result["delivered"] is None
    assert ledger(told.folder) == []
    failures = told.failures()
    assert failures
    assert {each["class"] for each in failures} == {failure}
    for word in words:
        assert word in failures[-1]["message"], failures[-1]
        assert word in told.said
    assert_nothing_left(told.folder)


def test_healthy_tools_lead_to_an_answer(plan: Path) -> None:
    told = tune(plan)
    assert told.code == 0, told.said
    assert told.result["best"]["fallback"] == []
    (measured, verified) = ledger(told.folder)
    assert measured["metrics"]["addition/accuracy"] == 100.0
    assert verified["data"]["verified_by"] == "digest"
    assert (told.folder.parent / "quant_model" / "config.json").is_file()
    assert_nothing_left(told.folder)


def test_a_failed_precheck_is_a_bad_model_and_costs_no_benchmark(plan: Path) -> None:
    told = tune(plan, "search.candidates=[]", environment={"STUB_GARBAGE": "true"})
    first = next(item for item in ledger(told.folder) if item["kind"] == "candidate")
    assert first["metrics"]["precheck/passed"] == 0.0
    assert "addition/accuracy" not in first["metrics"]
    assert "precheck" in told.said
    assert told.result["delivered"] is None
    assert_nothing_left(told.folder)


def test_the_engine_dies_in_the_middle_of_the_benchmark(plan: Path) -> None:
    dying = {"STUB_DIE_AFTER": "5", "STUB_DIE_MESSAGE": "EngineDeadError: gone"}
    told = tune(plan, environment=dying)
    assert_failed(told, "tool", "the engine vllm", "EngineDeadError: gone")
    assert len(told.failures()) == 2  # repeated once, from the quantized weights
    (quantized,) = told.folder.glob("trials/*/quantize.log")
    assert quantized.read_text().count("SUCCESS") == 1


def test_the_engine_runs_out_of_memory_at_the_start(plan: Path) -> None:
    words = "torch.OutOfMemoryError: NPU out of memory. Tried to allocate 2.00 GiB"
    told = tune(plan, environment={"STUB_DIE_AT_START": words})
    assert_failed(told, "out_of_memory", "NPU out of memory")
    assert len(told.failures()) == 1  # it would run out again


def test_the_benchmark_is_killed(plan: Path) -> None:
    told = tune(plan, "budget.retries=0", benchmark="--stub killed")
    assert_failed(told, "out_of_memory", "SIGKILL")


def test_a_benchmark_that_got_nowhere_is_not_an_accuracy_of_zero(plan: Path) -> None:
    told = tune(plan, "budget.retries=0", benchmark="--stub no-results")
    assert_failed(told, "tool", "AISBench left no result")
    assert "evaluate-addition: AISBench left no result" in told.said


def test_the_quantizer_is_killed(plan: Path) -> None:
    told = tune(plan, "budget.retries=0", environment={"MSMODELSLIM_STUB_KILL": "9"})
    assert_failed(told, "out_of_memory", "SIGKILL")


def test_the_quantizer_refuses_the_model(plan: Path) -> None:
    fail = json.dumps(["UnsupportedError", 301, "Qwen9 is not supported", "see the matrix"])
    told = tune(plan, environment={"MSMODELSLIM_STUB_FAIL": fail})
    assert_failed(told, "input", "Qwen9 is not supported")
    assert len(told.failures()) == 1
    assert "see the matrix" in told.said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for a run's records, but not for weights."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_disk_is_full_is_said_before_the_quantizer_works(plan: Path, small_disk: Path) -> None:
    told = tune(plan, "budget.retries=0", save=small_disk / "save")
    assert_failed(told, "tool", "MiB free")
    assert "free space there" in told.said


def test_a_foreign_server_on_the_port_is_never_evaluated(plan: Path) -> None:
    asked: list[str] = []

    class Foreign(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address[0])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        told = tune(plan, "budget.retries=0", f"trial.evaluation.engine.port={port}")
        server.shutdown()
    assert_failed(told, "startup", f"port {port} is taken", str(os.getpid()))
    assert asked == []


@pytest.mark.parametrize(
    ("settings", "benchmark", "environment", "word"),
    [
        (["trial.timeouts.quantize=4"], "", {"MSMODELSLIM_STUB_HANG": "true"}, "quantize"),
        (
            ["trial.evaluation.engine.startup_timeout=3"],
            "",
            {"STUB_START_DELAY": "999"},
            "not serve within",
        ),
        (["trial.evaluation.settings.timeout=4"], "--stub hang", {}, "4 s"),
    ],
    ids=["quantizer", "engine", "benchmark"],
)
def test_what_hangs_is_ended_in_time(
    plan: Path, settings: list[str], benchmark: str, environment: dict[str, str], word: str
) -> None:
    told = tune(plan, "budget.retries=0", *settings, benchmark=benchmark, environment=environment)
    assert_failed(told, "timeout", word)
