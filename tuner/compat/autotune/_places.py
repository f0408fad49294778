"""What is wrong with a translated experiment, in the words of the flags."""

from __future__ import annotations

from tuner.compat._options import Problems
from tuner.compat.autotune._settings import Settings
from tuner.experiment import Document, Experiment, ExperimentError, check_experiment

_PLACES = (
    ("trial.start", "run_model.sh"),
    ("trial.ready.timeout", "startup_timeout"),
    ("trial.port_busy_retries", "port_busy_retries"),
    ("trial.port_busy_wait", "port_busy_wait_s"),
    ("trial.port", "port"),
    ("trial.evaluate.command", "eval_command"),
    ("trial.evaluate.runs", "eval_runs"),
    ("trial.evaluate.timeout", "eval_timeout"),
    ("trial.evaluate.cwd", "repo"),
    ("trial.cooldown", "cooldown"),
    ("trial.constants", "best"),
    ("search.space", "search_space_file"),
    ("search", "search_space_file"),
    ("objective", "accuracy_threshold"),
    ("storage", "repo"),
    ("name", "results"),
    ("views", "repo"),
    ("notify.0", "webhook_url"),
    ("notify.1", "smtp_host"),
)


def check_tune(document: Document, settings: Settings) -> Experiment:
    """The experiment of translated settings.

    Raises:
        ExperimentError: With every fault, placed at the flag or variable it comes from.
    """
    try:
        return check_experiment(document)
    except ExperimentError as error:
        found: Problems = [(_placed(each.path, settings), each.message) for each in error.problems]
        raise document.error(found) from error


def _placed(path: str, settings: Settings) -> str:
    for ours, name in _PLACES:
        if path == ours or path.startswith(f"{ours}."):
            known = name in settings.values
            return settings.place(name) if known else name
    return path
