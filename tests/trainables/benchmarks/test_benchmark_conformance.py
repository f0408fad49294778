"""The conformance suite passes a sound benchmark and catches the others, each for its reason."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from cluster import ProcessTree
from trainables import Progress, TrialFailure, TrialRun
from trainables.benchmarks import Benchmark, BenchmarkResult, Load, Target, Window
from trainables.benchmarks._benchmark import _BENCHMARKS
from trainables.benchmarks._summary import RequestRecord, failure_counts, summarize
from trainables.benchmarks.testing import (
    FAILURES,
    SPARED,
    Condition,
    ContractViolation,
    Served,
    check_benchmark,
    check_block,
)

_SERVICES: dict[str, Service] = {}


class Service:
    """What stands for a service: it remembers what it was asked."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.bodies: list[Mapping[str, Any]] = []


@contextmanager
def serve(condition: Condition) -> Iterator[Served]:
    url = f"http://{len(_SERVICES)}"
    service = _SERVICES[url] = Service(condition)
    yield Served(Target(url, "name", Path("/")), lambda: list(service.bodies))


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    requests: int = 24
    timeout: float = 1.0


class Sound(Benchmark):
    """Keeps the contract, with a process only where it has to wait."""

    Options = Options
    options: Options
    failed: Mapping[Condition, int] = {"some_fail": FAILURES, "all_fail": 1000, "dies": 1000}

    def run(
        self,
        trial: TrialRun,
        target: Target,
        load: Load,
        *,
        stage: str,
        seed: int,
        timeout: float,
    ) -> Generator[Progress, None, BenchmarkResult]:
        service = _SERVICES[target.base_url]
        folder = trial.folder / stage
        folder.mkdir(exist_ok=True)
        (trial.folder / f"{stage}.log").write_text("begins\n")
        count = load.requests or self.options.requests
        asked = [self.ask(seed, number, stage) for number in range(count)]
        yield Progress(stage)
        if service.condition == "hangs":
            yield from self.hang(trial, stage, timeout, lambda: service.bodies.extend(asked))
        service.bodies += asked
        result = self.result(folder, count, load, service.condition)
        if result.metrics["success_rate"] <= 0:
            raise TrialFailure("tool", stage, "all failed")
        return result

    def ask(self, seed: int, number: int, stage: str) -> dict[str, Any]:
        return {"prompt": f"{seed} {number}", "max_tokens": 3, "seed": stage}

    def hang(
        self, trial: TrialRun, stage: str, timeout: float, ask: Callable[[], None]
    ) -> Generator[Progress, None, None]:
        argv = [sys.executable, "-c", "import time; time.sleep(3600)"]
        log = trial.folder / f"{stage}.log"
        deadline = time.monotonic() + timeout
        with ProcessTree.start(argv, log=log, run_id=trial.spec.run_id, label="x") as tree:
            ask()
            while tree.wait(0.05) is None:
                yield Progress(stage)
                if time.monotonic() > deadline:
                    raise TrialFailure("timeout", stage, "too late")
        raise TrialFailure("tool", stage, "it died")

    def result(self, folder: Path, count: int, load: Load, condition: Condition) -> BenchmarkResult:
        bad = self.failed.get(condition, 0)
        records = [
            RequestRecord(
                number,
                0.0,
                0.0,
                0.003,
                0.001,
                5,
                3,
                (0.001, 0.001),
                "no" if SPARED <= number < SPARED + bad or bad > count else "",
            )
            for number in range(count)
        ]
        file = folder / "records.json"
        file.write_text(json.dumps([asdict(one) for one in records]))
        return BenchmarkResult(
            metrics=summarize(records, load),
            seconds=0.5,
            data={"failures": failure_counts(records)},
            artifacts={"records": str(file)},
            environment={"tool": "1"},
        )

    def windows(self, trial: TrialRun, stage: str) -> Sequence[Window]:
        if not (trial.folder / stage / "records.json").exists():
            return ()
        return (Window(0, 0.001, 4, 0, 12), Window(0.001, 0.003, 20, 0, 60))

    def identity(self) -> Any:
        return {"type": self.options.type, "requests": self.options.requests}


class Changed(Sound):
    """Sound but for its results."""

    metrics: Mapping[str, float] = {}
    others: Mapping[str, Any] = {}
    without: frozenset[str] = frozenset()

    def result(self, folder: Path, count: int, load: Load, condition: Condition) -> BenchmarkResult:
        found = super().result(folder, count, load, condition)
        metrics = {k: v for k, v in found.metrics.items() if k not in self.without}
        return replace(found, metrics=metrics | self.metrics, **self.others)


class SameForEverySeed(Sound):
    def ask(self, seed: int, number: int, stage: str) -> dict[str, Any]:
        return {"prompt": str(number)}


class OtherEveryTime(Sound):
    def ask(self, seed: int, number: int, stage: str) -> dict[str, Any]:
        return {"prompt": f"{stage} {number}"}


class LosesWindows(Sound):
    def windows(self, trial: TrialRun, stage: str) -> Sequence[Window]:
        return super().windows(trial, stage)[1:]


class RetriesFailures(Sound):
    failed: Mapping[Condition, int] = {}


class SurvivesEverything(Sound):
    failed: Mapping[Condition, int] = {"some_fail": FAILURES}


class NotLate(Sound):
    def hang(
        self, trial: TrialRun, stage: str, timeout: float, ask: Callable[[], None]
    ) -> Generator[Progress, None, None]:
        yield Progress(stage)
        raise TrialFailure("tool", stage, "gives up")


class OfAnotherStage(Sound):
    def hang(
        self, trial: TrialRun, stage: str, timeout: float, ask: Callable[[], None]
    ) -> Generator[Progress, None, None]:
        yield from super().hang(trial, "other", timeout, ask)


class LeavesProcesses(Sound):
    trees: list[ProcessTree] = []  # noqa: RUF012 kept alive on purpose

    def hang(
        self, trial: TrialRun, stage: str, timeout: float, ask: Callable[[], None]
    ) -> Generator[Progress, None, None]:
        argv = [sys.executable, "-c", "import time; time.sleep(3600)"]
        log = trial.folder / "left.log"
        run_id = trial.spec.run_id
        self.trees.append(ProcessTree.start(argv, log=log, run_id=run_id, label="left"))
        yield from super().hang(trial, stage, timeout, ask)


class TimeoutInIdentity(Sound):
    def identity(self) -> Any:
        return {**super().identity(), "timeout": self.options.timeout}


class Blind(Sound):
    def identity(self) -> Any:
        return "always the same"


class Invents(Sound):
    def metric_names(self) -> frozenset[str]:
        return super().metric_names() | {"speed"}


def changed(name: str, **attributes: Any) -> type[Benchmark]:
    return type(name, (Changed,), attributes)


def check(kind: type[Benchmark], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_BENCHMARKS, "find", lambda _: kind)
    matters, neutral = [{"requests": 3}], [{"timeout": 3.0}]
    check_benchmark(
        {"type": "x"}, serve, folder=folder, matters=matters, neutral=neutral, patience=0.6
    )


def test_a_sound_benchmark_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Sound, tmp_path / "trials", monkeypatch)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (changed("A", metrics={"ttft_mean_s": float("nan")}), "not finite"),
        (changed("B", metrics={"speed": 1.0}), "does not name: {'speed'}"),
        (changed("C", without={"tpot_mean_s"}), "missing: .*tpot_mean_s"),
        (changed("D", metrics={"requests": 23.0}), "23.0 requests were sent"),
        (changed("E", metrics={"success_rate": 0.5}), "requests_per_s"),
        (changed("F", metrics={"output_tokens": 3.0}), "output_tokens_per_s"),
        (changed("G", metrics={"ttft_p50_s": 9.0}), "ttft is out of order"),
        (changed("H", metrics={"itl_mean_s": 9.0}), "mean of itl is outside"),
        (changed("I", metrics={"concurrency": 9.0}), "concurrency 9.0 instead of 4"),
        (changed("J", metrics={"duration_s": 9.0}), "9.0 s in a run of 0.5 s"),
        (changed("K", others={"environment": {}}), "which tool measured"),
        (changed("L", others={"artifacts": {"a": "/etc/passwd"}}), "artifact a is not in"),
        (changed("M", others={"data": {"failures": {"no": 1}}}), "does not count the failures"),
        (changed("N", others={"data": {"when": (1, 2)}}), "data is not JSON"),
        (SameForEverySeed, "another seed sends the same"),
        (OtherEveryTime, "equal seeds send other"),
        (LosesWindows, "20 requests in all windows"),
        (RetriesFailures, "success_rate 1.0 instead of 0.875"),
        (SurvivesEverything, "a service that all_fail gives"),
        (NotLate, "lateness is a failure tool"),
        (OfAnotherStage, "is said to be one of other"),
        (LeavesProcesses, "processes are left"),
    ],
)
def test_broken_benchmarks_are_caught(
    kind: type[Benchmark], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ContractViolation, match=said):
        check(kind, tmp_path / "trials", monkeypatch)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (TimeoutInIdentity, "changes the identity"),
        (Blind, "does not change identity"),
        (Invents, "invents"),
    ],
)
def test_broken_blocks_are_caught(
    kind: type[Benchmark], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_BENCHMARKS, "find", lambda _: kind)
    with pytest.raises(ContractViolation, match=said):
        check_block({"type": "x"}, matters=[{"requests": 3}], neutral=[{"timeout": 3.0}])
