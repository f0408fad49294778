"""How an engine is made to record its iterations, and a real one that does."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.tiny_qwen3 import write_tiny_qwen3
from tests.trainables.latency.live import (
    NAME,
    TOOL,
)
from trainables import TrialRun, TrialSpec
from trainables.benchmarks import Load, Target, make_benchmark
from trainables.engines import Deployment, make_engine, start_service
from trainables.engines.testing import drive
from trainables.latency import read_records, record_vllm
from trainables.simulation import Chunk

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
