"""Evaluators that load the model themselves, in the stage program ``evaluate``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainables._trial import Progress, TrialRun
from trainables.evaluation._evaluator import EvaluationResult, Evaluator, Subject
from trainables.evaluation._options import Dataset, EvaluationOptions, StopRule

STAGE = "evaluate"


@dataclass(frozen=True)
class EvaluationRequest:
    """What the stage program is to evaluate.

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


class InProcessEvaluator(Evaluator):
    """An evaluator that needs no serving engine: whoever writes one defines :meth:`evaluate`.

    Attributes:
        Options: The whole ``evaluation`` block, with datasets as this package reads them.
    """

    Options: ClassVar[type[EvaluationOptions]]
    options: EvaluationOptions

    @abstractmethod
    def evaluate(self, request: EvaluationRequest) -> EvaluationResult:
        """Evaluate, in the stage program. Raises ``StageError`` when that is impossible."""

    def carry_out(
        self, trial: TrialRun, subject: Subject, *, timeout: float
    ) -> Generator[Progress, None, EvaluationResult]:
        request = {
            "evaluation": self.options.model_dump(mode="json"),
            "model": str(subject.model),
            "device": subject.device,
            "threads": subject.threads,
            "trust_remote_code": subject.trust_remote_code,
            "stop_when": [rule.model_dump(mode="json") for rule in subject.stop_when],
        }
        module = "trainables.evaluation.evaluate"
        result = yield from trial.program(STAGE, module, request, timeout=timeout)
        return EvaluationResult.from_json(result)

    def datasets(self) -> Mapping[str, frozenset[str]]:
        return {name: frozenset(each.metrics) for name, each in self.options.datasets.items()}

    def stage_names(self) -> tuple[str, ...]:
        return (STAGE,)
