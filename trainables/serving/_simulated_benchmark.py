"""A benchmark that plays on a virtual clock what another one would send."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainables._program import StageError
from trainables._trial import POLL_SECONDS, Json, Progress, TrialFailure, TrialRun
from trainables.benchmarks import Benchmark, BenchmarkResult, Load, Target, Window
from trainables.engines._simulated import METHOD
from trainables.latency import LatencyError
from trainables.serving._simulated_load import Play, play
from trainables.serving._simulated_service import Played, SimulatedService
from trainables.serving._simulated_windows import windows_of
from trainables.simulation import Batch, LatencyModel, Simulated
from trainables.simulation._metrics import measure

_LOOKS = 64
"""How often a run that is played can be given up at most."""
_WINDOW_S = 1.0


class _Stopped(Exception):
    """Nobody waits for the simulation any more."""


class _Stoppable(LatencyModel):
    """A latency model that ends a simulation when it is told to."""

    def __init__(self, model: LatencyModel, stop: threading.Event) -> None:
        self._model = model
        self._stop = stop

    def seconds(self, batch: Batch) -> float:
        if self._stop.is_set():
            raise _Stopped
        return self._model.seconds(batch)

    def decode_seconds(self, batch: Batch, iterations: int) -> NDArray[np.float64]:
        if self._stop.is_set():
            raise _Stopped
        return self._model.decode_seconds(batch, iterations)


class SimulatedBenchmark(Benchmark):
    """Plays what another benchmark sends.

    Args:
        prompts_only: Whether answers end after their first token.
    """

    tells_windows = True

    def __init__(
        self, benchmark: Benchmark, service: SimulatedService, *, prompts_only: bool = False
    ) -> None:
        super().__init__(benchmark.options)
        self._benchmark = benchmark
        self._service = service
        self._prompts_only = prompts_only
        self._windows: dict[str, Sequence[Window]] = {}

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
        what, simulated, wall = yield from self._played(target, load, stage, seed)
        _require_success(simulated, stage)
        bounds = None if what.goodput is None else what.goodput.model_dump(exclude_none=True)
        metrics = measure(simulated, what.load, request_rate=load.request_rate, goodput=bounds)
        self._account(Played(stage, what.load, simulated, metrics, wall), what.notes, timeout)
        trial.stages.append({"name": stage, "seconds": round(wall, 3), "resumed": False})
        yield from self._revealed(stage, simulated)
        failures = _failures(simulated)
        return BenchmarkResult(
            metrics=metrics,
            seconds=max(wall, metrics["duration_s"]),
            data={"failures": failures, "note": _refusal_note(failures, metrics["requests"])},
            environment={"benchmark": f"simulated/{METHOD}"},
        )

    def requests(self) -> int | None:
        return self._benchmark.requests()

    def windows(self, trial: TrialRun, stage: str) -> Sequence[Window]:
        return self._windows.get(stage, ())

    def identity(self) -> Json:
        return self._benchmark.identity()

    def metric_names(self) -> frozenset[str]:
        return self._benchmark.metric_names()

    def _shortened(self, what: Play) -> Play:
        """Answers as long as they are let become."""
        most = 1 if self._prompts_only else self._service.most_output
        if most is None or all(one.output_tokens <= most for one in what.load.requests):
            return what
        requests = [
            replace(one, output_tokens=min(one.output_tokens, most)) for one in what.load.requests
        ]
        shorter = replace(what, load=replace(what.load, requests=requests))
        if self._prompts_only:
            return shorter
        note = f"answers end after {most} tokens (maxIterTimes)"
        return replace(shorter, notes=(*what.notes, note))

    def _played(
        self, target: Target, load: Load, stage: str, seed: int
    ) -> Generator[Progress, None, tuple[Play, Simulated, float]]:
        """What is sent, what became of it, and the seconds that took, in a thread beside this one,
        which stays free to be told to stop."""
        stop = threading.Event()

        def work() -> tuple[Play, Simulated, float]:
            begun = time.monotonic()
            what = self._shortened(play(self._benchmark, load, seed, target.model))
            found = self._service.simulate(what.load, lambda model: _Stoppable(model, stop))
            return what, found, time.monotonic() - begun

        with ThreadPoolExecutor(1, "simulation") as pool:
            future = pool.submit(work)
            try:
                while True:
                    try:
                        return future.result(POLL_SECONDS)
                    except TimeoutError:
                        yield Progress(stage, "simulated")
            except StageError as error:
                said, suggestion = str(error), error.suggestion
                raise TrialFailure(error.failure, stage, said, suggestion=suggestion) from error
            except LatencyError as error:
                raise TrialFailure("input", stage, str(error)) from error
            finally:
                stop.set()

    def _account(self, played: Played, notes: Sequence[str], timeout: float) -> None:
        service, duration = self._service, played.metrics["duration_s"]
        service.account(played)
        for said in notes:
            service.note(said)
        if duration > timeout:
            said = f"a real run would take {duration:.0f} s, more than timeouts.benchmark"
            service.note(f"{said} ({timeout:g} s)")

    def _revealed(self, stage: str, simulated: Simulated) -> Generator[Progress, None, None]:
        """Show the windows bit by bit, as they would be seen while a real run goes on."""
        if not self._benchmark.tells_windows:
            return
        seconds = getattr(self.options, "window_s", _WINDOW_S)
        windows = windows_of(simulated, seconds)
        step = max(1, -(-len(windows) // _LOOKS))
        for end in range(step, len(windows) + step, step):
            self._windows[stage] = windows[:end]
            yield Progress(stage, f"{windows[min(end, len(windows)) - 1].end:.0f} s played")


def _failures(simulated: Simulated) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in simulated.refused:
        found[one.reason] = found.get(one.reason, 0) + 1
    return found


def _refusal_note(failures: Mapping[str, int], requests: float) -> str:
    if not failures:
        return ""
    reason, _ = max(failures.items(), key=lambda item: item[1])
    return f"{sum(failures.values())} of {requests:.0f} requests are refused: {reason}"


def _require_success(simulated: Simulated, stage: str) -> None:
    if simulated.served:
        return
    failures = _failures(simulated)
    reason = next(iter(failures), "there is none")
    raise TrialFailure("input", stage, f"all {len(simulated.refused)} requests failed: {reason}")
