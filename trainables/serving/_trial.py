"""The serving trial: start an engine with the proposed parameters, and measure it under load.

Kinds: ``baseline`` the configuration in use today, ``candidate`` a proposal, ``verification`` the
winner once more, on a fresh engine, with more repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainables._blocks import model_ready
from trainables._staging import local_model
from trainables._trial import Json, Steps, TrialRun
from trainables._types import register_trial_type
from trainables.engines import Deployment, start_service
from trainables.engines._simulated import SimulatedEngine
from trainables.models import is_builtin, is_complete
from trainables.serving._devices import devices_of
from trainables.serving._options import ServingOptions
from trainables.serving._positions import Placed, place
from trainables.serving._served import ServedTrial, not_started
from trainables.serving._simulated import simulated_pool, simulated_service
from trainables.serving._simulated_checks import simulation_problems

_SHOWN_PORT = 8000


@register_trial_type("serving")
class ServingTrial(ServedTrial):
    """Parameters: any, each goes to its position. Metrics: those of
    :mod:`trainables.benchmarks`, and ``startup_s``, how long the engine took to serve."""

    Options = ServingOptions
    options: ServingOptions

    def problems(self) -> list[tuple[str, str]]:
        return super().problems() or self._simulation_problems()

    def stage_names(self, kind: str) -> tuple[str, ...]:
        return ("benchmark",) if self._simulates else ("deploy", "health", "benchmark")

    def devices(self, parameters: Mapping[str, Json], kind: str) -> int | None:
        """Tensor x pipeline x data parallel size of the engine; none where it is simulated."""
        if self._simulates:
            return super().devices(parameters, kind)
        return devices_of(self._engine, self._shown(place(parameters, self.options.positions)))

    def run(self, trial: TrialRun) -> Steps:
        yield from model_ready(trial, self.options.model)
        placed = place(trial.spec.parameters, self.options.positions)
        if isinstance(self._engine, SimulatedEngine):
            shown, memory = self._shown(placed), self.options.early_rejection.device_memory
            pool = simulated_pool(self._engine, shown, memory)
            played = simulated_service(self._engine, shown.served_name, [pool])
            return (yield from self.play(trial, played, placed))
        if trial.spec.kind == "candidate" and (said := self._too_big(self._shown(placed))):
            return not_started(said)
        model = yield from local_model(trial, self.options.model)
        service = yield from start_service(
            trial,
            self._engine,
            model=model,
            options=placed.arguments,
            env=placed.env,
            config=placed.config,
        )
        with service:
            for stage, seconds in service.seconds.items():
                trial.stages.append({"name": stage, "seconds": seconds, "resumed": False})
            where = (service.base_url, service.served_name)
            course = self._course(trial, *where, placed, self._benchmark)
            answer = yield from service.watch(course.steps())
        return self._result(course, answer, sum(service.seconds.values()), service.notes)

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        placed = place(parameters, self.options.positions)
        return self._engine.deliverables(self._shown(placed))

    def _shown(self, placed: Placed) -> Deployment:
        """A deployment for reading, not for starting."""
        engine = self._engine
        name = engine.options.served_model_name or self._folder().name
        port = engine.port or _SHOWN_PORT
        where = (self._folder(), name, engine.host, port)
        return Deployment(*where, placed.arguments, placed.env, placed.config)

    def _simulation_problems(self) -> list[tuple[str, str]]:
        """Why the configuration of today cannot be simulated, as far as it can be told now."""
        engine, model = self._engine, self.options.model
        if not isinstance(engine, SimulatedEngine):
            return []
        if is_builtin(model) and not is_complete(self._folder()):
            return []
        shown = self._shown(place(self.options.baseline or {}, self.options.positions))
        memory = self.options.early_rejection.device_memory
        return simulation_problems(engine, shown, memory, self._benchmark)
