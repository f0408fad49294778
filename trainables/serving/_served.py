"""What all trial types share that measure a served model under load."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from cluster import Bundle, Placement, device_memory, write_json
from trainables._blocks import (
    Problems,
    model_folder,
    model_problems,
    model_ready,
    plugin_problems,
    plugin_schemas,
)
from trainables._measurement import Measurement
from trainables._trial import Json, Progress, Result, Steps, TrialFailure, TrialRun
from trainables._types import TrialType, VerificationPolicy
from trainables.benchmarks import (
    DEFAULT,
    Benchmark,
    Target,
    benchmark_type,
    benchmark_types,
    make_benchmark,
)
from trainables.engines import Deployment, Engine, engine_type, engine_types, make_engine
from trainables.engines._simulated import TYPE as SIMULATED
from trainables.engines._simulated import SimulatedEngine
from trainables.models import model_fingerprint
from trainables.serving._checkpoint import weigh
from trainables.serving._course import SE, Answer, Course
from trainables.serving._goal import Goal
from trainables.serving._load import Load, OperatingPoint
from trainables.serving._memory import room
from trainables.serving._options import ServedOptions
from trainables.serving._positions import Placed, load_parameters, position_problems
from trainables.serving._simulated import STAGE, model_identity
from trainables.serving._simulated_benchmark import SimulatedBenchmark
from trainables.serving._simulated_checks import TOOL_FAULTS, config_problems
from trainables.serving._simulated_service import Played, SimulatedService
from trainables.serving._vllm_memory import vllm_plan

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
_DEVICES = ("NPU", "GPU")
_MORE_ROOM = "lower the longest permitted length, or give the KV cache more memory"
_UNLUCKY = 3
"""Winners that may fail their verification: numbers of two runs differ by a tenth."""


class ServedTrial(TrialType):
    """Settings, identity and numbers of a trial; its subclasses say what serves."""

    Options: ClassVar[type[ServedOptions]]
    options: ServedOptions
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

    def settings(self) -> dict[str, Json]:
        """As the base has it, for other nodes and later sessions, whose processes run in other
        folders: the paths of all blocks are absolute, names of programs that are searched in PATH
        are as they were."""
        settings = super().settings()
        settings["options"] |= {name: _resolved(block) for name, block in self._blocks().items()}
        if isinstance(self._engine, SimulatedEngine):
            settings["options"]["engine"] |= {
                "of": _resolved(self._engine.of.options),
                "latency": _resolved(self._engine.latency.options),
            }
        return settings

    def _blocks(self) -> dict[str, BaseModel]:
        """The blocks that plug-ins define, by name."""
        return {"engine": self._engine.options, "benchmark": self._benchmark.options}

    def prepare(self, trial: TrialRun) -> Generator[Progress, None, None]:
        yield from model_ready(trial, self.options.model)

    def placement(self, parameters: Mapping[str, Json], kind: str, one: Bundle) -> Placement:
        return Placement((without_devices(one),)) if self._simulates else Placement((one,))

    def devices(self, parameters: Mapping[str, Json], kind: str) -> int | None:
        return 0 if self._simulates else None

    def identity(self, kind: str) -> Json:
        options = self.options
        document: dict[str, Json] = {
            "model": self._model_identity(),
            "engine": self._engine.identity(),
            "benchmark": self._benchmark_of(kind).identity(),
            "load": self._load(kind).model_dump(mode="json"),
            "positions": dict(sorted(options.positions.items())),
            "repeats": self._repeats(kind),
            "seed": options.seed,
        }
        if self._simulates:
            document["device_memory"] = options.early_rejection.device_memory
        if isinstance(self._load(kind), OperatingPoint):
            document["limits"] = [limit.to_json() for limit in self._goal_of(kind).limits]
        return document

    def problems(self) -> list[tuple[str, str]]:
        options = self.options
        simulated = self._simulates
        found = [*(config_problems if simulated else model_problems)(options.model)]
        found += self._position_problems()
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
        return found

    def _position_problems(self) -> Problems:
        faults = position_problems(self.options.positions)
        return [(f"trial.{path}", said) for path, said in faults]

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

    def deliver(self, verified: Measurement, folder: Path) -> None:
        kept = ("concurrency", "request_rate")
        load = {name: verified.metrics[name] for name in kept if name in verified.metrics}
        real = verified.data.get("real_evaluation", True)
        told = {"measured" if real else "simulated": dict(verified.metrics)}
        write_json(folder / "operating_point.json", {"load": load, **told})

    def holds(self, verified: Measurement, folder: Path) -> bool:
        """Numbers need nothing to be kept."""
        return True

    def _course(
        self,
        trial: TrialRun,
        base_url: str,
        served_name: str,
        placed: Placed,
        benchmark: Benchmark,
    ) -> Course:
        """The runs of a trial against the service at ``base_url``."""
        kind, context = trial.spec.kind, trial.spec.context
        incumbent = context.get("incumbent") if kind == "candidate" else None
        rejects = self.options.early_rejection
        goal = self._goal_of(kind)
        return Course(
            trial,
            self.options,
            benchmark,
            goal,
            Target(
                base_url,
                served_name,
                self._folder(),
                {name: str(value) for name, value in placed.env.items() if value is not None},
            ),
            placed,
            self._load(kind),
            self._repeats(kind),
            protected=kind in ("baseline", "verification"),
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

    def play(
        self,
        trial: TrialRun,
        service: SimulatedService,
        placed: Placed,
        *,
        prompts_only: bool = False,
    ) -> Steps:
        """The trial on a virtual clock: no process, no port, no device.

        Args:
            prompts_only: Whether answers end after their first token.

        Raises:
            TrialFailure: An engine would not start, in a trial that may not be given up; or what
                is to be played is not known.
        """
        kind = trial.spec.kind
        if (said := service.refusal) is not None:
            if self.options.early_rejection.memory and kind not in ("baseline", "verification"):
                return not_started(said)
            raise TrialFailure("out_of_memory", STAGE, said, suggestion=_MORE_ROOM)
        benchmark = SimulatedBenchmark(self._benchmark_of(kind), service, prompts_only=prompts_only)
        course = self._course(trial, service.base_url, service.served_name, placed, benchmark)
        answer = yield from course.steps()
        self.played = service.run_of(answer.metrics)
        found = self._result(course, answer, 0.0, service.notes)
        data = {**found.data, "real_evaluation": False, "simulation": service.to_json()}
        return Result(found.metrics, data, {}, found.environment)

    def _result(
        self, course: Course, answer: Answer, startup_s: float, notes: Iterable[str]
    ) -> Result:
        """What a course found on something that took ``startup_s`` seconds to serve."""
        data: dict[str, Json] = {"runs": course.runs}
        if answer.stopped is not None:
            data["stopped"] = dict(answer.stopped)
        said = [*notes, *(f"{stage}: {note}" for stage, note in course.notes.items())]
        if answer.stopped is not None:
            said.insert(0, f"given up ({answer.stopped['by']}): {answer.stopped['reason']}")
        if said:
            data["note"] = "; ".join(said)
        metrics = {**answer.metrics, "startup_s": round(startup_s, 3)}
        environment = {"engine": self._engine.options.type, **self._engine.versions()}
        return Result(metrics, data, {}, {**environment, **course.environment})

    def _too_big(self, deployment: Deployment) -> str | None:
        """Why by arithmetic the engine would refuse to start; None when it may."""
        rejects = self.options.early_rejection
        if not rejects.memory or not self._engine.options.type.startswith("vllm"):
            return None
        found = weigh(self._folder())
        if found is None:
            return None
        config, shape = found
        launch = self._engine.launch(deployment)
        plan = vllm_plan(launch.argv, config, rejects.device_memory or self._memory_here())
        fits = None if plan is None else room(shape, plan)
        if fits is None or fits.enough:
            return None
        return (
            f"the KV cache has room for {fits.tokens} tokens at most, one sequence of the longest "
            f"permitted length takes {fits.needed}"
        )

    def _memory_here(self) -> int | None:
        """Bytes of the smallest NPU of this node; None where the engine needs none, or none tells.

        The driver keeps some of it, so an engine never has more.
        """
        if self._engine.options.type != "vllm-ascend":
            return None
        return min((size for size in device_memory() if size > 0), default=None)

    def _model_identity(self) -> Json:
        if isinstance(self._engine, SimulatedEngine):
            return model_identity(self._folder())
        return model_fingerprint(self._folder())

    def _load(self, kind: str) -> Load:
        """How hard trials of a kind load what serves."""
        options = self.options
        if kind == "verification" and options.refine is not None:
            return options.refine
        return options.load

    def _repeats(self, kind: str) -> int:
        final = kind in ("baseline", "verification")
        return self.options.final_repeats if final else self.options.repeats

    def _folder(self) -> Path:
        return model_folder(self.options.model)

    @property
    def _simulates(self) -> bool:
        return self.options.engine.get("type") == SIMULATED

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(self.options.engine)

    @cached_property
    def _benchmark(self) -> Benchmark:
        return make_benchmark(self.options.benchmark)

    def _benchmark_of(self, kind: str) -> Benchmark:
        """The benchmark of trials of a kind."""
        return self._benchmark

    @property
    def _goal(self) -> Goal:
        return Goal.of(self.goal)

    def _goal_of(self, kind: str) -> Goal:
        """What trials of a kind look for."""
        return self._goal


def without_devices(one: Bundle) -> Bundle:
    """What a simulation occupies where the real thing occupies ``one``."""
    kept = {name: amount for name, amount in one.resources.items() if name not in _DEVICES}
    return Bundle(kept or {"CPU": 1.0}, one.labels)


def not_started(said: str) -> Result:
    """A candidate that its engine would refuse to start with."""
    stopped = {"by": "kv_memory", "metric": None, "reason": said}
    note = f"not started (kv_memory): {said}"
    return Result({}, {"stopped": stopped, "real_evaluation": False, "note": note})


def _resolved(options: BaseModel) -> dict[str, Json]:
    """What was said in a block, checked."""
    return options.model_dump(mode="json", exclude_unset=True)
