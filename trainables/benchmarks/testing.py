"""Conformance suite of the benchmark contract, for our adapters and those of third parties.

One call from a test checks everything, with real processes::

    def test_my_benchmark_keeps_the_contract(tmp_path):
        check_benchmark({"type": "mine", ...}, serve, folder=tmp_path, matters=[{"requests": 9}])

``serve`` starts services of one sort or another, see :class:`Served`. The benchmark measures a
healthy one three times, one that fails some requests, all of them, dies, and never answers; it is
given up, and killed. Whatever breaks the contract raises :class:`ContractViolation`.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import psutil

from cluster import find_processes, sweep
from trainables._contract import (
    ContractViolation as ContractViolation,
)
from trainables._contract import (
    json_identity,
    require,
    require_nothing_left,
)
from trainables._trial import Json, Progress, TrialFailure, TrialRun
from trainables.benchmarks._benchmark import (
    Benchmark,
    BenchmarkResult,
    Load,
    Target,
    Window,
    make_benchmark,
)
from trainables.benchmarks._metrics import ALL, REQUIRED
from trainables.benchmarks._sound import (
    require_files,
    require_sound,
    require_windows,
)
from trainables.engines.testing import drive, trial_in

SPARED = 8
"""Completions that a service of the sort ``some_fail`` answers before the first it fails."""
FAILURES = 3
"""Completions it fails then, before it answers again."""
LIVES_FOR = 12
"""Completions that a service of the sort ``dies`` answers before the next one kills it."""

Condition: TypeAlias = Literal["healthy", "some_fail", "all_fail", "dies", "hangs"]
"""``healthy``: answers everything. ``some_fail``: answers status 500 to completions number
``SPARED + 1`` to ``SPARED + FAILURES``, warm-ups counted. ``all_fail``: answers 500 to all of
them. ``dies``: its process ends when more than ``LIVES_FOR`` completions were asked for.
``hangs``: accepts completions and never answers. Its other paths always work."""

_LOOK_S = 60.0
_END_S = 120.0


@dataclass(frozen=True)
class Served:
    """A service that runs as long as its context lasts.

    Attributes:
        target: Where it is. Its processes do not belong to the run of any trial here.
        requests: The bodies of the completions and chats it was asked for so far, as they came.
    """

    target: Target
    requests: Callable[[], Sequence[Mapping[str, Json]]]


Serve: TypeAlias = Callable[[Condition], AbstractContextManager[Served]]


@dataclass(frozen=True)
class _Suite:
    """The arguments of :func:`check_benchmark` that its parts share."""

    block: Mapping[str, Json]
    serve: Serve
    load: Load
    folder: Path
    run_id: str
    patience: float

    def trial(self, name: str) -> TrialRun:
        return trial_in(self.folder / name, self.run_id)

    @property
    def requests(self) -> int:
        return self.load.requests or 0


def check_benchmark(
    block: Mapping[str, Json],
    serve: Serve,
    *,
    folder: Path,
    load: Load | None = None,
    matters: Iterable[Mapping[str, Json]] = (),
    neutral: Iterable[Mapping[str, Json]] = (),
    seeded: bool = True,
    patience: float = 15.0,
) -> None:
    """Check the whole contract.

    Args:
        block: A ``benchmark`` block that can be carried out here, without retries of requests and
            with at most ``SPARED`` warm-ups.
        serve: Starts a service in the condition it is given.
        folder: Empty folder for trials.
        load: Load of every run, at least 24 requests; by default 24, four at once.
        matters: Changes of the block, each of which changes results.
        neutral: Changes of the block that only concern where, or how long one waits.
        seeded: Whether another seed sends other requests.
        patience: Seconds after which a run on a service that never answers has certainly sent its
            first request, the tool's own start included.
    """
    load = load or Load(requests=24, concurrency=4)
    check_block(block, matters=matters, neutral=neutral)
    suite = _Suite(block, serve, load, folder, f"benchmark-{uuid.uuid4().hex}", patience)
    try:
        _check_life(suite, seeded=seeded)
        failed = _check_some_failures(suite)
        for condition in ("all_fail", "dies"):
            _check_failure(suite, condition)
        _check_lateness(suite)
        _check_giving_up(suite)
        _check_second_attempt(suite, TrialRun(failed.spec), "bench")
        _check_death_of_the_tool(suite)
    finally:
        sweep(suite.run_id, grace_s=0)


def check_block(
    block: Mapping[str, Json],
    *,
    matters: Iterable[Mapping[str, Json]] = (),
    neutral: Iterable[Mapping[str, Json]] = (),
) -> None:
    """Check what can be checked without a service; arguments as :func:`check_benchmark`."""
    benchmark = make_benchmark(block)
    options = benchmark.options
    again = type(options).model_validate(json.loads(json.dumps(options.model_dump(mode="json"))))
    require(again == options, f"options change on the way through JSON: {options} -> {again}")
    require(benchmark.problems() == [], f"a sound block has problems: {benchmark.problems()}")
    names = benchmark.metric_names()
    require(names >= REQUIRED, f"metric_names() lacks {REQUIRED - names}")
    require(names <= ALL, f"metric_names() invents {names - ALL}")
    identity = json_identity(make_benchmark(block))
    require(
        identity == json_identity(make_benchmark(block)),
        "the identity of one block is not always the same",
    )
    resolved = options.model_dump(mode="json")
    require(
        identity == json_identity(make_benchmark(resolved)),
        "resolving the block changes its identity",
    )
    for change in neutral:
        require(
            identity == json_identity(make_benchmark({**block, **change})),
            f"{change} changes the identity",
        )
    for change in matters:
        require(
            identity != json_identity(make_benchmark({**block, **change})),
            f"{change} does not change identity",
        )


def _check_life(suite: _Suite, *, seeded: bool) -> None:
    benchmark = make_benchmark(suite.block)
    trial = suite.trial("life")
    with suite.serve("healthy") as service:
        sent = []
        for stage, seed in (("first", 1), ("second", 1), ("third", 2)):
            before = len(service.requests())
            found = _measured(suite, benchmark, trial, service.target, stage, seed)
            require_sound(benchmark, found, suite.load)
            require_files(found, trial, stage)
            require(_metric(found, "success_rate") == 1, "a healthy service fails requests")
            require_windows(found, benchmark.windows(trial, stage), suite.requests)
            sent.append(_essence(service.requests()[before:]))
        require(len(sent[0]) >= suite.requests, f"{len(sent[0])} requests arrived")
        require(sent[0] == sent[1], "equal seeds send other requests")
        require(not seeded or sent[0] != sent[2], "another seed sends the same requests")


def _check_some_failures(suite: _Suite) -> TrialRun:
    benchmark = make_benchmark(suite.block)
    trial = suite.trial("some-fail")
    with suite.serve("some_fail") as service:
        found = _measured(suite, benchmark, trial, service.target, "bench", 1)
    require_sound(benchmark, found, suite.load)
    share = 1 - FAILURES / suite.requests
    rate = _metric(found, "success_rate")
    require(math.isclose(rate, share, abs_tol=1e-6), f"success_rate {rate} instead of {share}")
    said = found.data.get("failures")
    counted = isinstance(said, Mapping) and sum(said.values()) == FAILURES
    require(counted, f"data['failures'] does not count the failures by their message: {said}")
    return trial


def _check_second_attempt(suite: _Suite, trial: TrialRun, stage: str) -> None:
    """A run in the place of one with failures; nothing of those is told as its own."""
    benchmark = make_benchmark(suite.block)
    with suite.serve("hangs") as service:
        steps = benchmark.run(
            trial, service.target, suite.load, stage=stage, seed=2, timeout=_never(suite)
        )
        _until_asked(suite, service, steps)
        failed = sum(window.failed for window in benchmark.windows(trial, stage))
        steps.close()
    require(not failed, f"windows tell {failed} failures of an earlier attempt")


def _check_failure(suite: _Suite, condition: Literal["all_fail", "dies"]) -> None:
    benchmark = make_benchmark(suite.block)
    trial = suite.trial(condition.replace("_", "-"))
    with suite.serve(condition) as service:
        try:
            found = _measured(suite, benchmark, trial, service.target, "bench", 1)
        except TrialFailure as failure:
            _require_explained(failure, "bench")
        else:
            raise ContractViolation(f"a service that {condition} gives {dict(found.metrics)}")
    require_nothing_left(trial.spec.run_id)


def _check_lateness(suite: _Suite) -> None:
    benchmark = make_benchmark(suite.block)
    trial = suite.trial("late")
    with suite.serve("hangs") as service:
        steps = benchmark.run(
            trial, service.target, suite.load, stage="bench", seed=1, timeout=suite.patience
        )
        try:
            drive(steps, within_s=suite.patience + _END_S)
        except TrialFailure as failure:
            _require_explained(failure, "bench")
            require(failure.failure == "timeout", f"lateness is a failure {failure.failure}")
        else:
            raise ContractViolation("a service that never answers gives numbers")
    require_nothing_left(trial.spec.run_id)


def _check_giving_up(suite: _Suite) -> None:
    benchmark = make_benchmark(suite.block)
    trial = suite.trial("given-up")
    with suite.serve("hangs") as service:
        steps = benchmark.run(
            trial, service.target, suite.load, stage="bench", seed=1, timeout=_never(suite)
        )
        _until_asked(suite, service, steps)
        begun = time.monotonic()
        steps.close()
        seconds = time.monotonic() - begun
        require(seconds < _END_S, f"giving up took {seconds:.1f} s")
    require_nothing_left(trial.spec.run_id)


def _check_death_of_the_tool(suite: _Suite) -> None:
    benchmark = make_benchmark(suite.block)
    trial = suite.trial("killed")
    with suite.serve("hangs") as service:
        steps = benchmark.run(
            trial, service.target, suite.load, stage="bench", seed=1, timeout=_never(suite)
        )
        _until_asked(suite, service, steps)
        for found in find_processes(suite.run_id):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(found.pid).kill()
        try:
            drive(steps, within_s=_END_S)
        except TrialFailure as failure:
            _require_explained(failure, "bench")
        else:
            raise ContractViolation("a benchmark that was killed gives numbers")
    require_nothing_left(trial.spec.run_id)


def _until_asked(
    suite: _Suite, service: Served, steps: Generator[Progress, None, BenchmarkResult]
) -> None:
    bound = suite.patience + _END_S
    deadline = time.monotonic() + bound
    while not service.requests():
        next(steps)
        require(time.monotonic() < deadline, f"no request within {bound:g} s")


def _measured(
    suite: _Suite, benchmark: Benchmark, trial: TrialRun, target: Target, stage: str, seed: int
) -> BenchmarkResult:
    timeout = _never(suite)
    steps = benchmark.run(trial, target, suite.load, stage=stage, seed=seed, timeout=timeout)
    found: BenchmarkResult = drive(_watched(steps, benchmark, trial, stage), within_s=timeout)
    require_nothing_left(trial.spec.run_id)
    return found


def _watched(
    steps: Generator[Progress, None, BenchmarkResult],
    benchmark: Benchmark,
    trial: TrialRun,
    stage: str,
) -> Generator[Progress, None, BenchmarkResult]:
    """``steps``, with a look at the windows after each, as early rejection takes it."""
    known: Sequence[Window] = ()
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            found: BenchmarkResult = end.value
            return found
        begun = time.monotonic()
        windows = benchmark.windows(trial, stage)
        seconds = time.monotonic() - begun
        require(seconds < _LOOK_S, f"windows() took {seconds:.1f} s")
        require(list(windows[: len(known)]) == list(known), "windows change afterwards")
        known = tuple(windows)
        yield progress


def _never(suite: _Suite) -> float:
    return 4 * suite.patience + 60


def _essence(bodies: Iterable[Mapping[str, Json]]) -> list[str]:
    """What is asked, in an order of its own."""
    keys = ("prompt", "messages", "max_tokens", "max_completion_tokens")
    return sorted(json.dumps({key: body.get(key) for key in keys}) for body in bodies)


def _metric(found: BenchmarkResult, name: str) -> float:
    return float(found.metrics[name])


def _require_explained(failure: TrialFailure, stage: str) -> None:
    require(bool(str(failure)), "a failure without a message")
    require(failure.stage == stage, f"a failure of {stage} is said to be one of {failure.stage}")
