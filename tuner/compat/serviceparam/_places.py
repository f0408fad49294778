"""What is wrong with a translated experiment, in the words of ``config.toml`` and the flags."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.compat._options import Problems
from tuner.compat.serviceparam._reading import Configuration
from tuner.experiment import Document, Experiment, ExperimentError, check_experiment


def _places(engine: str, benchmark: str, disaggregated: bool) -> Iterator[tuple[str, str]]:
    """Beginnings of our paths with those of the settings, the longest first."""
    kubernetes = "kubectl.kubectl_default_path"
    model = "vllm.command.model" if engine == "vllm" else "mindie.config_path"
    if disaggregated:
        model = kubernetes
        yield "trial.engine.folder", kubernetes
    yield "trial.model", model
    yield "trial.engine.command", f"--{engine}"
    yield "trial.engine.args", f"{engine}.command.others"
    yield "trial.engine.extra_args", f"{engine}.command.others"
    yield "trial.engine.config_path", f"{engine}.config_path"
    yield "trial.engine.startup_timeout", "wait_start_time"
    yield "trial.engine.health_check", "health_check"
    yield "trial.engine", f"{engine}.command"
    yield "trial.benchmark.command", f"--{benchmark}"
    yield "trial.benchmark.args", f"{benchmark}.command.others"
    yield "trial.benchmark", f"{benchmark}.command"
    yield "trial.positions", f"{engine}.target_field"
    yield "trial.timeouts.benchmark", "particles_time_out"
    yield "search.space", f"{engine}.target_field"
    yield "storage", "output"
    yield "views", "data_storage"


def check_optimizer(
    document: Document,
    configuration: Configuration,
    engine: str,
    benchmark: str,
    *,
    disaggregated: bool = False,
) -> Experiment:
    """The experiment of translated settings.

    Raises:
        ExperimentError: With every fault, placed in the settings or on the command line where it
            comes from there.
    """
    try:
        return check_experiment(document)
    except ExperimentError as error:
        places = list(_places(engine, benchmark, disaggregated))
        found: Problems = [
            (_placed(each.path, places), f"{each.message}") for each in error.problems
        ]
        raise configuration.error(found) from error


def _placed(path: str, places: list[tuple[str, str]]) -> str:
    for ours, theirs in places:
        if path == ours or path.startswith(f"{ours}."):
            rest = "" if theirs.startswith("--") else path.removeprefix(ours)
            return theirs + rest
    return path
