"""The serving trial: start an engine with the proposed parameters, and measure it under load.

Kinds: ``baseline`` the configuration in use today, ``candidate`` a proposal, ``verification`` the
winner once more, on a fresh engine, with more repetitions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from cluster import write_json
from trainables._blocks import (
    model_folder,
    model_problems,
    model_ready,
    plugin_problems,
    plugin_schemas,
)
from trainables._measurement import Measurement
from trainables._trial import Json, Progress, Result, Steps, TrialFailure, TrialRun
from trainables._types import TrialType, VerificationPolicy, register_trial_type
from trainables.benchmarks import (
    DEFAULT,
    Benchmark,
    Target,
    benchmark_type,
    benchmark_types,
    make_benchmark,
)
from trainables.engines import (
    Deployment,
    Engine,
    Service,
    engine_type,
    engine_types,
    make_engine,
    start_service,
)
from trainables.engines._simulated import TYPE as SIMULATED
from trainables.engines._simulated import SimulatedEngine
from trainables.models import is_builtin, is_complete, model_fingerprint
from trainables.serving._checkpoint import weigh
from trainables.serving._course import SE, Answer, Course
from trainables.serving._goal import Goal
from trainables.serving._load import Load, OperatingPoint
from trainables.serving._memory import room
from trainables.serving._options import ServingOptions
from trainables.serving._positions import Placed, load_parameters, place, position_problems
from trainables.serving._simulated import (
    STAGE,
    Played,
    SimulatedService,
    model_identity,
    start_simulated,
)
from trainables.serving._simulated_benchmark import SimulatedBenchmark
from trainables.serving._simulated_checks import (
    TOOL_FAULTS,
    config_problems,
    simulation_problems,
)
from trainables.serving._vllm_memory import vllm_plan

_SHOWN_PORT = 8000
_HEADLINES = (
    "output_tokens_per_s",
    "requests_per_s",
    "success_rate",
    "concurrency",
    "request_rate",
    "ttft_mean_s",
    "ttft_p90_s",
    "ttft_p99_s",
    "tpot_mean_s",
    "tpot_p90_s",
    "tpot_p99_s",
    "e2el_mean_s",
    "startup_s",
)
_UNLUCKY = 3
"""Winners that may fail their verification: numbers of two runs differ by a tenth."""


_MORE_ROOM = "lower the longest permitted length, or give the KV cache more memory"


@register_trial_type("serving")
class ServingTrial(TrialType):
    """Parameters: any, each goes to its position. Metrics: those of
    :mod:`trainables.benchmarks`, and ``startup_s``, how long the engine took to serve."""

    Options = ServingOptions
    options: ServingOptions
    played: Played | None = None
    """The run of a simulated trial that its metrics are of, for pictures."""

    @classmethod
    def schema(cls) -> dict[str, Json]:
        document = super().schema()
        definitions = document.setdefault("$defs", {})
        engines = plugin_schemas(engine_types(), engine_type, definitions)
        tools = plugin_schemas(benchmark_types(), benchmark_type, definitions, default=DEFAULT)
        document["properties"]["engine"] = {"oneOf": engines}
        document["properties"]["benchmark"] = {"oneOf": tools}
        return document

    def prepare(self, trial: TrialRun) -> Generator[Progress, None, None]:
        yield from model_ready(trial, self.options.model)

    def identity(self, kind: str) -> Json:
        options = self.options
        document: dict[str, Json] = {
            "model": self._model_identity(),
            "engine": self._engine.identity(),
            "benchmark": self._benchmark.identity(),
            "load": self._load(kind).model_dump(mode="json"),
            "positions": dict(sorted(options.positions.items())),
            "repeats": self._repeats(kind),
            "seed": options.seed,
        }
        if isinstance(self._engine, SimulatedEngine):
            document["device_memory"] = options.early_rejection.device_memory
        if isinstance(self._load(kind), OperatingPoint):
            document["limits"] = [limit.to_json() for limit in self._goal.limits]
        return document

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        simulated = options.engine.get("type") == SIMULATED
        found = [*(config_problems if simulated else model_problems)(options.model)]
        found += [(f"trial.{p}", said) for p, said in position_problems(options.positions)]
        found += plugin_problems(
            "trial.engine",
            lambda: [(f"trial.engine.{p}", said) for p, said in self._engine.problems()],
        )
        found += plugin_problems(
            "trial.benchmark",
            lambda: [
                (f"trial.benchmark.{p}", said)
                for p, said in self._benchmark.problems()
                if not (simulated and p in TOOL_FAULTS)
            ],
        )
        searched = {"load": options.load, "refine": options.refine}
        for key, load in searched.items():
            if isinstance(load, OperatingPoint) and not self._goal.limits:
                said = "an operating point is the highest load within limits, and objective.limits"
                found.append((f"trial.{key}", f"{said} has none; give some, or a fixed load"))
        if options.refine is not None and isinstance(options.load, OperatingPoint):
            found.append(("trial.refine", "the load of all trials is searched already"))
        return found or self._simulation_problems()

    def parameter_problems(self, names: Iterable[str]) -> list[tuple[str, str]]:
        if not isinstance(self.options.load, OperatingPoint):
            return []
        said = "is searched on the running engine; leave it out, or say load: {type: fixed}"
        found = load_parameters(names, self.options.positions)
        return [(name, f"the {load} {said}") for load, name in found.items()]

    def metric_names(self) -> frozenset[str] | None:
        try:
            names = self._benchmark.metric_names()
        except (ValueError, KeyError, ImportError):
            return None  # said by the check of the benchmark itself
        return frozenset({*names, *(f"{name}{SE}" for name in names), "startup_s"})

    def headlines(self) -> tuple[str, ...]:
        return _HEADLINES

    def stage_names(self, kind: str) -> tuple[str, ...]:
        simulated = self.options.engine.get("type") == SIMULATED
        return ("benchmark",) if simulated else ("deploy", "health", "benchmark")

    def answers(self, measurement: Measurement) -> bool:
        """A rejection counts as long as its reason is switched on."""
        enabled = self.options.early_rejection.model_dump()
        by = measurement.data["stopped"]["by"]
        return bool(enabled.get({"kv_memory": "memory"}.get(by, by), True))

    def baseline(self) -> Mapping[str, Json] | None:
        return self.options.baseline

    def verifies(self) -> bool:
        return True

    def verification_policy(self) -> VerificationPolicy:
        finalists = self.options.finalists
        refines = self.options.refine is not None
        return VerificationPolicy(max(_UNLUCKY, finalists), finalists, refines)

    def run(self, trial: TrialRun) -> Steps:
        yield from model_ready(trial, self.options.model)
        placed = place(trial.spec.parameters, self.options.positions)
        if isinstance(self._engine, SimulatedEngine):
            return (yield from self._simulated(trial, placed, self._engine))
        if (said := self._too_big(trial, placed)) is not None:
            return _not_started(said)
        service = yield from start_service(
            trial,
            self._engine,
            model=self._folder(),
            options=placed.arguments,
            env=placed.env,
            config=placed.config,
        )
        with service:
            for stage, seconds in service.seconds.items():
                trial.stages.append({"name": stage, "seconds": seconds, "resumed": False})
            course = self._course(trial, service, placed, self._benchmark)
            answer = yield from service.watch(course.steps())
        return self._result(course, answer, service)

    def _simulated(self, trial: TrialRun, placed: Placed, engine: SimulatedEngine) -> Steps:
        """The trial on a virtual clock: no process, no port, no device."""
        rejects = self.options.early_rejection
        service = start_simulated(engine, self._shown(placed), rejects.device_memory)
        if (said := service.refusal) is not None:
            if trial.spec.kind == "candidate" and rejects.memory:
                return _not_started(said)
            raise TrialFailure("out_of_memory", STAGE, said, suggestion=_MORE_ROOM)
        course = self._course(trial, service, placed, SimulatedBenchmark(self._benchmark, service))
        answer = yield from service.watch(course.steps())
        self.played = service.run_of(answer.metrics)
        found = self._result(course, answer, service)
        data = {**found.data, "real_evaluation": False, "simulation": service.to_json()}
        return Result(found.metrics, data, {}, found.environment)

    def deliver(self, verified: Measurement, folder: Path) -> None:
        kept = ("concurrency", "request_rate")
        load = {name: verified.metrics[name] for name in kept if name in verified.metrics}
        real = verified.data.get("real_evaluation", True)
        told = {"measured" if real else "simulated": dict(verified.metrics)}
        write_json(folder / "operating_point.json", {"load": load, **told})

    def holds(self, verified: Measurement, folder: Path) -> bool:
        """Numbers need nothing to be kept."""
        return True

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        placed = place(parameters, self.options.positions)
        return self._engine.deliverables(self._shown(placed))

    def _shown(self, placed: Placed) -> Deployment:
        """A deployment for reading, not for starting."""
        engine = self._engine
        name = engine.options.served_model_name or self._folder().name
        port = engine.port or _SHOWN_PORT
        where = (self._folder(), name, engine.host, port)
        return Deployment(*where, placed.arguments, placed.env, placed.config)

    def _too_big(self, trial: TrialRun, placed: Placed) -> str | None:
        """Why by arithmetic the engine would refuse to start; None when it may."""
        rejects, options = self.options.early_rejection, self._engine.options
        if trial.spec.kind != "candidate" or not rejects.memory:
            return None
        if not options.type.startswith("vllm"):
            return None
        found = weigh(self._folder())
        if found is None:
            return None
        config, shape = found
        launch = self._engine.launch(self._shown(placed))
        plan = vllm_plan(launch.argv, config, rejects.device_memory)
        fits = None if plan is None else room(shape, plan)
        if fits is None or fits.enough:
            return None
        return (
            f"the KV cache has room for {fits.tokens} tokens at most, one sequence of the longest "
            f"permitted length takes {fits.needed}"
        )

    def _course(
        self,
        trial: TrialRun,
        service: Service | SimulatedService,
        placed: Placed,
        benchmark: Benchmark,
    ) -> Course:
        kind, context = trial.spec.kind, trial.spec.context
        incumbent = context.get("incumbent") if kind == "candidate" else None
        rejects = self.options.early_rejection
        goal = self._goal
        return Course(
            trial,
            self.options,
            benchmark,
            goal,
            Target(
                service.base_url,
                service.served_name,
                self._folder(),
                {name: str(value) for name, value in placed.env.items() if value is not None},
            ),
            placed,
            self._load(kind),
            self._repeats(kind),
            protected=kind != "candidate",
            incumbent=incumbent["value"]
            if incumbent and rejects.incumbent and incumbent["metric"] == goal.throughput
            else None,
            known=self._known_point(trial),
            health=self._engine.options.health_check,
        )

    def _known_point(self, trial: TrialRun) -> float | None:
        """The load at which the winner that is verified was measured."""
        load, source = self._load(trial.spec.kind), trial.spec.context.get("source")
        if load is self.options.refine:
            return None
        winner = None if source is None else Measurement.read(Path(source))
        if winner is None or not isinstance(load, OperatingPoint):
            return None
        return winner.metrics.get(load.by)

    def _result(
        self, course: Course, answer: Answer, service: Service | SimulatedService
    ) -> Result:
        data: dict[str, Json] = {"runs": course.runs}
        if answer.stopped is not None:
            data["stopped"] = dict(answer.stopped)
        notes = [*service.notes, *(f"{stage}: {said}" for stage, said in course.notes.items())]
        if answer.stopped is not None:
            notes.insert(0, f"given up ({answer.stopped['by']}): {answer.stopped['reason']}")
        if notes:
            data["note"] = "; ".join(notes)
        metrics = {**answer.metrics, "startup_s": round(sum(service.seconds.values()), 3)}
        environment = {"engine": self._engine.options.type, **self._engine.versions()}
        return Result(metrics, data, {}, {**environment, **course.environment})

    def _model_identity(self) -> Json:
        if isinstance(self._engine, SimulatedEngine):
            return model_identity(self._folder())
        return model_fingerprint(self._folder())

    def _simulation_problems(self) -> list[tuple[str, str]]:
        """Why the configuration of today cannot be simulated, as far as it can be told now."""
        engine, model = self._engine, self.options.model
        if not isinstance(engine, SimulatedEngine):
            return []
        if is_builtin(model) and not is_complete(self._folder()):
            return []
        shown = self._shown(place(self.options.baseline or {}, self.options.positions))
        memory = self.options.early_rejection.device_memory
        return simulation_problems(engine, shown, memory, self._benchmark)

    def _load(self, kind: str) -> Load:
        """How hard trials of a kind load their engine."""
        options = self.options
        if kind == "verification" and options.refine is not None:
            return options.refine
        return options.load

    def _repeats(self, kind: str) -> int:
        return self.options.repeats if kind == "candidate" else self.options.final_repeats

    def _folder(self) -> Path:
        return model_folder(self.options.model)

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(self.options.engine)

    @cached_property
    def _benchmark(self) -> Benchmark:
        return make_benchmark(self.options.benchmark)

    @property
    def _goal(self) -> Goal:
        return Goal.of(self.goal)


def _not_started(said: str) -> Result:
    """A candidate that its engine would refuse to start with."""
    stopped = {"by": "kv_memory", "metric": None, "reason": said}
    note = f"not started (kv_memory): {said}"
    return Result({}, {"stopped": stopped, "real_evaluation": False, "note": note})
