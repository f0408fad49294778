"""Real runs of vLLM on a CPU, recorded iteration by iteration, for ``simulation_error_cpu``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trainables import Progress, TrialRun, TrialSpec
from trainables._blocks import model_folder, model_ready
from trainables.benchmarks import Load, Target, make_benchmark
from trainables.engines import make_engine, start_service
from trainables.latency import IterationRecord, read_records

MODEL = "builtin:smollm2-135m-instruct"
PYTHON = Path(__file__).resolve().parent.parent / ".tools" / "vllm" / "bin" / "python"
COMPLETE = "complete"
"""A file of this name says that nothing is missing in a folder of recordings."""
R = TypeVar("R")


@dataclass(frozen=True)
class Traffic:
    """One run of the benchmark client.

    Attributes:
        requests: How many.
        input_tokens, output_tokens: As the workload ``random`` has them.
        concurrency, request_rate: The load.
        seed: Of the requests and of their arrivals.
    """

    requests: int
    input_tokens: Any
    output_tokens: Any
    concurrency: int | None = None
    request_rate: float | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        how = f"{self.concurrency} at once" if self.concurrency else f"{self.request_rate:g}/s"
        return f"{how}, {_said(self.input_tokens)} in, {_said(self.output_tokens)} out"


@dataclass(frozen=True)
class Configuration:
    """One engine, and the traffic it gets, in order."""

    name: str
    args: Mapping[str, Any]
    traffic: Sequence[Traffic]


_PROMPTS = {"type": "uniform", "low": 16, "high": 384}
_ANSWERS = {"type": "uniform", "low": 8, "high": 64}
_CHAT = {"type": "lognormal", "median": 96, "sigma": 0.8, "low": 4, "high": 512}
_REPLIES = {"type": "lognormal", "median": 24, "sigma": 0.5, "low": 2, "high": 96}
_ALONE = Traffic(10, _PROMPTS, 16, concurrency=1, seed=1)


def _sizes(seqs: int, tokens: int, block: int, **more: Any) -> dict[str, Any]:
    sizes = {"max-num-seqs": seqs, "max-num-batched-tokens": tokens, "block-size": block}
    return {**sizes, **more}


TRAINING = (
    Configuration(
        "a",
        _sizes(8, 512, 32),
        (
            _ALONE,
            Traffic(32, _PROMPTS, _ANSWERS, concurrency=8, seed=2),
            Traffic(32, _PROMPTS, _ANSWERS, request_rate=1.5, seed=3),
        ),
    ),
    Configuration(
        "b",
        _sizes(32, 2048, 64),
        (
            _ALONE,
            Traffic(64, _PROMPTS, _ANSWERS, concurrency=32, seed=4),
            Traffic(24, _PROMPTS, _ANSWERS, concurrency=3, seed=5),
        ),
    ),
    Configuration(
        "c",
        _sizes(64, 256, 128),
        (
            Traffic(64, _PROMPTS, _ANSWERS, concurrency=24, seed=6),
            Traffic(32, _PROMPTS, _ANSWERS, request_rate=2.0, seed=7),
        ),
    ),
)


def _twice(requests: int, seed: int, *loads: dict[str, Any]) -> tuple[Traffic, ...]:
    return tuple(Traffic(requests, _CHAT, _REPLIES, **how, seed=seed) for how in 2 * loads)


_UNCACHED = {"no-enable-prefix-caching": True}
"""The same requests are sent several times."""
TESTS = (
    Configuration(
        "many",
        _sizes(16, 1024, 32, **_UNCACHED),
        _twice(48, 11, {"concurrency": 16}, {"request_rate": 1.5}),
    ),
    Configuration(
        "preempting",
        _sizes(48, 384, 32, **_UNCACHED, **{"kv-cache-memory-bytes": "64M"}),
        _twice(48, 12, {"concurrency": 32}, {"concurrency": 6}),
    ),
    Configuration(
        "queueing",
        _sizes(4, 2048, 64, **_UNCACHED),
        _twice(32, 13, {"concurrency": 12}, {"request_rate": 0.8}),
    ),
)


@dataclass(frozen=True)
class Run:
    """What one run left.

    Attributes:
        configuration: Name of its engine.
        traffic: What was sent.
        settings: The engine's, as it wrote them beside its iterations.
        iterations: During the run, warm-ups of the client included.
        gaps: Before each of them, None after an idle time.
        cpu: Of each of them, seconds of CPU of the engine.
        requests: The client's records, ``itl`` included.
        metrics: The client's.
        load_average: Of the machine over the last minute, before and after.
    """

    configuration: str
    traffic: Traffic
    settings: Mapping[str, Any]
    iterations: Sequence[IterationRecord]
    gaps: Sequence[float | None]
    cpu: Sequence[float]
    requests: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, float]
    load_average: tuple[float, float] = field(default=(0.0, 0.0))


def _said(length: Any) -> str:
    if isinstance(length, int):
        return str(length)
    if length["type"] == "uniform":
        return f"{length['low']}-{length['high']}"
    return f"~{length['median']}"


def record(configuration: Configuration, folder: Path) -> None:
    """Serve one configuration, send it all of its traffic, and leave everything in ``folder``."""
    trial = TrialRun(
        TrialSpec("recordings", "0" * 64, str(folder), "serving", "candidate", {}, 0, {})
    )
    folder.mkdir(parents=True, exist_ok=True)
    _drive(model_ready(trial, MODEL))
    model = model_folder(MODEL)
    service = _drive(start_service(trial, make_engine(_engine(configuration.args)), model=model))
    with service:
        target = Target(service.base_url, service.served_name, model)
        for number, traffic in enumerate(configuration.traffic):
            _send(trial, target, traffic, f"run-{number}")
            print(f"  {configuration.name}: {traffic.name}", flush=True)
    (folder / COMPLETE).touch()


def _send(trial: TrialRun, target: Target, traffic: Traffic, stage: str) -> None:
    lengths = {"input_tokens": traffic.input_tokens, "output_tokens": traffic.output_tokens}
    block = {"type": "builtin", "save_itl": True, "workload": {"type": "random", **lengths}}
    load = Load(traffic.requests, traffic.concurrency, traffic.request_rate)
    before, begin = os.getloadavg()[0], time.time()
    steps = make_benchmark(block).run(
        trial, target, load, stage=stage, seed=traffic.seed, timeout=1800
    )
    found = _drive(steps)
    document = {
        "traffic": asdict(traffic),
        "begin": begin,
        "end": time.time(),
        "metrics": dict(found.metrics),
        "load_average": [before, os.getloadavg()[0]],
    }
    (trial.folder / f"{stage}.json").write_text(json.dumps(document, indent=1))


def read_runs(configuration: str, folder: Path) -> list[Run]:
    """What :func:`record` left."""
    engine = folder / "engine"
    file = engine / "iterations.jsonl"
    records = read_records(file)
    lines = [json.loads(line) for line in file.read_text().splitlines()[: len(records)]]
    settings = json.loads(file.with_suffix(".json").read_text())
    found = []
    for description in sorted(folder.glob("run-?.json")):
        document = json.loads(description.read_text())
        requests = (folder / description.stem / "requests.jsonl").read_text().splitlines()
        during = [
            index
            for index, one in enumerate(records)
            if document["begin"] <= one.at <= document["end"]
        ]
        found.append(
            Run(
                configuration,
                Traffic(**document["traffic"]),
                settings,
                [records[index] for index in during],
                [lines[index]["gap"] for index in during],
                [lines[index]["cpu"] for index in during],
                [json.loads(line) for line in requests],
                document["metrics"],
                tuple(document["load_average"]),
            )
        )
    return found


def _engine(args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "vllm",
        "command": [str(PYTHON)],
        "record_iterations": True,
        "startup_timeout": 900,
        "args": {
            "max-model-len": 1024,
            "dtype": "bfloat16",
            "enforce-eager": True,
            "distributed-executor-backend": "uni",
            "kv-cache-memory-bytes": "256M",
            **args,
        },
        "env_vars": {
            "VLLM_ENABLE_V1_MULTIPROCESSING": 0,
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": 1,
            "HF_HUB_OFFLINE": 1,
        },
    }


def _drive(steps: Generator[Progress, None, R]) -> R:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: R = end.value
            return found
