"""What a serving trial costs beyond its engine and its benchmark.

Runs candidates through the real command line on a private Ray, over a stub engine that boots in
half a second and a stub of ``vllm bench serve`` that takes a third of one: once at a fixed load
with one run of the benchmark each, once calibrated with two::

    python -m benchmarks.serving_overhead [--trials 10]

The same stubs are first started without us, which says what they take by themselves. Prints a
Markdown table of medians in seconds: from the proposal to the measurement, of that the start of the
engine until it has answered a request, the stages of the benchmark, all the rest, and what is left
of the whole without what the stubs take by themselves. msServiceProfiler's optimizer takes 5.0 s
for that with one run of the benchmark and 7.05 s with two.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_qwen3 import write_tiny_qwen3

STUBS = Path(__file__).resolve().parent.parent / "tests" / "stubs"
ENGINE = [sys.executable, str(STUBS / "openai_engine.py"), "serve"]
BENCHMARK = [sys.executable, str(STUBS / "vllm_bench.py")]
BEHAVIOUR = {"start_delay": 0.35, "ttft": 0.1, "tpot": 0.01}
REQUESTS = 16
ALONE = 5
LOADS = {"fixed": 1, "calibrated": 2}
"""Load types, and runs of the benchmark in each of their trials."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_tiny_qwen3(folder / "model", hidden=64, head_dim=16)
        (model / "stub.json").write_text(json.dumps(BEHAVIOUR))
        boot, bench = _alone(model, folder)
        print(f"alone, the engine boots in {boot:.2f} s and the benchmark takes {bench:.2f} s")
        print(f"load averages {' '.join(f'{one:.1f}' for one in os.getloadavg())}\n")
        print("| load | trial | engine start | benchmark | all else | beyond the stubs |")
        print("|---|---|---|---|---|---|")
        for load, runs in LOADS.items():
            _run(folder, model, load, trials)
            whole, start, measured = _medians(folder / load)
            cells = [whole, start, measured, whole - start - measured]
            cells.append(whole - boot - runs * bench)
            print(f"| {load} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def _alone(model: Path, folder: Path) -> tuple[float, float]:
    """Seconds until the engine listens, and of one run of the benchmark; medians."""
    boots, benches = [], []
    for _ in range(ALONE):
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            port = server.getsockname()[1]
        begun = time.monotonic()
        where = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"]
        with subprocess.Popen(
            [*ENGINE, str(model), *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as engine:
            try:
                while not _listens(port):
                    time.sleep(0.005)
                boots.append(time.monotonic() - begun)
                begun = time.monotonic()
                subprocess.run(_benchmark(port, model, folder), check=True, capture_output=True)
                benches.append(time.monotonic() - begun)
            finally:
                engine.terminate()
    return statistics.median(boots), statistics.median(benches)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _benchmark(port: int, model: Path, folder: Path) -> list[str]:
    arguments = {
        "base-url": f"http://127.0.0.1:{port}",
        "model": "model",
        "tokenizer": str(model),
        "num-prompts": str(REQUESTS),
        "random-input-len": "8",
        "random-output-len": "8",
        "result-dir": str(folder),
    }
    return [*BENCHMARK, "bench", "serve", *(f"--{key}={value}" for key, value in arguments.items())]


def _run(folder: Path, model: Path, load: str, trials: int) -> None:
    document = {
        "name": load,
        "trial": {
            "type": "serving",
            "model": str(model),
            "engine": {"type": "vllm", "command": ENGINE},
            "benchmark": {
                "type": "vllm_benchmark",
                "command": BENCHMARK,
                "num_prompts": REQUESTS,
                "random_input_len": 8,
                "random_output_len": 8,
            },
            "load": {"type": load, "concurrency": REQUESTS},
            "positions": {"X": "env"},
            "final_repeats": 1,
        },
        "search": {"type": "grid", "space": {"X": {"type": "int", "low": 1, "high": trials}}},
        "objective": {"maximize": "output_tokens_per_s"},
        "budget": {"concurrent": 1},
        "cluster": {"dashboard": False},
        "storage": str(folder),
    }
    file = folder / f"{load}.yaml"
    file.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "tuner", "run", str(file)]
    # As where it is installed: compiled once.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(done.stderr)


def _medians(run: Path) -> tuple[float, float, float]:
    """Seconds of a candidate: the whole, the start of its engine, its runs of the benchmark."""
    events = _lines(run / "events.jsonl")
    begun = {event["number"]: event["ts"] for event in events if event["event"] == "proposed"}
    wholes = [
        event["ts"] - begun[event["number"]]
        for event in events
        if event["event"] == "measured" and event["kind"] == "candidate"
    ]
    starts, benchmarks = [], []
    for measurement in _lines(run / "ledger.jsonl"):
        if measurement["kind"] != "candidate":
            continue
        stages = measurement["stages"]
        ours = [one["seconds"] for one in stages if one["name"] in ("deploy", "health")]
        starts.append(sum(ours))
        benchmarks.append(sum(one["seconds"] for one in stages) - sum(ours))
    return statistics.median(wholes), statistics.median(starts), statistics.median(benchmarks)


def _lines(file: Path) -> Iterable[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    main()
