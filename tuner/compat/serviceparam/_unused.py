"""What a file says and no part of the experiment needs: said once, so that nobody waits for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuner.compat.serviceparam._reading import Configuration

_KILLED = "nothing is killed by its name here; what is started is stopped"
_REFINED = "belongs to the refinement after the search, and no load is refined (see data_storage)"
_STEP = "the refinement of the load interpolates between runs and needs no step"
_BOUND = "the memory a configuration needs is computed per candidate, without this factor"
_SIMULATED = "a simulation here writes its outputs where every run does"
_UNUSED: tuple[tuple[str, str], ...] = (
    ("step_size", _STEP),
    ("mem_coefficient", _BOUND),
    ("scaling_coefficient", _BOUND),
    ("simulator_output", _SIMULATED),
    *(
        (f"latency_model.{key}", "the folder of the trained model is all that is needed")
        for key in ("static_file_dir", "req_and_decode_file", "cache_data")
    ),
    ("communication", "machines find each other through Ray"),
)
_OF_REFINEMENT = (("max_fine_tune", _REFINED), ("slo_coefficient", _REFINED))
_OF_ENGINE: tuple[tuple[str, str], ...] = (
    ("process_name", _KILLED),
    ("work_path", "the engine works in the trial's folder; give absolute paths"),
    ("output", "outputs lie in the run's folder"),
    ("config_bak_path", "the file is edited in a way that survives a crash, without this copy"),
)
_OF_KUBECTL = (
    "kubectl_single_path",
    "config_single_path",
    "config_single_pd_path",
    "config_single_pd_bak_path",
    "config_single_bak_path",
    "delete_path",
    "work_path",
    "command",
    "target_field",
)
_OF_BENCHMARK: tuple[tuple[str, str], ...] = (
    ("process_name", _KILLED),
    ("work_path", "the tool works in the trial's folder; give absolute paths"),
    ("output_path", "the tool's output lies in the trial's folder"),
    ("command.work_dir", "the tool's output lies in the trial's folder"),
    ("command.result_dir", "the tool's output lies in the trial's folder"),
    ("command.serving", "is of versions that no longer exist"),
    ("best_concurrency_coefficient", "concurrency is the max of CONCURRENCY"),
    ("best_concurrency_threshold", "concurrency is the max of CONCURRENCY"),
    *((key, "is read from no version of the tool") for key in ("model", "path", "host_ip")),
    *((key, "is read from no version of the tool") for key in ("host_port", "max_out_len")),
)


def unused(
    configuration: Configuration,
    engine: str,
    benchmark: str,
    *,
    refined: bool,
    disaggregated: bool,
) -> Iterator[str]:
    """A line for each option that was written and does nothing.

    Args:
        refined: Whether the load of the best is searched after the search.
        disaggregated: Whether the scripts of Kubernetes deploy the engine.
    """
    settings = configuration.settings
    tables = [("", _UNUSED), (f"{engine}.", _OF_ENGINE), (f"{benchmark}.", _OF_BENCHMARK)]
    if not refined:
        tables.insert(0, ("", _OF_REFINEMENT))
    for prefix, options in tables:
        for key, said in options:
            if configuration.wrote(prefix + key):
                yield f"{prefix}{key}: {said}"
    if math.isfinite(settings.ftol):
        yield "ftol: a swarm that stagnates is scattered, and the search ends with its budget"
    if disaggregated:
        for key in ("mindie.config_path", *(f"kubectl.{key}" for key in _OF_KUBECTL)):
            if configuration.wrote(key):
                yield f"{key}: the files in kubectl.kubectl_default_path count"
    elif settings.kubectl.kubectl_default_path:
        yield "kubectl.kubectl_default_path: counts for --pd disaggregation only"
