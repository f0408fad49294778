"""``tune`` beside the real ``msmodelslim tune``, on the same plan and the same stub tools.

Run ``python -m benchmarks.tune_beside_original`` after ``make tools``. Both quantize a tiny Qwen3
for real with msModelSlim on the CPU, serve it with the same stub engine (right sums only if the
first LEVEL decoder blocks are in float) and evaluate it with the same stub AISBench. The strategy
is ``binary_fallback`` with given candidates, the only one that the original can run on a CPU.
The programs take turns, ``--repeats`` times. Prints a Markdown table; its seconds are medians, with
the extremes in parentheses, its ratios medians of those within a round, and the load is the
machine's average over a minute when each began. Exits 1 if the two choose different practices.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.endtoend.adder import NAME, binary_fallback, write_data, write_plan
from tests.tiny_qwen3 import write_tiny_qwen3

ROOT = Path(__file__).resolve().parent.parent
STUBS = ROOT / "tests" / "stubs"
MSMODELSLIM = ROOT / ".tools" / "msmodelslim" / "bin" / "msmodelslim"
BLOCKS = 8


class World:
    """A folder with a model, a plan for both programs, and stub tools that note their calls."""

    def __init__(self, folder: Path, level: int) -> None:
        self.folder = folder
        self.level = level
        write_tiny_qwen3(folder / "model", layers=BLOCKS)
        calibration, self.configs = write_data(folder / "data", 20)
        strategy = binary_fallback(calibration)
        strategy["rollback_candidates"] = [f"*model.layers.{n}.*" for n in range(BLOCKS)]
        strategy["template"]["spec"]["save"] = [{"type": "ascendv1_saver", "part_file_size": 4}]
        self.plan = write_plan(folder / "plan.yaml", strategy)
        self._adapt_plan()
        self._make_benchmark()

    def _adapt_plan(self) -> None:
        document = yaml.safe_load(self.plan.read_text())
        evaluation = document["evaluation"]
        evaluation["evaluation"] |= {"host": "localhost", "port": 18080, "precheck": []}
        models = self.folder / "data" / "aisbench" / "models" / "vllm_api"
        models.mkdir(parents=True)
        evaluation["evaluation"]["aisbench"]["model_meta"] = {"directory": str(models)}
        evaluation["inference_engine"] |= {
            "type": "vllm-ascend",
            "host": "localhost",
            "port": 18080,
            "entrypoint": "leveled_engine",
            "env_vars": {"PYTHONPATH": str(STUBS), "STUB_LEVEL": str(self.level)},
            "args": {"served-model-name": NAME},
        }
        self.plan.write_text(yaml.safe_dump(document))

    def _make_benchmark(self) -> None:
        """An ``ais_bench`` for PATH that notes each call."""
        (self.folder / "bin").mkdir()
        program = self.folder / "bin" / "ais_bench"
        program.write_text(
            '#!/bin/sh\necho call >> "$CALLS"\n'
            f'exec {sys.executable} {STUBS / "ais_bench.py"} "$@"\n'
        )
        program.chmod(0o755)

    def run(self, name: str, command: list[str]) -> dict[str, Any]:
        """Seconds, evaluations, exit code and chosen practice of one program."""
        calls, save = self.folder / f"{name}.calls", self.folder / name
        calls.write_text("")
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {
            **os.environ,
            "PATH": path,
            "CALLS": str(calls),
            "STUB_CONFIGS": str(self.configs),
            "OMP_NUM_THREADS": "1",
        }
        load = os.getloadavg()[0]
        started = time.monotonic()
        done = subprocess.run(
            [
                *command,
                *("--model_path", str(self.folder / "model"), "--save_path", str(save)),
                *("--config", str(self.plan), "--device", "cpu"),
            ],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - started
        if done.returncode != 0:
            print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
        return {
            "code": done.returncode,
            "seconds": seconds,
            "load": load,
            "evaluations": len(calls.read_text().splitlines()),
            "records": yaml.safe_load((save / "history" / "history.yaml").read_text())["records"],
            "chosen": self._chosen(save),
            "delivered": self._delivered(save / "quant_model"),
        }

    def _chosen(self, save: Path) -> list[str]:
        """Excludes of the practice that the history ends with."""
        records = yaml.safe_load((save / "history" / "history.yaml").read_text())["records"]
        practice = yaml.safe_load(
            (save / "history" / f"{records[-1]['practice_id']}.yaml").read_text()
        )
        excluded: list[str] = practice["spec"]["process"][0]["exclude"]
        return excluded

    def _delivered(self, weights: Path) -> int:
        """Blocks in float of the weights that are left."""
        sys.path.insert(0, str(STUBS))
        from leveled_engine import float_blocks

        found: int = float_blocks(weights)
        return found


def compare(level: int) -> dict[str, dict[str, Any]]:
    """What became of each program, in a folder for all of them."""
    flags = ("--msmodelslim", str(MSMODELSLIM), "--vllm", sys.executable)
    original = [str(MSMODELSLIM), "tune"]
    tune = [sys.executable, "-m", "tuner", "tune", *flags]
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), level)
        return {
            "msmodelslim tune": world.run("original", original),
            "tuner tune": world.run("ours", tune),
            "msmodelslim tune, the same again": world.run("original", original),
            "tuner tune, the same again": world.run("ours", tune),
            "tuner tune, two trials at once": world.run(
                "abreast", [*tune, "--set", "cluster.resources.CPU=1"]
            ),
        }


def row(level: int, program: str, rounds: list[dict[str, dict[str, Any]]]) -> str:
    """A line of the table."""
    runs = [told[program] for told in rounds]
    told, seconds = runs[0], [run["seconds"] for run in runs]
    median = statistics.median(seconds)
    ratio = statistics.median(
        told[program]["seconds"] / told["msmodelslim tune"]["seconds"] for told in rounds
    )
    load = statistics.median(run["load"] for run in runs)
    return (
        f"| {level} | {program} | {told['code']} | {told['evaluations']} | {len(told['records'])} "
        f"| {median:.0f} ({min(seconds):.0f}-{max(seconds):.0f}) | {ratio:.2f} "
        f"| {load:.1f} | {len(told['chosen'])} blocks | {told['delivered']} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=[0, 3, 8])
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "| blocks needed | program | exit | evaluations | history | wall s | of the original's "
        "| load | practice excludes | quant_model has in float |\n" + "|---" * 10 + "|"
    )
    same = True
    for level in arguments.levels:
        rounds = [compare(level) for _ in range(arguments.repeats)]
        for program in rounds[0]:
            print(row(level, program, rounds), flush=True)
        chosen = {str(run["chosen"]) for told in rounds for run in told.values()}
        same = same and len(chosen) == 1
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
