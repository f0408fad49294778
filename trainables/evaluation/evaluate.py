"""Stage program: evaluate a model on datasets, in order, until a stop rule is broken.

Request::

    {"model": folder, "evaluator": {"type": ..., ...}, "datasets": {name: {...}, ...},
     "order": [names], "device": "cpu", "threads": null, "trust_remote_code": false,
     "stop_when": [{"dataset", "metric", "limit", "direction": "higher" | "lower"}, ...]}

``order`` defaults to that of ``datasets`` and may leave some out; everything from ``order`` on is
optional. The result is that of :class:`EvaluationResult`, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from trainables._program import StageError, run_program
from trainables.evaluation._options import Dataset, StopRule
from trainables.evaluation._registry import EvaluationRequest, make_evaluator


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    evaluator: dict[str, Any]
    datasets: dict[str, Dataset]
    order: list[str] | None = None
    device: str = "cpu"
    threads: int | None = None
    trust_remote_code: bool = False
    stop_when: list[StopRule] = []

    @model_validator(mode="after")
    def _known_names(self) -> _Request:
        for name in self.order or ():
            if name not in self.datasets:
                raise ValueError(f"order names {name!r}, which is no dataset")
        for rule in self.stop_when:
            known = self.datasets.get(rule.dataset)
            if known is None or rule.metric not in known.metrics:
                raise ValueError(
                    f"stop_when names {rule.dataset}/{rule.metric}, which is no metric"
                )
        return self


def evaluate(request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out a request document. Raises ``StageError``."""
    try:
        asked = _Request.model_validate(request)
        evaluator = make_evaluator(asked.evaluator)
    except (ValidationError, KeyError, ImportError) as error:
        raise StageError("input", f"the evaluation request is wrong: {error}") from error
    names = asked.datasets if asked.order is None else asked.order
    result = evaluator.evaluate(
        EvaluationRequest(
            asked.model,
            {name: asked.datasets[name] for name in names},
            device=asked.device,
            threads=asked.threads,
            trust_remote_code=asked.trust_remote_code,
            stop_when=tuple(asked.stop_when),
        )
    )
    return asdict(result)


if __name__ == "__main__":
    run_program(evaluate)
