"""The benchmark ``builtin``: our own streaming client, for nodes without another tool."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from trainables._trial import Json, Progress, TrialRun
from trainables.benchmarks._benchmark import (
    Benchmark,
    BenchmarkResult,
    Load,
    Target,
    Window,
    register_benchmark,
)
from trainables.benchmarks._builtin_options import METHOD, BuiltinOptions
from trainables.benchmarks._builtin_windows import FILE, WindowReader
from trainables.benchmarks._workload import Workload, make_workload

_PROGRAM = "trainables.benchmarks.client"
_NEUTRAL = {"request_timeout", "window_s", "save_itl", "workload"}


@register_benchmark("builtin")
class BuiltinBenchmark(Benchmark):
    """Sends the workload from one process and measures what comes back, token by token."""

    Options = BuiltinOptions
    tells_windows = True
    options: BuiltinOptions

    def __init__(self, options: BuiltinOptions) -> None:
        super().__init__(options)
        self._readers: dict[Path, WindowReader] = {}

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
        asked = {"load": asdict(load), "seed": seed, "benchmark": self.identity()}
        request = {
            "options": self.options.model_dump(mode="json"),
            "target": {
                "base_url": target.base_url,
                "served_name": target.served_name,
                "model": str(target.model),
            },
            "load": asdict(load),
            "seed": seed,
            "folder": str(trial.folder / stage),
            "asked": asked,
        }
        before = len(trial.stages)
        steps = trial.program(
            stage,
            _PROGRAM,
            request,
            timeout=timeout,
            valid=lambda known: known.get("asked") == asked and _there(known["artifacts"]),
            read_meanwhile=[_windows_file(trial, stage)],
        )
        found = yield from self._described(steps, trial, stage, load)
        seconds = sum(one["seconds"] for one in trial.stages[before:])
        return BenchmarkResult(
            metrics=found["metrics"],
            seconds=max(seconds, found["metrics"]["duration_s"]),
            data=found["data"],
            artifacts=found["artifacts"],
            environment=found["environment"],
        )

    def _described(
        self,
        steps: Generator[Progress, None, dict[str, Json]],
        trial: TrialRun,
        stage: str,
        load: Load,
    ) -> Generator[Progress, None, dict[str, Json]]:
        """``steps``, each with how far the run is."""
        wanted = load.requests or self.options.requests
        try:
            while True:
                try:
                    progress = next(steps)
                except StopIteration as end:
                    result: dict[str, Json] = end.value
                    return result
                windows = self.windows(trial, stage)
                ended = sum(one.completed + one.failed for one in windows)
                yield Progress(progress.stage, f"{ended} of {wanted} requests")
        finally:
            steps.close()

    def windows(self, trial: TrialRun, stage: str) -> Sequence[Window]:
        file = _windows_file(trial, stage)
        return self._readers.setdefault(file, WindowReader(file)).windows()

    def requests(self) -> int:
        return self.options.requests

    def identity(self) -> Json:
        document = self.options.model_dump(mode="json", exclude=_NEUTRAL)
        return {**document, "method": METHOD, "workload": self._workload.identity()}

    def problems(self) -> list[tuple[str, str]]:
        return [(f"workload.{path}", said) for path, said in self._workload.problems()]

    @cached_property
    def _workload(self) -> Workload:
        return make_workload(self.options.workload)


def _windows_file(trial: TrialRun, stage: str) -> Path:
    return trial.folder / stage / FILE


def _there(artifacts: Mapping[str, str]) -> bool:
    return all(Path(path).exists() for path in artifacts.values())
