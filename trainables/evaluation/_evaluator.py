"""Evaluators by the name that ``evaluation: {type: ...}`` of a trial gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from trainables._blocks import typed
from trainables._registry import Registry
from trainables._trial import Json, Progress, TrialRun
from trainables.evaluation._options import StopRule

DEFAULT = "transformers"


@dataclass(frozen=True)
class Subject:
    """What is to be evaluated.

    Attributes:
        model: Folder of the checkpoint.
        device: A torch device such as ``cpu`` or ``npu:0``, for evaluators without an engine.
        threads: Processor threads to use; None leaves it to the tool.
        trust_remote_code: Whether Python code that comes with the checkpoint may run.
        quantized: False for the float model, which is the measure of all others.
        stop_when: Rules that end the evaluation before its last dataset.
    """

    model: Path
    device: str = "cpu"
    threads: int | None = None
    trust_remote_code: bool = False
    quantized: bool = True
    stop_when: tuple[StopRule, ...] = ()


@dataclass(frozen=True)
class EvaluationResult:
    """What was found.

    Attributes:
        metrics: ``<dataset>/<metric>`` to a finite number, standard errors among them.
        per_item: Dataset to its record, for :func:`paired_difference`; empty where items are not
            known one by one.
        datasets: Dataset to facts about its evaluation, such as ``{seconds, items}``.
        skipped: Datasets that were not evaluated because a stop rule was broken or a precheck
            failed.
        seconds: Phase to its duration.
        tokens: Tokens that went through the model; 0 where they are not counted.
        environment: Versions of the tools and the numeric type that made the numbers.
        note: What a person should know at once, such as the answer that failed a precheck.
    """

    metrics: Mapping[str, float]
    per_item: Mapping[str, Json]
    datasets: Mapping[str, Json]
    skipped: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    environment: Mapping[str, Json] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> EvaluationResult:
        return cls(**{**document, "skipped": tuple(document["skipped"])})


class Evaluator(ABC):
    """One way to put numbers on a model's quality.

    Attributes:
        Options: Model of the whole ``evaluation`` block: ``type``, ``datasets`` and the rest.
    """

    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def carry_out(
        self, trial: TrialRun, subject: Subject, *, timeout: float
    ) -> Generator[Progress, None, EvaluationResult]:
        """Evaluate on the node, in the trial's actor, within ``timeout`` seconds.

        Never blocks for more than about a second between two steps, and leaves nothing running
        however it ends. Raises ``TrialFailure``. A dataset whose number is not what the model
        answered (a server that died, a tool that failed) is a failure, never a bad number.
        """

    @abstractmethod
    def datasets(self) -> Mapping[str, frozenset[str]]:
        """Datasets in their order, each with the metrics it can yield, for demands."""

    @abstractmethod
    def stage_names(self) -> tuple[str, ...]:
        """The stages of an evaluation, in their order."""

    def problems(self) -> list[tuple[str, str]]:
        """Faults as (dotted path inside the ``evaluation`` block, message), without a model."""
        return []

    def identity(self) -> Json:
        """What, besides the model, decides the numbers: options, dataset contents, versions."""
        return self.options.model_dump(mode="json")

    @classmethod
    def schema(cls) -> dict[str, Json]:
        """JSON schema of the block; definitions under ``$defs``, where references look."""
        return TypeAdapter(cls.Options).json_schema()


_EVALUATORS: Registry[Evaluator] = Registry(
    "evaluator",
    "npu_tuner.evaluators",
    {
        "transformers": "trainables.evaluation._transformers",
        "aisbench": "trainables.evaluation._aisbench",
    },
    default=DEFAULT,
)
register_evaluator = _EVALUATORS.register
evaluator_types = _EVALUATORS.names
evaluator_type = _EVALUATORS.find
make_evaluator = _EVALUATORS.make


def resolved_block(block: Mapping[str, Any]) -> dict[str, Json]:
    """The block with defaults filled in and paths made absolute, as JSON for another node.

    Raises as :func:`make_evaluator`.
    """
    document: dict[str, Json] = make_evaluator(block).options.model_dump(mode="json")
    return document


def evaluation_schema() -> dict[str, Json]:
    """JSON schema (draft 2020-12) of the ``evaluation`` block: one of all evaluators' blocks.

    Definitions are under ``$defs``. Evaluators that cannot be loaded are left out.
    """
    definitions: dict[str, Json] = {}
    blocks = []
    for name in evaluator_types():
        try:
            block = evaluator_type(name).schema()
        except ImportError:
            continue
        definitions |= block.pop("$defs", {})
        blocks.append(typed(block, name, required=name != DEFAULT))
    return {"oneOf": blocks, "$defs": definitions}
