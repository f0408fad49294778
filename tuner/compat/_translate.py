"""From a plan and a command line of ``msmodelslim tune`` to an experiment of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainables.evaluation import evaluator_type
from trainables.quantization import Device, Practice, dataset_file, with_fallback
from tuner.compat._hardware import VISIBLE, engine_width, resources, usable_cards
from tuner.compat._options import Problems, TuneRequest
from tuner.compat._plan import (
    BenchmarkPlan,
    BinaryFallbackPlan,
    ExperiencePlan,
    GarbledTextPlan,
    OtherPrecheckPlan,
    StandingHighPlan,
)
from tuner.compat._reading import BENCHMARK, ENGINE, Plan
from tuner.compat._strategies import experience_options

NAME = "tuner"
"""The experiment's name, and so the folder in ``save_path`` that the run works in."""
_TRIALS = 30
_MARGIN_S = 600
"""For stopping the engine, and the last requests after a bound was reached."""
_ENTRYPOINT = "vllm.entrypoints.openai.api_server"
_ENGINE_DEFAULTS = {
    "type": "vllm-ascend",
    "entrypoint": _ENTRYPOINT,
    "env_vars": {},
    "host": "localhost",
    "health_check_endpoint": "/v1/models",
    "startup_timeout": 600,
    "args": {},
}
"""What msModelSlim fills in where the plan says nothing; with it come name and port."""


@dataclass(frozen=True)
class Translation:
    """An experiment, and what a person should know about how it came about.

    Attributes:
        data: The experiment document, JSON values only.
        notes: What the plan says and the experiment does differently.
        cards: NPUs the run may use, by number, where the user restricted them.
        problems: What cannot be translated.
    """

    data: dict[str, Any]
    notes: tuple[str, ...]
    cards: tuple[str, ...]
    problems: Problems


def translate(plan: Plan, request: TuneRequest) -> Translation:
    """The experiment that answers what the plan asks."""
    return _Translator(plan, request).translation()


class _Translator:
    def __init__(self, plan: Plan, request: TuneRequest) -> None:
        self._plan = plan
        self._request = request
        self._notes: list[str] = []
        self._problems: Problems = []
        self._msmodelslim = request.tools.msmodelslim or ["msmodelslim"]

    def translation(self) -> Translation:
        request, engine = self._request, self._plan.engine
        budget: dict[str, Any] = {"trials": _TRIALS}
        if request.timeout is not None:
            budget["time"] = request.timeout
        width, problems = engine_width(engine.get("args") or {})
        self._problems += problems
        cards: tuple[str, ...] = ()
        if request.device.kind == "npu":
            theirs = (engine.get("env_vars") or {}).get(VISIBLE)
            cards, problems = usable_cards(request.device, width, theirs, request.visible)
            self._problems += problems
            if request.device.indices and not cards and not problems:
                self._notes.append(f"--device: the engine needs {width} cards; any may be taken")
        data = {
            "name": NAME,
            "trial": self._trial(),
            "search": self._search(),
            "objective": {"expectations": self._expectations()},
            "budget": budget,
            "cluster": {"address": "local", "resources": resources(request.device, width)},
            "storage": str(request.save_path),
            "views": [self._view()],
        }
        return Translation(data, tuple(self._notes), cards, self._problems)

    def _trial(self) -> dict[str, Any]:
        request = self._request
        return {
            "type": "quantization",
            "model": str(request.model_path),
            "practice": {"template": self._practice().document()},
            "quantizer": {
                "type": "msmodelslim",
                "command": self._msmodelslim,
                "model_type": request.model_type,
            },
            "evaluation": self._evaluation(),
            "verify": "digest",
            "device": self._device(),
            "trust_remote_code": request.trust_remote_code,
            **self._timeouts(),
        }

    def _practice(self) -> Practice:
        """The template; a list that fallback layers replace is empty before the first of them."""
        strategy, practice = self._plan.strategy, self._plan.practice
        if not isinstance(strategy, BinaryFallbackPlan):
            return practice
        emptied = with_fallback(practice, strategy.rollback_path, [])
        if emptied != practice:
            said = "what the template has there is replaced by the fallback layers, even by none"
            self._notes.append(f"strategy.rollback_path: {said}")
        return emptied

    def _timeouts(self) -> dict[str, Any]:
        """For an evaluation, what the plan allows its parts, together."""
        benchmark = self._plan.benchmark
        if not isinstance(benchmark, BenchmarkPlan):
            return {}
        seconds = float(self._plan.engine.get("startup_timeout", 600)) + _MARGIN_S
        seconds += benchmark.aisbench.timeout * len(self._plan.demand.expectations)
        for rule in benchmark.precheck:
            if not isinstance(rule, OtherPrecheckPlan):
                seconds += rule.timeout * len(rule.test_cases)
        return {"timeouts": {"evaluate": seconds}}

    def _device(self) -> str:
        """The devices as a trial sees them: Ray shows it only its own, counted from 0."""
        kind, cards = self._request.device.kind, self._request.device.indices or ()
        return kind if len(cards) < 2 else str(Device(kind, tuple(range(len(cards)))))

    def _evaluation(self) -> dict[str, Any]:
        benchmark = self._plan.benchmark
        if not isinstance(benchmark, BenchmarkPlan):
            takes = evaluator_type(benchmark["type"]).Options.model_fields
            return benchmark | ({"engine": self._engine()} if "engine" in takes else {})
        document = _benchmark_document(benchmark)
        settings = {key: value for key, value in document["aisbench"].items() if key != "binary"}
        return {
            "type": "aisbench",
            "engine": self._engine(),
            "precheck": document["precheck"],
            "datasets": self._datasets(document["datasets"]),
            "command": self._request.tools.ais_bench or ["ais_bench"],
            "settings": settings,
        }

    def _datasets(self, datasets: dict[str, Any]) -> dict[str, Any]:
        """Those with a demand, in the order of the demands."""
        wanted = [expectation.dataset for expectation in self._plan.demand.expectations]
        if idle := [name for name in datasets if name not in wanted]:
            self._notes.append(f"{BENCHMARK}.datasets: {', '.join(idle)}: no demand, not measured")
        return {name: datasets[name] for name in wanted}

    def _engine(self) -> dict[str, Any]:
        """The engine's block; its port is leased, since trials may run side by side."""
        given = {key: value for key, value in self._plan.engine.items() if key != "port"}
        engine = {"type": given["type"], **given}
        if "port" in self._plan.document.data["evaluation"]["inference_engine"]:
            said = "is not used: each engine gets a free port"
            self._notes.append(f"{ENGINE}.port: {self._plan.engine['port']} {said}")
        if args := engine.get("args"):
            engine["args"] = {k: v for k, v in args.items() if k.lstrip("-") != "port"}
        if variables := engine.get("env_vars"):
            engine["env_vars"] = self._variables(variables)
        if (command := self._request.tools.vllm) is not None:
            engine["command"] = command
        if engine.get("command", [""])[-1] == "serve" and engine.get("entrypoint") == _ENTRYPOINT:
            del engine["entrypoint"]
        return engine

    def _variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        for name, value in variables.items():
            if isinstance(value, (float, bool)):
                said = f"YAML reads it as {value}, and so does the engine; quote it to be exact"
                self._notes.append(f"{ENGINE}.env_vars.{name}: {said}")
        if self._request.device.kind == "cpu" or VISIBLE not in variables:
            return dict(variables)
        self._notes.append(f"{ENGINE}.env_vars.{VISIBLE}: each trial gets its cards from among it")
        return {name: value for name, value in variables.items() if name != VISIBLE}

    def _search(self) -> dict[str, Any]:
        strategy = self._plan.strategy
        if isinstance(strategy, BinaryFallbackPlan):
            search: dict[str, Any] = {"type": strategy.type}
            search["rollback_path"] = strategy.rollback_path
            if strategy.rollback_candidates:
                return search | {"candidates": strategy.rollback_candidates}
            return search | self._analysis(strategy.analysis_dataset)
        if isinstance(strategy, StandingHighPlan):
            tried = {"anti_outlier_strategies": strategy.anti_outlier_strategies}
            return {"type": strategy.type, **tried, **self._analysis(unit="block")}
        if isinstance(strategy, ExperiencePlan):
            return experience_options(strategy) | self._analysis(unit="block")
        return {k: v for k, v in strategy.items() if k not in ("template", "metadata")}

    def _analysis(self, named: str | None = None, **analysis: Any) -> dict[str, Any]:
        """How layers are ranked: with the data that the plan calibrates with, if it is here."""
        name = named or self._plan.practice.spec.dataset
        if (file := dataset_file(self._msmodelslim, name)) is not None:
            analysis["calibration"] = {"dataset": str(file.absolute())}
        elif named is not None:
            said = f"{name!r} is neither a file nor in msModelSlim's lab_calib; give its path"
            self._problems.append(("strategy.analysis_dataset", said))
        else:
            said = "is not found here; layers are ranked with builtin:calibration"
            self._notes.append(f"strategy: {name!r} {said}")
        return {"analysis": analysis} if analysis else {}

    def _metric(self) -> str:
        """The key of a result that demands mean: ``accuracy`` unless the plan leaves it out."""
        benchmark = self._plan.benchmark
        keys = (
            benchmark.aisbench.default_metric_keys if isinstance(benchmark, BenchmarkPlan) else None
        )
        return "accuracy" if not keys or "accuracy" in keys else keys[0]

    def _expectations(self) -> list[dict[str, Any]]:
        metric = self._metric()
        return [
            {
                "dataset": expectation.dataset,
                "metric": metric,
                "target": f"{expectation.target:f}",
                "tolerance": f"{expectation.tolerance:f}",
            }
            for expectation in self._plan.demand.expectations
        ]

    def _view(self) -> dict[str, Any]:
        """Outputs as msModelSlim leaves them, keyed by the evaluation block as it completes it."""
        request, benchmark = self._request, self._plan.benchmark
        view: dict[str, Any] = {"type": "msmodelslim", "folder": str(request.save_path)}
        if request.practice_repo is not None:
            view["practice_repo"] = request.practice_repo
        if isinstance(benchmark, BenchmarkPlan):
            benchmark = _as_recorded(benchmark)
        view["model_type"] = request.model_type
        view["evaluation"] = {
            "type": "service_oriented",
            "demand": self._plan.demand.model_dump(mode="json"),
            "evaluation": benchmark,
            "inference_engine": _ENGINE_DEFAULTS | self._plan.engine,
        }
        return view


def _benchmark_document(benchmark: BenchmarkPlan) -> dict[str, Any]:
    """The block with all defaults, as msModelSlim completes it."""
    document = benchmark.model_dump(mode="json")
    document["precheck"] = [{"type": rule["type"], **rule} for rule in document["precheck"]]
    if document["aisbench"]["default_metric_keys"] is None:
        del document["aisbench"]["default_metric_keys"]
    return document


def _as_recorded(benchmark: BenchmarkPlan) -> dict[str, Any]:
    """The block as msModelSlim's records know it: it greets the model without saying so."""
    document = _benchmark_document(benchmark)
    for rule, written in zip(benchmark.precheck, document["precheck"], strict=True):
        if isinstance(rule, GarbledTextPlan) and "test_cases" not in rule.model_fields_set:
            written["test_cases"] = None
    return document
