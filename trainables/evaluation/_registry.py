"""Evaluators by the name that ``evaluator: {type: ...}`` of an experiment gives them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel

from trainables._registry import Registry
from trainables.evaluation._options import Dataset, StopRule

Json: TypeAlias = Any


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be evaluated.

    Attributes:
        model: Folder of the checkpoint.
        datasets: By name, in the order in which they are evaluated.
        device: A torch device such as ``cpu`` or ``npu:0``.
        threads: Processor threads to use; None leaves it to torch.
        trust_remote_code: Whether Python code that comes with the checkpoint may run.
        stop_when: Rules that end the evaluation before its last dataset.
    """

    model: str
    datasets: Mapping[str, Dataset]
    device: str = "cpu"
    threads: int | None = None
    trust_remote_code: bool = False
    stop_when: tuple[StopRule, ...] = ()


@dataclass(frozen=True)
class EvaluationResult:
    """What was found.

    Attributes:
        metrics: ``<dataset>/<metric>`` to a finite number, standard errors among them.
        per_item: Dataset to its record, for :func:`paired_difference`.
        datasets: Dataset to ``{seconds, tokens, items, truncated}``.
        skipped: Datasets that were not evaluated because a stop rule was broken.
        seconds: Phase to its duration.
        tokens: Tokens that went through the model.
        environment: Versions of the tools and the numeric type that made the numbers.
    """

    metrics: Mapping[str, float]
    per_item: Mapping[str, Json]
    datasets: Mapping[str, Json]
    skipped: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    environment: Mapping[str, Json] = field(default_factory=dict)


class Evaluator(ABC):
    """One way to put numbers on a model's quality; runs in the evaluation's stage program.

    Attributes:
        Options: Model of the ``evaluator`` block, ``type`` included.
    """

    Options: ClassVar[type[BaseModel]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def evaluate(self, request: EvaluationRequest) -> EvaluationResult:
        """Evaluate. Raises ``StageError`` when that is impossible."""

    def problems(self, datasets: Mapping[str, Dataset]) -> list[tuple[str, str]]:
        """Faults of the datasets as (dotted path below ``datasets``, message), without a model."""
        return []

    def identity(self, datasets: Mapping[str, Dataset]) -> Json:
        """What, besides the model, decides the numbers: options, dataset contents, versions."""
        return {
            "evaluator": self.options.model_dump(mode="json"),
            "datasets": {name: each.model_dump(mode="json") for name, each in datasets.items()},
        }


_EVALUATORS: Registry[Evaluator] = Registry(
    "evaluator",
    "npu_tuner.evaluators",
    {"transformers": "trainables.evaluation._transformers"},
)
register_evaluator = _EVALUATORS.register
evaluator_types = _EVALUATORS.names
evaluator_type = _EVALUATORS.find


def make_evaluator(block: Mapping[str, Any]) -> Evaluator:
    """The evaluator an ``evaluator`` block describes.

    Raises:
        KeyError, ImportError: As ``evaluator_type``.
        pydantic.ValidationError: Its options are wrong.
    """
    kind = evaluator_type(str(block.get("type", "transformers")))
    return kind(kind.Options.model_validate(dict(block)))
