"""Iterations of a live vLLM: what is recorded of them, and that the engine never notices.

The stand-ins have what the recorder reads of vLLM's scheduler and of its outputs, by the same
names; ``test_a_real_vllm`` shows that the real one has it too.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_qwen3 import write_tiny_qwen3
from trainables import TrialRun, TrialSpec
from trainables.benchmarks import Load, Target, make_benchmark
from trainables.engines import Deployment, make_engine, start_service
from trainables.engines.testing import drive
from trainables.latency import IterationRecord, read_records, record_vllm
from trainables.simulation import Chunk

NAME = record_vllm.PLUGIN
TOOL = Path(__file__).parents[3] / ".tools" / "vllm" / "bin" / "python"


def output(*new: tuple[str, int, int], cached: Any = (), old: bool = False) -> SimpleNamespace:
    """A SchedulerOutput of (request, tokens, context); ``old``: of old versions of vLLM."""
    tokens = {name: count for name, count, _ in (*cached, *new)}
    if old:
        later: Any = [SimpleNamespace(req_id=n, num_computed_tokens=c) for n, _, c in cached]
    else:
        later = SimpleNamespace(
            req_ids=[name for name, _, _ in cached], num_computed_tokens=[c for *_, c in cached]
        )
    return SimpleNamespace(
        scheduled_new_reqs=[SimpleNamespace(req_id=n, num_computed_tokens=c) for n, _, c in new],
        scheduled_cached_reqs=later,
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
    )


class Scheduler:
    """Does what it is told: :attr:`script` is what ``schedule`` returns next."""

    def __init__(self, **prompts: int) -> None:
        self.requests = {n: SimpleNamespace(num_prompt_tokens=p) for n, p in prompts.items()}
        self.running, self.waiting = list(prompts), ["another"]
        self.script: list[Any] = []
        self.busy = True
        self.block_size = 16
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(num_gpu_blocks=101, cache_dtype="auto"),
            scheduler_config=SimpleNamespace(max_num_seqs=8, async_scheduling=True),
        )

    def schedule(self, throttle: bool = False) -> Any:
        return self.script.pop(0)

    def update_from_output(self, scheduler_output: Any, outcome: str) -> str:
        return outcome.upper()

    def has_unfinished_requests(self) -> bool:
        return self.busy

    def shutdown(self) -> str:
        return "down"


class Bench:
    """A recorder with a clock that is set by hand."""

    def __init__(self, **prompts: int) -> None:
        self.scheduler = Scheduler(**prompts)
        self.now = 0.0
        self.records: list[dict[str, Any]] = []
        self.recorder = record_vllm.Recorder(
            self.records.append, lambda: self.now, lambda: self.now / 4
        )

    def scheduled(self, at: float, batch: Any) -> Any:
        self.now = at
        self.recorder.scheduled(self.scheduler, batch)
        return batch

    def arrived(self, at: float, batch: Any, *, busy: bool = True) -> None:
        self.now = at
        self.recorder.arrived(batch)
        self.scheduler.busy = busy
        self.recorder.updated(self.scheduler)

    def work(self, begin: float, end: float, batch: Any, *, busy: bool = True) -> dict[str, Any]:
        self.scheduled(begin, batch)
        self.arrived(end, batch, busy=busy)
        return self.records[-1]


@pytest.mark.parametrize("old", [False, True])
def test_what_is_scheduled_is_recorded(old: bool) -> None:
    bench = Bench(a=100, b=40)
    bench.work(10.0, 10.5, output(("a", 64, 0)))
    bench.work(10.75, 11.0, output(("b", 28, 12), cached=[("a", 36, 64)], old=old))
    bench.work(11.0, 11.25, output(cached=[("a", 1, 100), ("b", 1, 40)], old=old), busy=False)
    bench.work(20.0, 20.5, output(cached=[("b", 1, 41)], old=old))
    assert [(one["prefills"], one["decodes"]) for one in bench.records] == [
        ([[64, 0]], []),
        ([[36, 64], [28, 12]], []),
        ([], [100, 40]),
        ([], [41]),
    ]
    times = [(one["at"], one["seconds"], one["gap"], one["cpu"]) for one in bench.records]
    assert times == [
        (10.0, 0.5, None, 0.125),
        (10.75, 0.25, 0.25, 0.0625),
        (11.0, 0.25, 0.0, 0.0625),
        (20.0, 0.5, None, 0.125),
    ]
    assert {(one["running"], one["waiting"]) for one in bench.records} == {(2, 1)}


def test_with_asynchronous_scheduling_each_iteration_gets_the_time_it_had_for_itself() -> None:
    bench = Bench(a=10)
    first = bench.scheduled(0.0, output(("a", 10, 0)))
    second = bench.scheduled(0.1, output(cached=[("a", 1, 10)]))
    bench.arrived(1.0, first)
    third = bench.scheduled(1.1, output(cached=[("a", 1, 11)]))
    bench.arrived(1.4, second)
    bench.arrived(1.7, third)
    found = [(one["at"], one["seconds"], one["gap"], one["cpu"]) for one in bench.records]
    assert found == [(0.0, 1.0, None, 0.25), (1.0, 0.4, 0.0, 0.1), (1.4, 0.3, 0.0, 0.075)]


def test_a_part_of_a_prompt_is_one_however_short_and_so_is_what_is_computed_again() -> None:
    bench = Bench(a=33, b=50)
    last_token = bench.work(0, 1, output(cached=[("a", 1, 32)]))
    assert (last_token["prefills"], last_token["decodes"]) == ([[1, 32]], [])
    after_preemption = bench.work(1, 2, output(cached=[("b", 60, 0), ("a", 1, 33)]))
    assert (after_preemption["prefills"], after_preemption["decodes"]) == ([[60, 0]], [33])
    speculation = bench.work(2, 3, output(cached=[("a", 4, 34)]))
    assert (speculation["prefills"], speculation["decodes"]) == ([[4, 34]], [])


def test_what_computes_nothing_or_was_never_seen_leaves_no_record() -> None:
    bench = Bench(a=10)
    empty = bench.scheduled(0.0, output())
    lost = bench.scheduled(0.5, output(("a", 5, 0)))
    kept = bench.scheduled(1.0, output(cached=[("a", 5, 5)]))
    bench.arrived(1.5, empty)
    bench.arrived(2.0, output(("a", 5, 0)))
    bench.arrived(3.0, kept)
    bench.arrived(4.0, lost)
    assert [one["prefills"] for one in bench.records] == [[[5, 5]]]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 5), st.booleans()), max_size=30))
def test_iterations_never_overlap_and_fill_the_time_that_the_engine_was_busy(
    course: list[tuple[float, float, bool]],
) -> None:
    bench = Bench(a=1)
    batches = [output(cached=[("a", 1, number + 1)]) for number in range(len(course) + 1)]
    bench.scheduled(0.0, batches[0])
    now = 0.0
    for number, (pause, duration, early) in enumerate(course):
        if early:
            now += pause
            bench.scheduled(now, batches[number + 1])
        now += duration
        bench.arrived(now, batches[number])
        if not early:
            now += pause
            bench.scheduled(now, batches[number + 1])
    end = 0.0
    for one in bench.records:
        assert one["seconds"] > 0
        assert one["at"] == pytest.approx(end + (one["gap"] or 0.0), abs=1e-4)
        end = one["at"] + one["seconds"]


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Any]:
    """Makes schedulers of a class that is watched, each test its own."""

    class Watched(Scheduler):
        pass

    def make(most_bytes: int = record_vllm.MOST_BYTES, kind: type = Watched) -> Any:
        record_vllm.watch_schedulers(Watched, tmp_path / "iterations.jsonl", most_bytes)
        return kind(a=1000)

    make.base = Watched  # type: ignore[attr-defined]
    return make


def iterate(scheduler: Any, count: int, first: int = 1000) -> None:
    for context in range(first, first + count):
        batch = output(cached=[("a", 1, context)])
        scheduler.script.append(batch)
        assert scheduler.schedule(False) is batch
        assert scheduler.update_from_output(batch, "outcome") == "OUTCOME"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING):
        yield lambda: [one.message for one in caplog.records]


def test_files_of_a_scheduler(watched: Callable[..., Any], tmp_path: Path) -> None:
    begin = time.time()
    scheduler = watched()
    iterate(scheduler, 3)
    assert scheduler.shutdown() == "down"
    records = read_records(tmp_path / "iterations.jsonl")
    assert [one.decodes for one in records] == [(1000,), (1001,), (1002,)]
    assert all(one.seconds > 0 and begin - 1 < one.at < time.time() + 1 for one in records)
    settings = json.loads((tmp_path / "iterations.json").read_text())
    assert settings["num_blocks"] == 100
    assert settings["block_size"] == 16
    assert settings["max_num_seqs"] == 8
    assert settings["async_scheduling"] is True
    assert settings["max_model_len"] is None


def test_an_idle_engine_may_be_killed(
    watched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_vllm, "FLUSH_SECONDS", 1000)
    scheduler = watched()
    iterate(scheduler, 2)
    scheduler.busy = False
    iterate(scheduler, 1, 1002)
    assert len(until_written(tmp_path / "iterations.jsonl", 3)) == 3
    scheduler.shutdown()


def test_every_start_has_files_of_its_own(watched: Callable[..., Any], tmp_path: Path) -> None:
    first, second = watched(), watched()
    iterate(second, 2)
    iterate(first, 1)
    first.shutdown(), second.shutdown()
    assert len(read_records(tmp_path / "iterations.jsonl")) == 1
    assert len(read_records(tmp_path / "iterations-2.jsonl")) == 2
    assert (tmp_path / "iterations-2.json").exists()


def test_schedulers_of_a_platform_are_recorded_as_they_schedule(
    watched: Callable[..., Any], tmp_path: Path
) -> None:
    class Platform(watched.base):  # type: ignore[misc, name-defined]
        def schedule(self, throttle: bool = False) -> Any:
            return output(("a", 7, 0))

    scheduler = watched(kind=Platform)
    scheduler.update_from_output(scheduler.schedule(), "x")
    scheduler.shutdown()
    (found,) = read_records(tmp_path / "iterations.jsonl")
    assert found.prefills == (Chunk(7, 0),)


def test_a_failure_inside_ends_the_recording_and_nothing_else(
    watched: Callable[..., Any], said: Callable[[], list[str]], tmp_path: Path
) -> None:
    scheduler = watched()
    iterate(scheduler, 2)
    strange = SimpleNamespace(total_num_scheduled_tokens=5)
    scheduler.script.append(strange)
    assert scheduler.schedule() is strange
    assert scheduler.update_from_output(strange, "outcome") == "OUTCOME"
    iterate(scheduler, 2)
    assert scheduler.shutdown() == "down"
    assert len(said()) == 1
    assert "no longer recorded" in said()[0] and "scheduled_new_reqs" in said()[0]
    assert len(until_written(tmp_path / "iterations.jsonl", 2)) == 2


def test_an_engine_without_what_is_read_starts_all_the_same(
    watched: Callable[..., Any], said: Callable[[], list[str]], tmp_path: Path
) -> None:
    class Changed(watched.base):  # type: ignore[misc, name-defined]
        vllm_config = property(lambda self: self.gone, lambda self, value: None)

    iterate(watched(kind=Changed), 2)
    assert len(said()) == 1
    assert "not recorded" in said()[0]
    assert not list(tmp_path.iterdir())


def test_a_file_never_grows_beyond_its_limit(
    watched: Callable[..., Any],
    said: Callable[[], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_vllm, "FLUSH_SECONDS", 0.001)
    scheduler = watched(most_bytes=1000)
    for first in range(1000, 9000, 10):
        iterate(scheduler, 10, first)
        if said():
            break
        time.sleep(0.002)
    assert len(said()) == 1
    assert record_vllm.BYTES_VARIABLE in said()[0]
    found = until_written(tmp_path / "iterations.jsonl", 1)
    assert [one.decodes for one in found] == [(1000 + n,) for n in range(len(found))]
    assert (tmp_path / "iterations.jsonl").stat().st_size <= 1000
    assert "schedule" not in vars(scheduler)


def test_a_full_disk_is_told_to_who_records() -> None:
    with Path("/dev/full").open("ab", buffering=0) as full:
        writer = record_vllm.LineWriter(full, 1000)
        writer.write({"seconds": 1.0})
        writer.close(10)
    with pytest.raises(RuntimeError, match="No space left"):
        writer.write({"seconds": 1.0})


def test_a_disk_that_hangs_costs_a_bounded_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_vllm, "MOST_PENDING", 5)
    monkeypatch.setattr(record_vllm, "FLUSH_SECONDS", 1000)
    with (tmp_path / "file").open("ab", buffering=0) as file:
        writer = record_vllm.LineWriter(file, 10**6)
        with pytest.raises(RuntimeError, match="5 iterations wait"):
            for _ in range(6):
                writer.write({})
        writer.close(10)


def until_written(file: Path, count: int) -> list[IterationRecord]:
    """Records of a file whose writer has been told to write but need not have done so yet."""
    deadline = time.monotonic() + 30
    while len(found := read_records(file)) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return list(found)


_ENGINE = """
import importlib.metadata, sys
for entry in importlib.metadata.entry_points(group="vllm.general_plugins"):
    entry.load()(), entry.load()()
from vllm.v1.core.sched.scheduler import Scheduler
scheduler = Scheduler()
batch = scheduler.schedule()
assert scheduler.update_from_output(batch, 1) == 1
scheduler.shutdown()
"""
_VLLM = """
from types import SimpleNamespace as Data
class Scheduler:
    vllm_config = requests = None
    running = waiting = ()
    def schedule(self):
        new = [Data(req_id="a", num_computed_tokens=3)]
        return Data(total_num_scheduled_tokens=8, scheduled_new_reqs=new, scheduled_cached_reqs=[],
                    num_scheduled_tokens={"a": 8})
    def update_from_output(self, scheduler_output, outcome):
        return outcome
    def has_unfinished_requests(self):
        return False
    def shutdown(self):
        pass
class Theirs(Scheduler):
    pass
Theirs.__module__ = "platform_plugin"
Scheduler = Theirs
"""


def test_a_folder_in_the_path_is_all_that_an_engine_needs(tmp_path: Path) -> None:
    package = tmp_path / "site" / "vllm" / "v1" / "core" / "sched"
    package.mkdir(parents=True)
    (package / "scheduler.py").write_text(_VLLM)
    file = tmp_path / "iterations.jsonl"
    # Without site-packages: nothing but the standard library is there.
    python = [sys.executable, "-S"]
    program = [*python, record_vllm.__file__, str(tmp_path / "recorder"), str(file)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "VLLM_PLUGINS": "ascend"}
    done = subprocess.run(program, check=True, capture_output=True, text=True, env=environment)
    script = f'{done.stdout}exec "$@"'
    asked = [*python, "-c", f"import os; assert os.environ['VLLM_PLUGINS'] == 'ascend,{NAME}'"]
    for command in (asked, [*python, "-c", _ENGINE]):
        subprocess.run(["sh", "-c", script, "sh", *command], check=True, env=environment)
    (found,) = read_records(file)
    assert found.prefills == (Chunk(8, 3),)
    assert not (tmp_path / "iterations-2.jsonl").exists()


def test_it_runs_on_the_oldest_python_of_vllm() -> None:
    ast.parse(Path(record_vllm.__file__).read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("kind", ["vllm", "vllm-ascend"])
def test_an_engine_block_asks_for_it(kind: str, tmp_path: Path) -> None:
    plain = make_engine({"type": kind, "command": [sys.executable], "args": {"seed": 1}})
    asked = make_engine({**plain.options.model_dump(), "record_iterations": True})
    deployment = Deployment(Path("/m"), "m", "localhost", 20001, folder=tmp_path)
    launch = asked.launch(deployment)
    assert launch.argv == plain.launch(deployment).argv
    added = {**launch.env}
    assert added.pop("PYTHONPATH").split(os.pathsep)[0] == str(tmp_path / "recorder")
    assert added.pop(record_vllm.FILE_VARIABLE) == str(tmp_path / "iterations.jsonl")
    assert added == plain.launch(deployment).env
    assert not list(tmp_path.iterdir())
    with asked.prepared(deployment):
        assert (tmp_path / "recorder" / f"{NAME}.py").exists()
    assert asked.identity() == plain.identity()
    assert asked.deliverables(deployment) == plain.deliverables(deployment)


def test_plugins_that_are_chosen_by_name_stay_chosen(tmp_path: Path) -> None:
    block = {"type": "vllm", "record_iterations": True, "env_vars": {"VLLM_PLUGINS": "ascend"}}
    deployment = Deployment(Path("/m"), "m", "localhost", 20001, folder=tmp_path)
    launch = make_engine(block).launch(deployment)
    assert launch.env["VLLM_PLUGINS"] == f"ascend,{NAME}"


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.skipif(not TOOL.exists(), reason="no vLLM; see make tools")
def test_a_real_vllm(tmp_path: Path) -> None:
    """What it computes is what the client asked for: no token more, none less."""
    block = {
        "type": "vllm",
        "command": [str(TOOL)],
        "startup_timeout": 600,
        "record_iterations": True,
        "env_vars": {
            "VLLM_ENABLE_V1_MULTIPROCESSING": 0,
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": 1,
            "HF_HUB_OFFLINE": 1,
        },
        "args": {
            "max-model-len": 256,
            "max-num-seqs": 5,
            "max-num-batched-tokens": 64,
            "no-enable-prefix-caching": True,
            "enforce-eager": True,
            "distributed-executor-backend": "uni",
            "kv-cache-memory-bytes": "16M",
        },
    }
    workload = {
        "type": "random",
        "input_tokens": {"type": "uniform", "low": 20, "high": 120},
        "output_tokens": {"type": "uniform", "low": 1, "high": 30},
        "form": "token_ids",
    }
    client = make_benchmark({"type": "builtin", "warm_ups": 0, "workload": workload})
    model = write_tiny_qwen3(tmp_path / "tiny")
    where = str(tmp_path / "trial")
    trial = TrialRun(TrialSpec("test-live", "0" * 64, where, "serving", "candidate", {}, 0, {}))
    service = drive(start_service(trial, make_engine(block), model=model), within_s=600)
    file = trial.folder / "engine" / "iterations.jsonl"
    with service:
        target = Target(service.base_url, service.served_name, model)
        begin = time.time()
        run = client.run(trial, target, Load(40, concurrency=8), stage="b", seed=0, timeout=600)
        metrics = drive(run, within_s=600).metrics
    records = [one for one in read_records(file) if one.at >= begin]
    assert metrics["success_rate"] == 1
    assert sum(one.batch.prefill_tokens for one in records) == metrics["input_tokens"]
    assert sum(len(one.decodes) for one in records) == metrics["output_tokens"] - 40
    assert max(one.batch.tokens for one in records) <= 64
    assert max(one.batch.sequences for one in records) == 5
    assert any(chunk.context for one in records for chunk in one.prefills)
    spans = [(one.at, one.at + one.seconds) for one in records]
    assert all(end <= begin + 1e-5 for (_, end), (begin, _) in pairwise(spans))
    settings = json.loads(file.with_suffix(".json").read_text())
    assert settings["max_num_batched_tokens"] == 64
    assert settings["prefix_caching"] is False
    assert settings["num_blocks"] > 0
    assert settings["version"].startswith("0.")
