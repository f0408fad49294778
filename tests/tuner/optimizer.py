"""Real runs of ``optimizer`` with its shipped settings, over stubs of all engines and tools."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.compat.serviceparam.settings import CONFIGS
from tests.tuner.runs import Run

STUBS = Path(__file__).parents[1] / "stubs"
VLLM = f"""#!/bin/sh
if [ "$1" = bench ]; then exec {sys.executable} {STUBS}/vllm_bench.py "$@"; fi
export STUB_SLOTS=$((MAX_NUM_SEQS / 32))
if [ "$MAX_NUM_SEQS" -gt "$STUB_MOST_SEQS" ]; then
    export STUB_DIE_AT_START="torch.OutOfMemoryError: NPU out of memory"
fi
exec {sys.executable} {STUBS}/openai_engine.py "$@"
"""
DAEMON = f"""#!/bin/sh
PYTHONPATH={STUBS} exec {sys.executable} {STUBS}/mindieservice_daemon.py "$@"
"""
AIS_BENCH = f"""#!/bin/sh
exec {sys.executable} {STUBS}/ais_bench.py "$@"
"""
MODEL_TASK = """
from ais_bench.benchmark.models import VLLMCustomAPIChat

models = [
    dict(
        attr="service", type=VLLMCustomAPIChat, abbr="theirs", path="", model="", stream=True,
        request_rate=0, retry=2, host_ip="localhost", host_port=8080, max_out_len=8, batch_size=1,
        generation_kwargs=dict(temperature=0, ignore_eos=True),
    )
]
"""
DATASET_TASK = """
from ais_bench.benchmark.datasets import CustomDataset

sums_datasets = [dict(abbr="sums", type=CustomDataset, path={path!r})]
"""
MINDIE = {
    "Version": "1.0.0",
    "备注": "written by hand",
    "ServerConfig": {
        "ipAddress": "127.0.0.1",
        "managementIpAddress": "127.0.0.2",
        "port": 1025,
        "managementPort": 1026,
        "metricsPort": 1027,
        "httpsEnabled": True,
    },
    "BackendConfig": {
        "npuDeviceIds": [[0, 1, 2, 3]],
        "ModelDeployConfig": {
            "ModelConfig": [
                {"modelName": "tiny", "modelWeightPath": "", "worldSize": 4, "cpuMemSize": 5}
            ]
        },
        "ScheduleConfig": {
            "maxPrefillBatchSize": 50,
            "prefillTimeMsPerReq": 150,
            "decodeTimeMsPerReq": 50,
            "maxBatchSize": 200,
            "maxPreemptCount": 0,
            "supportSelectBatch": True,
            "maxQueueDelayMicroseconds": 5000,
        },
    },
}
COLUMNS = [
    *("generate_speed", "time_to_first_token", "time_per_output_token", "success_rate"),
    "throughput",
]
TAIL = ["error", "backup", "duration", "real_evaluation", "fitness", "num_prompts"]


class World:
    """A machine with stub tools, a model, and a folder with ``config.toml`` that runs start in."""

    def __init__(self, folder: Path, **stub: Any) -> None:
        self.folder = folder
        self.model = write_tiny_qwen3(folder / "model", hidden=64, head_dim=16)
        self.behave(**{"ttft": 0.01, "tpot": 0.002} | stub)
        self.environment = {"STUB_MOST_SEQS": "1000"}
        self.vllm = _program(folder / "tools" / "vllm", VLLM)
        self.ais_bench = _program(folder / "tools" / "ais_bench", AIS_BENCH)
        self.output = folder / "result"

    def behave(self, **stub: Any) -> None:
        """What the engine does, see ``openai_engine.Behaviour``."""
        (self.model / "stub.json").write_text(json.dumps(stub))

    def with_vllm(self, **numbers: Any) -> World:
        """Shipped settings for vLLM, filled in, ``numbers`` changed."""
        text = (CONFIGS / "vllm.toml").read_text()
        text = text.replace('port = "port"', "port = 8000")
        text = text.replace('"model_path"', f'"{self.model}"').replace('"model_name"', '"tiny"')
        text = text.replace('"dataset_name"', '"random"')
        others = "--random-input-len 8 --random-output-len 4"
        text = text.replace('others = ""', f'others = "{others}"', 1)
        self._settings(text, numbers)
        return self

    def with_mindie(self, **numbers: Any) -> World:
        """An installed MindIE, tasks of AISBench, and shipped settings for them."""
        home = self.folder / "mindie-service"
        _program(home / "bin" / "mindieservice_daemon", DAEMON)
        document = json.loads(json.dumps(MINDIE))
        backend = document["BackendConfig"]
        backend["ModelDeployConfig"]["ModelConfig"][0]["modelWeightPath"] = str(self.model)
        self.installed = home / "conf" / "config.json"
        self.installed.parent.mkdir()
        self.installed.write_text(json.dumps(document, indent=1, ensure_ascii=False))
        self.installed.chmod(0o640)
        self.environment["MIES_INSTALL_PATH"] = str(home)
        tasks = self.folder / "tasks"
        questions = tasks / "questions.jsonl"
        data_task = DATASET_TASK.format(path=str(questions))
        for name, task in (("models", MODEL_TASK), ("datasets", data_task)):
            (tasks / name).mkdir(parents=True)
            (tasks / name / f"my_{name}.py").write_text(task)
        rows = [{"question": f"What is {n}+2?", "answer": str(n + 2)} for n in range(64)]
        questions.write_text("\n".join(map(json.dumps, rows)))
        text = (CONFIGS / "mindie.toml").read_text()
        text = text.replace('"models"', '"my_models"').replace('"datasets"', '"my_datasets"')
        self._settings(text, numbers)
        return self

    def start(self, *flags: str, settings: tuple[str, ...] = ()) -> Run:
        """``optimizer`` in the folder; ends by itself."""
        mindie = "MIES_INSTALL_PATH" in self.environment
        tools = [] if mindie else ["-e", "vllm", "-b", "vllm_benchmark"]
        changes = ["cluster.dashboard=false", *settings]
        if mindie:
            changes.append(f"trial.benchmark.config_dir={self.folder / 'tasks'}")
        return Run(
            *("optimizer", *tools, "--device", "cpu", "--json", *flags),
            *("--vllm", self.vllm, "--ais_bench", self.ais_bench),
            *(word for change in changes for word in ("--set", change)),
            storage=self.output,
            name="tuner",
            cwd=self.folder,
            environment=self.environment,
        )

    def run(self, *flags: str, settings: tuple[str, ...] = ()) -> Run:
        started = self.start(*flags, settings=settings)
        started.wait(280)
        print(started.said())
        return started

    def table(self) -> Table:
        """The one table of the store."""
        (file,) = (self.output / "store").glob("data_storage_*.csv")
        return Table(file)

    def _settings(self, text: str, numbers: dict[str, Any]) -> None:
        for name, value in numbers.items():
            lines = text.splitlines()
            found = [line for line in lines if line.startswith(f"{name} = ")]
            text = text.replace(found[0], f"{name} = {value}")
        (self.folder / "config.toml").write_text(text)


class Table:
    """A ``data_storage_*.csv``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with file.open(newline="") as stream:
            self.columns, *cells = list(csv.reader(stream))
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in cells]

    def of(self, phase: str) -> list[dict[str, str]]:
        return [row for row in self.rows if row["phase"] == phase]


def cost(
    row: dict[str, str], target: float, *, ttft: tuple[float, float], tpot: tuple[float, float]
) -> float:
    """The original's fitness of a row, as its reference writes the formula; ``ttft`` and ``tpot``
    are penalty and SLO."""
    if not row["generate_speed"]:
        return math.inf
    speed, success = float(row["generate_speed"]), float(row["success_rate"])
    found = 0.4 * (target / speed) + 0.1 * math.exp(5.0 * (1.0 / success - 1))
    found += 0.2 * math.exp(ttft[0] * (float(row["time_to_first_token"]) / ttft[1] - 1))
    return found + 0.3 * math.exp(tpot[0] * (float(row["time_per_output_token"]) / tpot[1] - 1))


def _program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file
