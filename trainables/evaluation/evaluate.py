"""Stage program: evaluate a model on datasets, in order, until a stop rule is broken.

Request::

    {"model": folder, "evaluation": {"type": ..., "datasets": {name: {...}, ...}, ...},
     "device": "cpu", "threads": null, "trust_remote_code": false,
     "stop_when": [{"dataset", "metric", "limit", "direction": "higher" | "lower"}, ...]}

Everything from ``device`` on is optional. The result is that of :class:`EvaluationResult`, field
by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trainables._program import StageError, run_program
from trainables.evaluation._evaluator import make_evaluator
from trainables.evaluation._in_process import EvaluationRequest, InProcessEvaluator
from trainables.evaluation._options import StopRule


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    evaluation: dict[str, Any]
    device: str = "cpu"
    threads: int | None = None
    trust_remote_code: bool = False
    stop_when: list[StopRule] = []


def evaluate(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a request document. Raises ``StageError``."""
    try:
        asked = _Request.model_validate(request)
        evaluator = make_evaluator(asked.evaluation)
    except (ValidationError, KeyError, ImportError) as error:
        raise StageError("input", f"the evaluation request is wrong: {error}") from error
    if not isinstance(evaluator, InProcessEvaluator):
        raise StageError("input", f"{type(evaluator).__name__} does not evaluate in this process")
    known = evaluator.datasets()
    for rule in asked.stop_when:
        if rule.metric not in known.get(rule.dataset, ()):
            said = f"stop_when names {rule.dataset}/{rule.metric}, which is no metric"
            raise StageError("input", said)
    result = evaluator.evaluate(
        EvaluationRequest(
            asked.model,
            evaluator.options.datasets,
            device=asked.device,
            threads=asked.threads,
            trust_remote_code=asked.trust_remote_code,
            stop_when=tuple(asked.stop_when),
        )
    )
    return asdict(result)


if __name__ == "__main__":
    run_program(evaluate)
