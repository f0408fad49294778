"""What is wrong with a translated experiment, in the words of the plan and the command line."""

from __future__ import annotations

from tuner.compat._options import Problems
from tuner.compat._reading import BENCHMARK, DEMAND, ENGINE
from tuner.experiment import Document, Experiment, ExperimentError, check_experiment

_PLACES = (
    ("trial.model", "--model_path"),
    ("trial.device", "--device"),
    ("trial.quantizer.model_type", "--model_type"),
    ("trial.quantizer", "--msmodelslim"),
    ("trial.practice.template", "strategy.template"),
    ("trial.practice", "strategy.template"),
    ("trial.evaluation.engine.command", "--vllm"),
    ("trial.evaluation.engine", ENGINE),
    ("trial.evaluation.command", "--ais_bench"),
    ("trial.evaluation.settings", f"{BENCHMARK}.aisbench"),
    ("trial.evaluation", BENCHMARK),
    ("search.candidates", "strategy.rollback_candidates"),
    ("search.analysis.calibration", "strategy.analysis_dataset"),
    ("search", "strategy"),
    ("objective.expectations", f"{DEMAND}.expectations"),
    ("budget.time", "--timeout"),
    ("cluster.resources", "--device"),
    ("storage", "--save_path"),
    ("views", "--save_path"),
)


def check_translated(experiment: Document, plan: Document) -> Experiment:
    """The experiment of a translated document.

    Raises:
        ExperimentError: With every fault, placed in the plan or on the command line.
    """
    try:
        return check_experiment(experiment)
    except ExperimentError as error:
        found: Problems = [(place_in_plan(each.path), each.message) for each in error.problems]
        raise plan.error(found) from error


def place_in_plan(path: str) -> str:
    """Where the plan or the command line says what the experiment says at ``path``."""
    for ours, theirs in _PLACES:
        if path == ours:
            return theirs
        if path.startswith(f"{ours}."):
            rest = path.removeprefix(ours)
            return theirs if theirs.startswith("--") else theirs + rest
    return path
