"""Prefill/decode searches on nodes that differ, and what a test does to them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from cluster import find_processes
from tests.nodes import Node, Nodes
from tests.tiny_qwen3 import write_tiny_qwen3
from tests.tuner.runs import Run, events, run_id

STUBS = Path(__file__).parents[1] / "stubs"
NAME = "pd"


def write_search(folder: Path, nodes: Nodes, **changes: Any) -> Path:
    """An experiment that searches a split of stub engines, but for ``changes`` of what stands at
    ``block__key``.

    Its first bundle, with router and benchmark, is where prefill instances are.
    """
    model = folder / "tiny"
    if not model.exists():
        write_tiny_qwen3(model)
        (model / "stub.json").write_text(json.dumps({"ttft": 0.02, "tpot": 0.004}))
    document: dict[str, Any] = {
        "name": NAME,
        "trial": {
            "type": "disaggregated",
            "model": str(model),
            "engine": {
                "type": "vllm",
                "command": [sys.executable],
                "entrypoint": "split_engine",
                "startup_timeout": 600,
                "env_vars": {"PYTHONPATH": str(STUBS)},
            },
            "roles": {"decode": {"labels": {"role": "decode"}}},
            "benchmark": {
                "type": "builtin",
                "requests": 24,
                "warm_ups": 0,
                "window_s": 0.2,
                "workload": {"type": "random", "input_tokens": 8, "output_tokens": 6},
            },
            "load": {"type": "fixed", "concurrency": 4},
        },
        "search": {"type": "pd_split", "devices": 2, "top": 2},
        "objective": {
            "maximize": "requests_per_s",
            "limits": [{"metric": "success_rate", "min": 1.0}],
        },
        "budget": {"concurrent": 1},
        "cluster": {
            "address": nodes.address,
            "resources": {"CPU": 0.1, "NPU": 1},
            "labels": {"role": "prefill"},
            "dashboard": False,
        },
        "storage": str(folder / "results"),
    }
    for path, value in changes.items():
        _put(document, path.split("__"), value)
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _put(document: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        document = document.setdefault(key, {})
    document[path[-1]] = value


def one_split(gates: Sequence[Path]) -> Mapping[str, Any]:
    """Candidates of one prefill and one decode instance, as many as there are gates. The benchmark
    of each gets to its end once its gate, a file, is gone."""
    return {
        "search": {
            "type": "grid",
            "space": {
                "prefill_instances": {"type": "enum", "values": [1]},
                "decode_instances": {"type": "enum", "values": [1]},
                "decode.STUB_GATE": {"type": "enum", "values": list(map(str, gates))},
            },
        },
        "trial__positions": {"STUB_GATE": "env"},
        "trial__benchmark__requests": 40,
    }


class Search(Run):
    """``python -m tuner`` on nodes, for an experiment of :func:`write_search`."""

    def __init__(self, command: str, target: Path, nodes: Nodes, *flags: str) -> None:
        storage = yaml.safe_load(target.read_text())["storage"] if target.is_file() else None
        super().__init__(
            command,
            target,
            *flags,
            storage=Path(storage) if storage else target.parent,
            name=NAME,
            environment=nodes.environment,
        )

    def conclude(self, timeout: float = 800) -> dict[str, Any]:
        """The result of a run that was satisfied."""
        code = self.wait(timeout)
        print(self.said())
        assert code == 0, self.said()
        assert "Traceback" not in self.said()
        result = self.result()
        assert result["verdict"] == "satisfied"
        return result

    def in_benchmark(self) -> bool:
        """Whether a trial's benchmark has got its first answers just now, and goes on."""
        for file in self.folder.glob("trials/*/benchmark-1/windows.jsonl"):
            measured = (file.parents[1] / "measurement.json").exists()
            lines = file.read_text().rpartition("\n")[0].splitlines()
            if not measured and any(json.loads(line)["completed"] for line in lines):
                return True
        return False

    def engines(self) -> dict[str, psutil.Process]:
        """The engines that run, by the instance they are of."""
        found = {}
        for one in find_processes(run_id(self.folder) or "none"):
            process = psutil.Process(one.pid)
            try:
                words, name = process.cmdline(), Path(process.cwd()).name
            except psutil.Error:
                continue
            if "--served-model-name" in words:
                found[name] = process
        return found

    def node_of(self, instance: str, nodes: Nodes) -> Node:
        """Where an instance listens."""
        words = self.engines()[instance].cmdline()
        address = words[words.index("--host") + 1]
        return next(node for node in nodes.alive if node.address == address)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return events(self.folder, kind) if (self.folder / "events.jsonl").exists() else []

    def first_failure(self, timeout: float = 600) -> dict[str, Any]:
        """What the first trial failed of that fails and is repeated; its event, seconds included.

        ``after_s`` says how long this took from the call on.
        """
        before = time.time()
        event, *_ = self.until(lambda run: run.told("retry"), timeout)
        return {**event["failure"], "after_s": round(event["ts"] - before, 1)}
