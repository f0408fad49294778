"""Folders of runs, written as a run writes them, for reports to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from trainables import Measurement
from tuner._ledger import Ledger
from tuner._store import RunRecord, RunStore

BEGUN = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
Json = Any


class Folder:
    """The folder of a run that grows trial by trial; each takes a minute."""

    def __init__(self, path: Path, experiment: Mapping[str, Json]) -> None:
        self.path = path
        path.mkdir(parents=True)
        (path / "experiment.yaml").write_text(yaml.safe_dump(dict(experiment)))
        self.store = RunStore(path)
        record = RunRecord("r1", str(path), str(path))
        record.sessions.append({"pid": 1, "started": BEGUN.isoformat(), "ended": None})
        self.store.save_record(record)
        self.ledger = Ledger(path / "ledger.jsonl")
        self.number = 0
        self.spread: list[Json] = []
        self.rows: list[dict[str, Json]] = []
        self.status: dict[str, Json] = {"name": path.name, "state": "satisfied", "counts": {}}

    def measured(
        self,
        parameters: Mapping[str, Json],
        metrics: Mapping[str, float],
        *,
        kind: str = "candidate",
        data: Mapping[str, Json] | None = None,
        environment: Mapping[str, Json] | None = None,
        said: str = "",
        on: Mapping[str, str] | None = None,
    ) -> None:
        """A trial that ended well, after half a minute of start and half of benchmark.

        Args:
            on: Addresses of the nodes of its instances, by their names; one NPU each.
        """
        identity = self._identity()
        begun = BEGUN + timedelta(minutes=self.number)
        if on is not None:
            placed = {name: {"shape": "tp1", "devices": 1, "node": on[name]} for name in on}
            data = {**(data or {}), "instances": placed}
        self.ledger.append(
            Measurement(
                identity=identity,
                type="serving",
                kind=kind,
                parameters=dict(parameters),
                repeat=0,
                metrics=dict(metrics),
                data=dict(data or {}),
                artifacts={},
                environment={"host": "node-1", **(environment or {})},
                stages=(
                    {"name": "deploy", "seconds": 30.0, "resumed": False},
                    {"name": "benchmark-1", "seconds": 30.0, "resumed": False},
                ),
                attempt=1,
                run_id="r1",
                started=begun.isoformat(),
                seconds=60.0,
            )
        )
        held = (next(iter(on.values())), len(on)) if on else None
        self._told(identity, kind, "measured", said, held=held)

    def failed(
        self,
        failure: Mapping[str, Json],
        *,
        kind: str = "candidate",
        status: str = "failed",
        on: str | None = None,
        also: Mapping[str, int] = {},
    ) -> None:
        """A trial that failed, or is repeated as its ``status`` may say; led ``on`` a node."""
        held = None if on is None else (on, 2)
        bundles = [(on, {"CPU": 1.0}), *((at, {"NPU": float(n)}) for at, n in also.items())]
        self.spread = [{"address": at, "resources": one} for at, one in bundles] if also else []
        self._told(self._identity(), kind, status, str(failure.get("message")), failure, held=held)

    def heard(self, message: str) -> None:
        """What was said of nodes."""
        at = (BEGUN + timedelta(minutes=self.number)).timestamp()
        with self.store.events_file.open("a") as stream:
            stream.write(json.dumps({"ts": at, "event": "nodes", "message": message}) + "\n")

    def ends(
        self,
        state: str,
        *,
        best: Mapping[str, Json] | None = None,
        baseline: Mapping[str, float] | None = None,
        message: str = "the best of all",
        **more: Json,
    ) -> Path:
        """Write the status; the folder."""
        self.status |= {"state": state, "baseline": baseline, "best": best, "elapsed_s": 60.0}
        if state != "running":
            self.status["result"] = {
                "verdict": state,
                "message": message,
                "best": best,
                "objective": None,
                "storage": str(self.path),
                "delivered": str(self.path / "best") if best is not None else None,
                "notes": [],
                "front": [],
                "comparison": [],
            } | more
        self.store.status_file.write_text(json.dumps(self.status))
        return self.path

    def _identity(self) -> str:
        return f"{self.number:032x}"[::-1]

    def _told(
        self,
        identity: str,
        kind: str,
        status: str,
        said: str,
        failure: Mapping[str, Json] | None = None,
        *,
        held: tuple[str, int] | None = None,
    ) -> None:
        begun = (BEGUN + timedelta(minutes=self.number)).timestamp()
        common = {"trial": identity[:16], "number": self.number, "kind": kind}
        where = {} if held is None else {"address": held[0], "resources": {"NPU": held[1]}}
        taken = {"ts": begun + 6, "event": "begun", "trial": identity[:16], "node": "n", **where}
        events: Sequence[Mapping[str, Json]] = (
            {"ts": begun, "event": "proposed", "message": "", "failure": None, **common},
            *([taken] if held else []),
            {"ts": begun + 8, "event": "spread", "trial": identity[:16], "bundles": self.spread},
            {"ts": begun + 60, "event": status, "message": said, "failure": failure, **common},
        )
        with self.store.events_file.open("a") as stream:
            stream.writelines(json.dumps(event) + "\n" for event in events)
        self.number += 1
        self.spread = []


def serving(name: str = "serving", **more: Json) -> dict[str, Json]:
    """An experiment that maximises throughput within a limit on TTFT."""
    return {
        "name": name,
        "trial": {"type": "serving", "model": "m"},
        "search": {"type": "auto", "space": {"a": {"type": "int", "low": 1, "high": 9}}},
        "objective": {
            "maximize": "output_tokens_per_s",
            "limits": [{"metric": "ttft_p90_s", "max": 0.5}],
        },
        "cluster": {"resources": {"NPU": 2}},
        "storage": "./results",
    } | more


def rates(tokens: float, ttft: float = 0.1, error: float | None = 1.0) -> dict[str, float]:
    """Metrics of a serving trial."""
    found = {"output_tokens_per_s": tokens, "ttft_p90_s": ttft, "tpot_mean_s": 0.01}
    return found if error is None else found | {"output_tokens_per_s_se": error}


def serving_run(path: Path, *, winner: float = 150.0, count: int = 12) -> Path:
    """A finished run: a baseline of 100 tokens/s, candidates, a failure, one given up early."""
    folder = Folder(path, serving(path.name))
    folder.measured({}, rates(100.0), kind="baseline", data={"runs": [{"full": True}] * 2})
    for number in range(count):
        value = winner - 5 * (count - 1 - number)
        folder.measured({"a": number, "b": ["x", "y"][number % 2]}, rates(value))
    folder.measured({"a": 99, "b": "x"}, rates(500.0, ttft=0.9))
    stopped = {"by": "incumbent", "reason": "at most 90 tokens/s", "metric": None}
    folder.measured({"a": 50, "b": "y"}, rates(20.0), data={"stopped": stopped})
    folder.failed(
        {
            "class": "out_of_memory",
            "stage": "deploy",
            "message": "no room",
            "excerpt": "RuntimeError: NPU out of memory",
            "suggestion": "ask less of it",
        }
    )
    best = {"a": count - 1, "b": ["x", "y"][(count - 1) % 2]}
    folder.measured(best, rates(winner), kind="verification", data={"runs": [{"full": True}] * 3})
    (path / "best").mkdir()
    (path / "best" / "serve.sh").write_text("#!/bin/sh\nexec vllm serve m --a 1\n")
    return folder.ends("satisfied", best=best, baseline=rates(100.0))


def quantization_run(path: Path) -> Path:
    """A finished run with a ranking of 16 layers, of which two fall back."""
    folder = Folder(
        path,
        serving(
            path.name,
            trial={"type": "quantization", "model": "m"},
            search={"type": "binary_fallback"},
            objective={
                "expectations": [{"metric": "accuracy", "target": "baseline", "tolerance": 0.01}]
            },
        ),
    )
    kinds = ("self_attn.q_proj", "mlp.down_proj")
    layers = [f"model.layers.{n}.{kind}" for kind in kinds for n in range(8)]
    ranking = [{"layers": [layer], "score": 1.0 / (n + 1)} for n, layer in enumerate(layers)]
    folder.measured({}, {"accuracy": 0.8, "accuracy_se": 0.01}, kind="baseline")
    folder.measured({}, {"groups": 16.0}, kind="analysis", data={"ranking": ranking})
    folder.measured({"fallback": []}, {"accuracy": 0.5})
    folder.measured({"fallback": layers[:8]}, {"accuracy": 0.81})
    folder.measured({"fallback": layers[:1]}, {"accuracy": 0.7}, said="accuracy 0.7 is too low")
    folder.measured({"fallback": layers[:2]}, {"accuracy": 0.8})
    best, baseline = {"fallback": layers[:2]}, {"accuracy": 0.8}
    said = "2 of 16 steps fall back"
    return folder.ends("satisfied", best=best, baseline=baseline, message=said)


def splits_run(path: Path) -> Path:
    """A finished search for a split of prefill and decode."""
    folder = Folder(path, serving(path.name))
    folder.measured({"a": 1}, rates(1.0))
    prefill = {"shape": "tp2", "role": "prefill", "devices": 2, "requests_per_s": 4.0}
    done = {"split": "1P1D", "devices": 4, "matched": 3.5, "requests_per_s": 3.1}
    folder.status["account"] = {
        "instances": [prefill],
        "splits": [
            done | {"satisfied": True},
            {"split": "2P1D", "devices": 6, "matched": 3.6, "requests_per_s": None},
        ],
    }
    return folder.ends("satisfied", best={"a": 1})


NODES = ("10.0.0.2", "10.0.0.3", "10.0.0.10")


def cluster_run(path: Path) -> Path:
    """A search for a split on three nodes, one of which is excluded after two errors."""
    trial = {"type": "disaggregated", "model": "m"}
    folder = Folder(path, serving(path.name, trial=trial, cluster={"resources": {"NPU": 1}}))
    one, two, bad = NODES
    folder.measured({"a": 0}, rates(9.0), kind="prefill", on={"prefill-1": one})
    device = {"class": "device", "stage": "deploy", "message": "NPU 0 is gone", "node": bad}
    folder.failed(device, status="retry", on=one)
    folder.failed(device, status="retry", on=one)
    folder.heard("node left: 10.0.0.10 (n3)")
    halves = {"prefill-1": one, "decode-1": two, "decode-2": two}
    folder.measured({"a": 1}, rates(120.0), on=halves)
    folder.measured({"a": 2}, rates(100.0), on={"mixed-1": one, "mixed-2": two})
    folder.measured({"a": 1}, rates(118.0), kind="verification", on=halves)
    splits = [
        {"split": "1 x tp1 prefill + 2 x tp1 decode", "parameters": {"a": 1}, "devices": 3,
         "matched": 150.0, "expected": 130.0, "requests_per_s": 120.0, "satisfied": True},
        {"split": "2 x tp1 mixed", "parameters": {"a": 2}, "devices": 2, "matched": None,
         "expected": None, "requests_per_s": None, "at_most": 100.0, "satisfied": None},
    ]  # fmt: skip
    reason = "2 device errors in a row"
    excluded = {"node": "n3", "address": bad, "reason": reason, "at": "2026-01-05T08:03:00Z"}
    folder.status |= {
        "account": {"instances": [], "splits": splits},
        "nodes": {"living": 3, "width": 2, "excluded": [excluded]},
    }
    (path / "best").mkdir()
    for name in ("prefill-1.sh", "decode-1.sh", "decode-2.sh", "router.sh", "hosts.env"):
        (path / "best" / name).write_text("exec true\n")
    return folder.ends("satisfied", best={"a": 1}, message="x" * 200)


def begun_split_run(path: Path) -> Path:
    """A search for a split of which no rate is known yet."""
    folder = Folder(path, serving(path.name, trial={"type": "disaggregated", "model": "m"}))
    split = {"split": "1 x tp1 prefill + 1 x tp1 decode", "matched": None, "expected": None}
    folder.status["account"] = {"splits": [split]}
    folder.failed({"class": "startup", "message": "no"}, status="retry", on=NODES[0])
    return folder.ends("running")


def script_run(path: Path) -> Path:
    """A finished search of any script's environment variables; nothing was verified."""
    experiment = serving(
        path.name,
        trial={"type": "script", "command": ["sh", "serve.sh"]},
        search={"type": "coordinate_ascent"},
        objective={"maximize": "tps", "limits": [{"metric": "accuracy", "min": 0.88}]},
        cluster={"resources": {"CPU": 1}},
    )
    folder = Folder(path, experiment)
    for value, tps in ((0.97, 100.0), (0.98, 120.0), (0.99, 110.0)):
        folder.measured(
            {"GPU_MEMORY_UTILIZATION": value},
            {"tps": tps, "accuracy": 0.9},
            data={"eval_runs": [{}, {}]},
        )
    best = {"GPU_MEMORY_UTILIZATION": 0.98}
    return folder.ends("satisfied", best=best, message="the best of 3 measured points")


def simulated_run(path: Path) -> Path:
    """A finished search on a virtual clock, with candidates that were given up far below."""
    engine = {"type": "simulated", "model": "m", "engine": {"type": "simulated"}}
    folder = Folder(path, serving(path.name, trial={**engine, "type": "serving"}))
    simulated = {"simulation": {"latency": "analytic"}, "runs": _loads()}
    folder.measured({}, rates(1000.0), kind="baseline", data=simulated)
    for number in range(4):
        folder.measured({"a": number}, rates(1100.0 + number), data=simulated)
    stopped = {"stopped": {"by": "incumbent", "reason": "at most 20"}, **simulated}
    folder.measured({"a": 9}, rates(20.0), data=stopped)
    folder.measured({"a": 3}, rates(1102.0), kind="verification", data=simulated)
    notes = ["all numbers are simulated; measure the winner before you rely on it"]
    return folder.ends("satisfied", best={"a": 3}, baseline=rates(1000.0), notes=notes)


def _loads() -> list[dict[str, Json]]:
    """Runs at three loads, as a trial that searches its operating point leaves."""
    ended = {16: "7 of 40 requests are beyond 0.5 already"}
    return [
        {
            "stage": f"probe-{load}",
            "concurrency": load,
            "full": load != 4,
            "ended": ended.get(load),
            "metrics": rates(10.0 * load, 0.01 * load),
        }
        for load in (4, 16, 8)
    ]


def failed_run(path: Path) -> Path:
    """A run of which no trial could be measured."""
    folder = Folder(path, serving(path.name))
    for name in ("startup", "startup", "out_of_memory"):
        excerpt = "RuntimeError: " + "a long line without a break " * 12
        folder.failed({"class": name, "stage": "deploy", "message": "no", "excerpt": excerpt})
    return folder.ends("failed", message="no point could be measured; 3 trials failed")


def exhausted_run(path: Path) -> Path:
    """A run of which no candidate keeps the limit."""
    folder = Folder(path, serving(path.name))
    folder.measured({}, rates(100.0), kind="baseline")
    for number in range(3):
        folder.measured({"a": number}, rates(100.0 + number, ttft=9.0))
    return folder.ends("exhausted", baseline=rates(100.0), message="nothing keeps ttft_p90_s")


KINDS: dict[str, Callable[[Path], Path]] = {
    "serving": serving_run,
    "quantization": quantization_run,
    "splits": splits_run,
    "cluster": cluster_run,
    "begun-split": begun_split_run,
    "script": script_run,
    "simulated": simulated_run,
    "failed": failed_run,
    "exhausted": exhausted_run,
}
"""A run of every kind that has a page of its own."""

HOSTILE = "</script><script>alert(1)</script><img src=http://evil.test/x onerror=alert(2)>"


def hostile_run(path: Path) -> Path:
    """A finished run in which every name and every text is an attack on the page."""
    experiment = serving(name="run", trial={"type": "serving", "model": HOSTILE})
    folder = Folder(path, experiment)
    for number in range(12):
        folder.measured(
            {HOSTILE: f"{HOSTILE}{number}", "b": number},
            rates(100.0 + number) | {HOSTILE: 1.0},
            data={"stopped": {"by": HOSTILE, "reason": HOSTILE}} if number == 3 else None,
            environment={HOSTILE: HOSTILE, "host": HOSTILE},
            on={"decode-1": HOSTILE, f"{HOSTILE}-1": "b"} if number == 4 else None,
        )
    folder.heard(HOSTILE)
    folder.failed({"class": HOSTILE, "stage": HOSTILE, "message": HOSTILE, "excerpt": HOSTILE})
    folder.status["name"] = HOSTILE
    folder.status["account"] = {"splits": [{"split": HOSTILE, "matched": 1.0}]}
    excluded = {"node": HOSTILE, "address": HOSTILE, "reason": HOSTILE, "at": HOSTILE}
    folder.status["nodes"] = {"living": 2, "width": 1, "excluded": [excluded]}
    (path / "best").mkdir()
    (path / "best" / "serve.sh").write_text(HOSTILE)
    return folder.ends(
        "satisfied", best={HOSTILE: f"{HOSTILE}11", "b": 11}, message=HOSTILE, notes=[HOSTILE]
    )
