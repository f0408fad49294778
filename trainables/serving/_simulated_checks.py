"""What of a simulated experiment can be seen to be wrong before anything starts."""

from __future__ import annotations

from pathlib import Path

from trainables._blocks import Problems, model_problems
from trainables._program import StageError
from trainables.benchmarks import Benchmark, Load
from trainables.engines import Deployment
from trainables.engines._simulated import SimulatedEngine
from trainables.models import is_builtin
from trainables.serving._simulated import understand
from trainables.serving._simulated_load import play
from trainables.serving._simulated_model import read_config

TOOL_FAULTS = frozenset({"command", "models", "config_dir"})
"""Faults of a benchmark that only matter where its tool is run."""


def config_problems(model: str) -> Problems:
    """Faults of the model: a simulation needs no weights."""
    if is_builtin(model):
        return model_problems(model)
    try:
        read_config(Path(model))
    except StageError as error:
        return [("trial.model", str(error))]
    return []


def simulation_problems(
    engine: SimulatedEngine, deployment: Deployment, device_memory: int | None, benchmark: Benchmark
) -> Problems:
    """Why a deployment, or the load of a benchmark on it, cannot be simulated."""
    try:
        understand(engine, deployment, device_memory)
    except StageError as error:
        return [("trial.engine", sentence(error))]
    return load_problems(benchmark, deployment.model)


def load_problems(benchmark: Benchmark, model: Path) -> Problems:
    """Why the load of a benchmark cannot be simulated."""
    try:
        play(benchmark, Load(), 0, model)
    except StageError as error:
        return [("trial.benchmark", sentence(error))]
    return []


def sentence(error: StageError) -> str:
    """What is wrong, and what to do."""
    return f"{error}. {error.suggestion}".strip(". ")
