"""A trial type that measures nothing real: a rehearsal of an experiment without accelerators.

It tries out a cluster, a search, a resume or a dashboard at no cost: trials take as long as they
are told, fail as often as they are told, and answer from a formula.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat

from cluster import write_json
from trainables._measurement import Measurement
from trainables._program import StageError
from trainables._trial import Json, Progress, Result, Steps, TrialRun
from trainables._types import TrialType, register_trial_type


class RehearsalOptions(BaseModel):
    """The ``trial`` block of a rehearsal.

    Attributes:
        layers: Layers of the imagined model; ``model.layers.0`` is the most sensitive.
        threshold: Fallback layers from which the imagined quantization meets its demand.
        optimum: Imagined best value of each numeric parameter.
        seconds: Duration of each stage; 0 runs no child process at all.
        failure_rate: Share of trials whose first attempt fails, decided by the trial's identity.
        failure: Class of those failures.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["rehearsal"] = "rehearsal"
    layers: int = Field(default=64, ge=1)
    threshold: int = Field(default=12, ge=0)
    optimum: dict[str, float] = {}
    seconds: NonNegativeFloat = 0.0
    stages: list[str] = Field(default=["prepare", "measure"], min_length=1)
    failure_rate: float = Field(default=0.0, ge=0.0, le=1.0)
    failure: Literal["startup", "out_of_memory", "device", "network", "timeout", "tool"] = "startup"


@register_trial_type("rehearsal")
class Rehearsal(TrialType):
    """Metrics: ``accuracy`` in [0, 1] from the number of fallback layers, ``score`` <= 0 from the
    squared distance of the numeric parameters to ``optimum``. A file stands where weights would,
    so that delivery is rehearsed too. With ``NPU: auto`` in the ``cluster`` block the parameter
    ``devices`` is how many a trial takes."""

    Options = RehearsalOptions

    def identity(self, kind: str) -> Json:
        options: RehearsalOptions = self.options
        return options.model_dump(mode="json", include={"layers", "threshold", "optimum"})

    def devices(self, parameters: Mapping[str, Json], kind: str) -> int:
        """What the parameter ``devices`` says; one without it."""
        return max(0, int(parameters.get("devices", 1)))

    def metric_names(self) -> frozenset[str]:
        return frozenset({"accuracy", "score"})

    def stage_names(self, kind: str) -> tuple[str, ...]:
        stages: list[str] = self.options.stages
        return tuple(stages)

    def fallback_groups(self) -> int:
        layers: int = self.options.layers
        return layers

    def run(self, trial: TrialRun) -> Steps:
        options: RehearsalOptions = self.options
        self._fail_first_attempt(trial)
        for stage in options.stages:
            yield Progress(stage)
            if options.seconds:
                yield from trial.program(
                    stage,
                    "trainables._rehearsal_stage",
                    {"seconds": options.seconds},
                    timeout=10 * options.seconds + 30,
                )
        if trial.spec.kind == "analysis":
            ranking = [
                {"layers": [f"model.layers.{n}"], "score": float(options.layers - n)}
                for n in range(options.layers)
            ]
            return Result({"groups": float(options.layers)}, data={"ranking": ranking})
        metrics = self._metrics(trial.spec.kind, trial.spec.parameters)
        if trial.spec.kind == "baseline":
            return Result(metrics)
        return Result(metrics, artifacts={"weights": self._weights(trial)})

    def verifies(self) -> bool:
        return True

    def deliver(self, verified: Measurement, folder: Path) -> None:
        Path(verified.artifacts["weights"]["path"]).rename(folder / "weights")

    def holds(self, verified: Measurement, folder: Path) -> bool:
        file = folder / "weights"
        return file.is_file() and _digest(file) == verified.artifacts["weights"]["sha256"]

    def _weights(self, trial: TrialRun) -> dict[str, str]:
        """A file in the place of weights; the verification takes the winner's own over."""
        file = trial.folder / "artifacts" / "weights"
        file.parent.mkdir(parents=True, exist_ok=True)
        source = Path(trial.spec.context.get("source", trial.folder)) / "artifacts" / "weights"
        if source.is_file():
            source.rename(file)
        if not file.is_file():
            write_json(file, dict(trial.spec.parameters))
        return {"path": str(file), "sha256": _digest(file)}

    def _metrics(self, kind: str, parameters: Mapping[str, Any]) -> dict[str, float]:
        options: RehearsalOptions = self.options
        level = len(parameters.get("fallback", ()))
        enough = kind == "baseline" or level >= options.threshold
        accuracy = 1.0 if enough else 0.5 + 0.4 * level / options.threshold
        distance = sum(
            (float(parameters[name]) - best) ** 2
            for name, best in options.optimum.items()
            if name in parameters
        )
        return {"accuracy": accuracy, "score": -distance}

    def _fail_first_attempt(self, trial: TrialRun) -> None:
        options: RehearsalOptions = self.options
        if trial.spec.attempt > 1:
            return
        draw = int(hashlib.sha256(trial.spec.identity.encode()).hexdigest()[:8], 16) / 2**32
        if draw < options.failure_rate:
            raise StageError(options.failure, "a failure was rehearsed", "nothing to do")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
