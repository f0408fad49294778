"""Benchmarks by the name that ``benchmark: {type: ...}`` of an experiment gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from trainables._registry import Registry
from trainables._trial import Json, Progress, TrialRun
from trainables.benchmarks._metrics import ALL

DEFAULT = "builtin"


@dataclass(frozen=True)
class Target:
    """The service that is measured.

    Attributes:
        base_url: ``http://host:port``, without a slash at its end.
        served_name: The model's name in requests.
        model: Folder of the checkpoint, for its tokenizer.
        env: Tuned environment variables, which the tool gets as well.
    """

    base_url: str
    served_name: str
    model: Path
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """How a service is loaded.

    Attributes:
        requests: How many are sent; None: as many as the benchmark's own options say.
        concurrency: Requests under way at once at most (closed loop); None: no limit.
        request_rate: Requests sent per second (open loop, Poisson unless the options say
            otherwise); None: as fast as the concurrency allows.
    """

    requests: int | None = None
    concurrency: int | None = None
    request_rate: float | None = None


@dataclass(frozen=True)
class Window:
    """What a part of a running benchmark looked like, for decisions before its end.

    Attributes:
        begin, end: Seconds since the benchmark's first request.
        completed, failed: Requests that ended in it.
        output_tokens: Tokens that arrived in it.
        running: Requests under way at its end.
        ttft_s, tpot_s: One value for each request that ended (or, for TTFT, began to answer) in
            it; empty where they are not known one by one.
    """

    begin: float
    end: float
    completed: int
    failed: int
    output_tokens: int
    running: int = 0
    ttft_s: Sequence[float] = ()
    tpot_s: Sequence[float] = ()


@dataclass(frozen=True)
class BenchmarkResult:
    """What one run of a benchmark found.

    Attributes:
        metrics: As :mod:`trainables.benchmarks._metrics` defines them.
        seconds: Duration of the whole stage, the tool's own start included.
        data: Structured results: ``failures``, the reason of failed requests to their number;
            ``note``, what a person should know.
        artifacts: Name to path, inside the run's folder, of what the tool left: its report,
            per-request records.
        environment: Versions of the tools that made the numbers.
    """

    metrics: Mapping[str, float]
    seconds: float
    data: Mapping[str, Json] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Json] = field(default_factory=dict)


class Benchmark(ABC):
    """One way to put numbers on a running service.

    Attributes:
        Options: Model of the whole ``benchmark`` block, ``type`` included.
        tells_windows: Whether :meth:`windows` tells anything.
    """

    Options: ClassVar[type[BaseModel]]
    tells_windows: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
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
        """Measure once, in a process of its own whose log is ``<stage>.log`` in the trial's folder.

        Never blocks for more than about a second between two steps, and leaves nothing running
        however it ends; closing the generator ends the run at once. ``seed`` decides the
        workload and its arrivals: equal seeds send the same requests. Files that belong to the
        run lie in ``<stage>/`` in the trial's folder.

        Raises ``TrialFailure`` of this stage when the tool fails, dies, runs longer than
        ``timeout`` seconds (of the class ``timeout``), leaves a result that cannot be read, when
        no request succeeded, or when the service is gone at the end. Requests that a living
        service failed while others succeeded are a measurement with a ``success_rate`` below 1;
        none of them is sent again.
        """

    def requests(self) -> int | None:
        """How many requests a run sends that is told no number; None where that is not known."""
        return None

    def windows(self, trial: TrialRun, stage: str) -> Sequence[Window]:
        """The windows of a run so far, in order; empty for tools that tell nothing before the
        end. Cheap enough to be called every second."""
        return ()

    @abstractmethod
    def identity(self) -> Json:
        """What, besides service and load, decides the numbers: workload, its data, versions."""

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``benchmark`` block, message), without a service."""
        return []

    def metric_names(self) -> frozenset[str]:
        """Every metric a run may report."""
        return ALL


_BENCHMARKS: Registry[Benchmark] = Registry(
    "benchmark",
    "npu_tuner.benchmarks",
    {
        "builtin": "trainables.benchmarks._builtin",
        "vllm_benchmark": "trainables.benchmarks._vllm_benchmark",
        "ais_bench": "trainables.benchmarks._ais_bench",
    },
    default=DEFAULT,
)
register_benchmark = _BENCHMARKS.register
benchmark_types = _BENCHMARKS.names
benchmark_type = _BENCHMARKS.find
make_benchmark = _BENCHMARKS.make
