"""A benchmark run with a sentinel beside it, and its log watched."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from trainables._trial import Progress, TrialFailure, TrialRun
from trainables.benchmarks import Benchmark, BenchmarkResult, Load
from trainables.engines import HealthCheck
from trainables.engines._log import LogPart
from trainables.serving._engine_windows import EngineWindows
from trainables.serving._sentinel import Sentinel, Verdict
from trainables.serving._slo import Limit


class Watch:
    """Carries one run on until its end, or until its outcome is decided.

    Args:
        limits: The SLO; empty where the run goes on although it is broken.
        needed: Throughput metric and value that the run has to reach; None where any will do.
        base_url: The engine's, whose counters stand in where the benchmark tells no windows.
        health: Words in the benchmark's log that end the run.
    """

    def __init__(
        self,
        trial: TrialRun,
        benchmark: Benchmark,
        stage: str,
        load: Load,
        limits: Sequence[Limit],
        needed: tuple[str, float] | None,
        base_url: str,
        health: HealthCheck,
    ) -> None:
        self._trial = trial
        self._benchmark = benchmark
        self._stage = stage
        self._health = health
        self._log = LogPart(trial.folder / f"{stage}.log")
        self._seen = 0
        self._engine = None if benchmark.tells_windows else EngineWindows(base_url)
        self._sentinel = Sentinel(
            limits,
            load.requests or benchmark.requests(),
            load.concurrency or 1,
            needed,
            means_only=self._engine is not None,
        )

    def steps(
        self, run: Generator[Progress, None, BenchmarkResult]
    ) -> Generator[Progress, None, BenchmarkResult | Verdict]:
        """The run's result, or why it was ended.

        Raises ``TrialFailure`` as the run does; what the user has said about the benchmark's log
        goes before what we know of it.
        """
        try:
            while True:
                try:
                    progress = next(run)
                except StopIteration as end:
                    self._look_for_errors(ended=True)
                    result: BenchmarkResult = end.value
                    return result
                except TrialFailure:
                    self._look_for_errors(ended=True)
                    raise
                self._look_for_errors()
                if self._news() and (verdict := self._sentinel.verdict()) is not None:
                    return verdict
                yield progress
        finally:
            run.close()

    def metrics(self, load: Load) -> dict[str, float]:
        """What is known of a run that was ended early."""
        found = self._sentinel.estimates()
        if load.concurrency is not None:
            found["concurrency"] = float(load.concurrency)
        if load.request_rate is not None:
            found["request_rate"] = load.request_rate
        return found

    def _look_for_errors(self, *, ended: bool = False) -> None:
        self._log.look_for(
            self._health.benchmark_errors,
            what=f"the benchmark {self._benchmark.options.type}",
            stage=self._stage,
            lines=self._health.log_snippet_length,
            ended=ended,
        )

    def _news(self) -> bool:
        """Take new windows in; whether there were any."""
        if self._engine is None:
            windows = self._benchmark.windows(self._trial, self._stage)[self._seen :]
        else:
            windows = self._engine.news()
        for window in windows:
            self._sentinel.add(
                completed=window.completed,
                failed=window.failed,
                seconds=window.end - window.begin,
                output_tokens=window.output_tokens,
                latencies={"ttft": window.ttft_s, "tpot": window.tpot_s},
            )
        self._seen += len(windows)
        return bool(windows)
