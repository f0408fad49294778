"""One serving trial on its live engine: benchmark runs until a number counts."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from trainables._figures import figure
from trainables._trial import Json, Progress, TrialRun
from trainables.benchmarks import Benchmark, BenchmarkResult, Load, Target
from trainables.engines import HealthCheck
from trainables.serving._goal import Goal
from trainables.serving._load import CalibratedLoad, FixedLoad, OperatingPoint
from trainables.serving._load import Load as LoadOptions
from trainables.serving._operating_point import Found, OperatingPointSearch, Probe
from trainables.serving._options import ServedOptions
from trainables.serving._positions import Placed
from trainables.serving._sentinel import Verdict
from trainables.serving._slo import margin
from trainables.serving._watch import Watch

Metrics: TypeAlias = dict[str, float]
_LEAST_REQUESTS = 16
_TURNS = 4
"""Requests of a short run for each that is under way: the first of them meet an idle engine."""
_SECONDS_OF_ARRIVALS = 10.0
_PROBES, _REPEATS = 500_000, 1_000
"""Keep the seeds of short runs and of repeated trials apart from those of full runs."""
SE = "_se"
"""Ending of the metric that is the standard error of another one."""


@dataclass(frozen=True)
class Answer:
    """What a trial found.

    Attributes:
        metrics: Of the runs that count; of the last short one where a candidate was given up.
        stopped: Why it was given up: ``{by, reason, metric?, bound?}``; None if it was not.
    """

    metrics: Mapping[str, float]
    stopped: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class _Done:
    """A run, or the mean of several; ``ended``: why it was ended early."""

    metrics: Metrics
    ended: Verdict | None = None


@dataclass
class Course:
    """Runs of the benchmark, one after the other.

    Attributes:
        protected: Whether full runs go on to their end in any case, as those of a baseline do.
        incumbent: Best throughput known of other candidates that keep the SLO.
        known: Operating point of the same configuration, from an earlier trial.
        health: Words in the benchmark's log that end the trial.
        runs: ``{stage, concurrency, request_rate, full, seconds, metrics}`` of each run.
    """

    trial: TrialRun
    options: ServedOptions
    benchmark: Benchmark
    goal: Goal
    target: Target
    placed: Placed
    load: LoadOptions
    repeats: int
    protected: bool = False
    incumbent: float | None = None
    known: float | None = None
    health: HealthCheck = field(default_factory=HealthCheck)
    runs: list[dict[str, Json]] = field(default_factory=list)
    environment: dict[str, Json] = field(default_factory=dict)
    notes: dict[str, Json] = field(default_factory=dict)

    def steps(self) -> Generator[Progress, None, Answer]:
        """Find the load and measure at it."""
        load = self.load
        if isinstance(load, OperatingPoint):
            return (yield from self._searched(load))
        fixed = self._fixed(load)
        given = self.trial.spec.kind == "baseline" and "request_rate" in self.placed.searched
        if isinstance(load, CalibratedLoad) and not given:
            first = (yield from self._run(fixed, "calibration", slo=False)).metrics
            reached = first["requests_per_s"] * load.factor
            limit = fixed.request_rate or math.inf
            fixed = replace(fixed, request_rate=min(reached, limit))
        done = yield from self._full(fixed, beat=True)
        return Answer(done.metrics, None if done.ended is None else _stopped(done.ended))

    def _fixed(self, load: FixedLoad | CalibratedLoad) -> Load:
        placed = self.placed
        return Load(
            concurrency=placed.concurrency
            if "concurrency" in placed.searched
            else load.concurrency,
            request_rate=placed.request_rate
            if "request_rate" in placed.searched
            else load.request_rate,
            requests=None if self.protected else load.requests,
        )

    def _searched(self, options: OperatingPoint) -> Generator[Progress, None, Answer]:
        search = OperatingPointSearch(
            options,
            self.goal.limits,
            self.goal.throughput,
            incumbent=self.incumbent,
            allowance=self.options.early_rejection.allowance,
            known=self.known,
        )
        measured: dict[Probe, Metrics] = {}
        while not isinstance(step := search.next(), Found):
            load = self._level(options, step.level)
            if step.full:
                done = yield from self._full(load)
            else:
                requests = self._short_run(options, step.level)
                done = yield from self._run(replace(load, requests=requests), "probe")
            measured[step] = done.metrics
            search.tell(step, done.metrics, None if done.ended is None else done.ended.margin)
        full = Probe(step.level, full=True)
        if step.reason != "beaten" and full in measured:
            return Answer(measured[full])
        metrics = measured[Probe(step.level, full=False)]
        return Answer(metrics, self._given_up(step, metrics))

    def _given_up(self, found: Found, metrics: Mapping[str, float]) -> dict[str, Json]:
        wanted = self.goal.throughput
        if found.reason == "beaten":
            assert found.bound is not None
            assert self.incumbent is not None
            most, best = figure(found.bound), figure(self.incumbent)
            said = f"at most {most} {wanted}, the best known has {best}"
            return {"by": "incumbent", "metric": wanted, "bound": found.bound, "reason": said}
        worst = max(self.goal.limits, key=lambda limit: margin(limit, metrics) or 0.0)
        value = metrics.get(worst.metric)
        said = f"{worst.metric} is {'missing' if value is None else figure(value)}"
        said += f" at the lowest load ({found.level:g}), in a short run"
        return {"by": "slo", "metric": worst.metric, "reason": said}

    def _level(self, options: OperatingPoint, level: float) -> Load:
        if options.by == "concurrency":
            return Load(concurrency=round(level))
        return Load(concurrency=options.concurrency, request_rate=level)

    def _short_run(self, options: OperatingPoint, level: float) -> int | None:
        """Requests of a short run; None where a full run sends no more."""
        whole = self.benchmark.requests()
        if options.probe_requests != "auto":
            wanted = options.probe_requests
        else:
            turns = _TURNS if options.by == "concurrency" else _SECONDS_OF_ARRIVALS
            wanted = max(_LEAST_REQUESTS, round(turns * level))
        return None if whole is not None and wanted >= whole else wanted

    def _full(self, load: Load, *, beat: bool = False) -> Generator[Progress, None, _Done]:
        """The mean of all repetitions, with standard errors where there are several."""
        runs: list[Metrics] = []
        for _ in range(self.repeats):
            done = yield from self._run(load, "benchmark", slo=not self.protected, beat=beat)
            if done.ended is not None:
                return done
            runs.append(done.metrics)
        return _Done(averaged(runs))

    def _run(
        self, load: Load, what: str, *, slo: bool = True, beat: bool = False
    ) -> Generator[Progress, None, _Done]:
        """One run. It may be ended because it breaks the SLO (``slo``) or cannot beat the
        incumbent (``beat``)."""
        stage = f"{what}-{len(self.runs) + 1}"
        begun = time.monotonic()
        steps = self.benchmark.run(
            self.trial,
            self.target,
            load,
            stage=stage,
            seed=self._seed(what),
            timeout=self.options.timeouts.benchmark,
        )
        watch = self._watch(load, stage, slo=slo, beat=beat)
        result = yield from watch.steps(steps)
        if isinstance(result, BenchmarkResult):
            self.environment |= result.environment
            if result.data.get("note"):
                self.notes[stage] = result.data["note"]
            done = _Done(dict(result.metrics))
        else:
            done = _Done(watch.metrics(load), result)
        self.runs.append(
            {
                "stage": stage,
                "concurrency": load.concurrency,
                "request_rate": load.request_rate,
                "full": what == "benchmark",
                "seconds": round(time.monotonic() - begun, 3),
                "metrics": done.metrics,
                "ended": None if done.ended is None else done.ended.reason,
            }
        )
        return done

    def _seed(self, what: str) -> int:
        """Each run on an engine has requests of its own, for the engine remembers those it has
        seen; the full runs of all candidates have the same."""
        earlier = sum(1 for run in self.runs if run["full"] == (what == "benchmark"))
        kind = 0 if what == "benchmark" else _PROBES
        return self.options.seed + kind + earlier + _REPEATS * self.trial.spec.repeat

    def _watch(self, load: Load, stage: str, *, slo: bool, beat: bool) -> Watch:
        rejects = self.options.early_rejection
        needed = None
        if beat and rejects.windows and self.incumbent is not None and not self.protected:
            needed = (self.goal.throughput, self.incumbent * (1 - rejects.allowance))
        limits = self.goal.limits if slo and rejects.windows else ()
        return Watch(
            self.trial,
            self.benchmark,
            stage,
            load,
            limits,
            needed,
            self.target.base_url,
            self.health,
        )


def _stopped(verdict: Verdict) -> dict[str, Json]:
    """Why a candidate was given up while a run of it went on."""
    found: dict[str, Json] = {"by": "windows", "metric": verdict.metric, "reason": verdict.reason}
    if verdict.margin is None:
        found["bound"] = verdict.bound
    return found


def averaged(runs: Sequence[Mapping[str, float]]) -> Metrics:
    """Mean of each metric that all runs have, and its standard error under ``<metric>_se``."""
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    means = {name: statistics.fmean(run[name] for run in runs) for name in shared}
    if len(runs) > 1:
        means |= {
            f"{name}{SE}": statistics.stdev(run[name] for run in runs) / math.sqrt(len(runs))
            for name in shared
        }
    return means
