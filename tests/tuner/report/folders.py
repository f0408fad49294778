"""Folders of runs, written as a run writes them, for reports to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    ) -> None:
        """A trial that ended well, after half a minute of start and half of benchmark."""
        identity = self._identity()
        begun = BEGUN + timedelta(minutes=self.number)
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
        self._told(identity, kind, "measured", said)

    def failed(self, failure: Mapping[str, Json], *, kind: str = "candidate") -> None:
        self._told(self._identity(), kind, "failed", str(failure.get("message")), failure)

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
    ) -> None:
        begun = (BEGUN + timedelta(minutes=self.number)).timestamp()
        common = {"trial": identity[:16], "number": self.number, "kind": kind}
        events: Sequence[Mapping[str, Json]] = (
            {"ts": begun, "event": "proposed", "message": "", "failure": None, **common},
            {"ts": begun + 60, "event": status, "message": said, "failure": failure, **common},
        )
        with self.store.events_file.open("a") as stream:
            stream.writelines(json.dumps(event) + "\n" for event in events)
        self.number += 1


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
        )
    folder.failed({"class": HOSTILE, "stage": HOSTILE, "message": HOSTILE, "excerpt": HOSTILE})
    folder.status["name"] = HOSTILE
    folder.status["account"] = {"splits": [{"split": HOSTILE, "matched": 1.0}]}
    (path / "best").mkdir()
    (path / "best" / "serve.sh").write_text(HOSTILE)
    return folder.ends(
        "satisfied", best={HOSTILE: f"{HOSTILE}11", "b": 11}, message=HOSTILE, notes=[HOSTILE]
    )
