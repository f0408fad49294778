"""From a plan file to a checked plan, or to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trainables.engines import EngineOptions, engine_type, engine_types
from trainables.evaluation import evaluator_types
from trainables.quantization import Practice
from tuner.compat._faults import faults
from tuner.compat._options import Problems
from tuner.compat._plan import BenchmarkPlan, DemandPlan
from tuner.compat._strategies import StrategyPlan, known_strategies, read_strategy
from tuner.experiment import Document, read_document

B = TypeVar("B", bound=BaseModel)

STRATEGY, ENGINE = "strategy", "evaluation.inference_engine"
DEMAND, BENCHMARK = "evaluation.demand", "evaluation.evaluation"
_ENGINE_DEFAULTS = {"served_model_name": "served_model_name", "port": 1234}
_SHARED = ("host", "port", "served_model_name")


@dataclass(frozen=True)
class Plan:
    """A plan without faults.

    Attributes:
        document: As the user wrote it.
        strategy: Typed, or the block of a strategy that only we know.
        practice: What the strategy starts from.
        demand: What has to be reached.
        benchmark: Typed, or the block of an evaluator that only we know.
        engine: The engine's block, the plan's defaults filled in.
    """

    document: Document
    strategy: StrategyPlan | dict[str, Any]
    practice: Practice
    demand: DemandPlan
    benchmark: BenchmarkPlan | dict[str, Any]
    engine: dict[str, Any]


def read_plan(document: Document) -> tuple[Plan | None, Problems]:
    """The plan of a document; None with the problems when it has any."""
    return _Reader(document).read()


def load_plan(file: Path) -> Plan:
    """Read and check a plan file.

    Raises:
        ExperimentError: With every fault, its dotted path in the plan and its line.
    """
    document = read_document(file)
    plan, problems = read_plan(document)
    if plan is None:
        raise document.error(problems)
    return plan


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: Problems = []

    def read(self) -> tuple[Plan | None, Problems]:
        data = self._document.data
        self._keys(data, "", ("strategy", "evaluation"))
        strategy, practice = self._strategy(data.get("strategy"))
        block = self._mapping(data.get("evaluation"), "evaluation")
        if block is None:
            return None, self._problems
        self._keys(block, "evaluation", ("type", "demand", "evaluation", "inference_engine"))
        self._kind(block, "evaluation", ("service_oriented",))
        demand = self._model(DEMAND, block.get("demand"), DemandPlan)
        benchmark = self._benchmark(block.get("evaluation"))
        engine, options = self._engine(block.get("inference_engine"))
        if demand is not None:
            self._datasets(demand, block.get("evaluation"))
        if isinstance(benchmark, BenchmarkPlan) and options is not None:
            self._agreement(benchmark, options, engine)
        if self._problems:
            return None, self._problems
        assert strategy and practice and demand and benchmark
        return Plan(self._document, strategy, practice, demand, benchmark, engine), []

    def _note(self, path: str, message: str) -> None:
        self._problems.append((path, message))

    def _keys(self, block: Mapping[str, Any], path: str, known: Iterable[str]) -> None:
        for key in block:
            if key not in known:
                place = f"{path}.{key}" if path else str(key)
                self._note(place, f"unknown key; known keys: {', '.join(known)}")

    def _mapping(self, value: Any, path: str) -> dict[str, Any] | None:
        if isinstance(value, dict):
            return value
        self._note(path, "is required" if value is None else "must be a mapping")
        return None

    def _model(self, path: str, value: Any, model: type[B]) -> B | None:
        block = self._mapping(value, path)
        try:
            return None if block is None else model.model_validate(block)
        except ValidationError as error:
            self._problems += faults(path, block, error, model)
            return None

    def _kind(self, block: Mapping[str, Any], path: str, known: Iterable[str]) -> str | None:
        kind = block.get("type")
        if isinstance(kind, str) and kind in known:
            return kind
        said = "is required" if kind is None else f"unknown type {kind!r}"
        self._note(f"{path}.type", f"{said}; known types: {', '.join(known)}")
        return None

    def _strategy(self, value: Any) -> tuple[StrategyPlan | dict[str, Any] | None, Practice | None]:
        block = self._mapping(value, STRATEGY)
        if block is None or self._kind(block, STRATEGY, known_strategies()) is None:
            return None, None
        strategy, practice, problems = read_strategy(block)
        self._problems += problems
        return strategy, practice

    def _benchmark(self, value: Any) -> BenchmarkPlan | dict[str, Any] | None:
        block = self._mapping(value, BENCHMARK)
        known = sorted({"aisbench", *evaluator_types()})
        kind = None if block is None else self._kind(block, BENCHMARK, known)
        if kind is None:
            return None
        return self._model(BENCHMARK, block, BenchmarkPlan) if kind == "aisbench" else block

    def _engine(self, value: Any) -> tuple[dict[str, Any], EngineOptions | None]:
        block = self._mapping(value, ENGINE)
        kind = None if block is None else self._kind(block, ENGINE, engine_types())
        if block is None or kind is None:
            return {}, None
        block = {**_ENGINE_DEFAULTS, **block}
        try:
            return block, self._model(ENGINE, block, engine_type(kind).Options)
        except ImportError as error:
            self._note(f"{ENGINE}.type", str(error))
            return {}, None

    def _datasets(self, demand: DemandPlan, benchmark: Any) -> None:
        known = benchmark.get("datasets") if isinstance(benchmark, dict) else None
        names = sorted(map(str, known)) if isinstance(known, dict) else []
        seen: set[str] = set()
        for index, expectation in enumerate(demand.expectations):
            place, name = f"{DEMAND}.expectations.{index}.dataset", expectation.dataset
            if name in seen:
                self._note(place, f"{name!r} has an expectation already")
            elif name not in names:
                there = f"there are: {', '.join(names)}" if names else "there is none"
                self._note(place, f"{name!r} is not in {BENCHMARK}.datasets; {there}")
            seen.add(name)

    def _agreement(
        self, benchmark: BenchmarkPlan, options: EngineOptions, engine: Mapping[str, Any]
    ) -> None:
        """Where the plan says the same thing in several places, it has to be the same."""
        said = {
            f"{BENCHMARK}.{key}": (key, getattr(benchmark, key))
            for key in _SHARED
            if key in benchmark.model_fields_set or key in options.model_fields_set
        }
        for key, value in (engine.get("args") or {}).items():
            name = key.lstrip("-").replace("-", "_")
            if name in _SHARED and value is not None:
                said[f"{ENGINE}.args.{key}"] = (name, value)
        for place, (key, value) in said.items():
            decided = getattr(options, key)
            if str(value).strip("[]") != str(decided):
                where = f"{ENGINE}.{key}"
                self._note(
                    place, f"is {value!r} here and {decided!r} in {where}; both must be the same"
                )
