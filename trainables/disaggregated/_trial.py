"""The disaggregated trial: a split of a model's service over several nodes, measured under load.

Kinds: ``candidate`` a split, prefill and decode instances or mixed ones; ``verification`` the
winner once more; ``baseline`` the split in use today; ``prefill`` and ``decode`` one instance of
that role alone, whose numbers rate it and which can never win.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from cluster import Bundle, Placement
from trainables._blocks import Problems, model_ready, plugin_problems, plugin_schemas
from trainables._program import StageError
from trainables._trial import Json, Progress, Result, Steps, TrialFailure, TrialRun
from trainables._types import register_trial_type
from trainables.benchmarks import Benchmark, make_benchmark
from trainables.disaggregated._alone import alone_goal, alone_load, one_token, with_dummies
from trainables.disaggregated._checks import name_problems, option_problems
from trainables.disaggregated._fleet import Fleet
from trainables.disaggregated._front import Front
from trainables.disaggregated._options import DECODE, PREFILL, DisaggregatedOptions
from trainables.disaggregated._plan import ALONE, Instance, Plan, SplitError, plan
from trainables.disaggregated._proof import Uncounted, Unproven, aside, transferred_tokens
from trainables.disaggregated._router import DEFAULT as DEFAULT_ROUTER
from trainables.disaggregated._router import Router, make_router, router_type, router_types
from trainables.disaggregated._simulated import simulated, simulated_files, split_problems
from trainables.disaggregated._supervision import supervised, undisturbed
from trainables.disaggregated._transfer import DEFAULT as DEFAULT_TRANSFER
from trainables.disaggregated._transfer import (
    Transfer,
    Where,
    make_transfer,
    transfer_type,
    transfer_types,
)
from trainables.disaggregated._transfer_sizes import engine_block
from trainables.engines import Deployment
from trainables.engines._simulated import SimulatedEngine
from trainables.serving._course import Course
from trainables.serving._goal import Goal
from trainables.serving._load import Load
from trainables.serving._served import ServedTrial, not_started

_SUPERVISOR_CPU = 1.0
_DEVICES = ("NPU", "GPU")
_ANSWER_S = 120.0
_SHOWN = ("127.0.0.1", 8000)


@register_trial_type("disaggregated")
class DisaggregatedTrial(ServedTrial):
    """Parameters: see :class:`DisaggregatedOptions`. Metrics: those of
    :mod:`trainables.benchmarks`, ``startup_s``, how long the slowest instance took to serve, and
    ``devices``, the accelerators of all instances."""

    Options = DisaggregatedOptions
    options: DisaggregatedOptions

    @classmethod
    def schema(cls) -> dict[str, Json]:
        document = super().schema()
        definitions = document.setdefault("$defs", {})
        transfers = plugin_schemas(
            transfer_types(), transfer_type, definitions, default=DEFAULT_TRANSFER
        )
        routers = plugin_schemas(router_types(), router_type, definitions, default=DEFAULT_ROUTER)
        document["properties"]["transfer"] = {"oneOf": transfers}
        document["properties"]["router"] = {"oneOf": routers}
        return document

    def placement(self, parameters: Mapping[str, Json], kind: str, one: Bundle) -> Placement:
        """The supervisor, with router and benchmark, and a bundle for each instance.

        Parameters that are no split get the supervisor alone, which then says so; and so do
        simulated ones, which need no more.
        """
        cpus = min(_SUPERVISOR_CPU, one.resources.get("CPU", _SUPERVISOR_CPU))
        supervisor = Bundle({"CPU": cpus}, one.labels)
        if self._simulates:
            return Placement((supervisor,))
        try:
            instances = plan(self.options, parameters, kind).instances
        except SplitError:
            instances = ()
        return Placement((supervisor, *(self._bundle(instance, one) for instance in instances)))

    def devices(self, parameters: Mapping[str, Json], kind: str) -> int | None:
        if self._simulates:
            return super().devices(parameters, kind)
        try:
            instances = plan(self.options, parameters, kind).instances
        except SplitError:
            return None
        return sum(instance.devices for instance in instances)

    def identity(self, kind: str) -> Json:
        options = self.options
        document: dict[str, Json] = {
            **super().identity(kind),
            "shapes": {
                name: {"devices": shape.devices, "args": shape.args}
                for name, shape in sorted(options.shapes.items())
            },
            "roles": {
                role: {"args": own["args"], "env_vars": own["env_vars"]}
                for role, own in options.roles.model_dump(mode="json").items()
            },
        }
        if kind not in ALONE:
            document["transfer"] = self._transfer.identity()
            document["router"] = self._router.identity()
        return document

    def problems(self) -> Problems:
        found = super().problems()
        found += [(f"trial.{path}", said) for path, said in option_problems(self.options)]
        found += plugin_problems(
            "trial.transfer",
            lambda: [(f"trial.transfer.{p}", said) for p, said in self._transfer.problems()],
        )
        found += plugin_problems(
            "trial.router",
            lambda: [(f"trial.router.{p}", said) for p, said in self._router.problems()],
        )
        if not found and isinstance(self._engine, SimulatedEngine):
            found = split_problems(self.options, self._engine, self._benchmark)
        return found or self._misfits()

    def parameter_problems(self, names: Iterable[str]) -> Problems:
        names = list(names)
        return [*super().parameter_problems(names), *name_problems(self.options, names)]

    def search_options(self) -> Mapping[str, Json]:
        shapes = self.options.shapes
        return {
            "shapes": {
                name: {"devices": shape.devices, "roles": list(shape.roles)}
                for name, shape in shapes.items()
            }
        }

    def metric_names(self) -> frozenset[str] | None:
        names = super().metric_names()
        return None if names is None else names | {"devices"}

    def stage_names(self, kind: str) -> tuple[str, ...]:
        if self._simulates:
            return ("benchmark",)
        between = ("transfer",) if kind == DECODE else ()
        joined = ("router", "health", "transfer")
        return ("deploy", *(between if kind in ALONE else joined), "benchmark")

    def run(self, trial: TrialRun) -> Steps:
        kind = trial.spec.kind
        split = self._split(trial.spec.parameters, kind)
        yield from model_ready(trial, self.options.model)
        if isinstance(self._engine, SimulatedEngine):
            pushes = self._transfer.flow == "decode_first"
            return (yield from simulated(self, trial, self._engine, split, layerwise=pushes))
        if kind == PREFILL and one_token(self.options.benchmark) is None:
            said = "the benchmark cannot ask for answers of one token, so no prefill instance alone"
            suggestion = "give the benchmark a workload of the type random"
            raise TrialFailure("input", "benchmark", said, suggestion=suggestion)
        if kind in ("candidate", *ALONE) and (refusal := self._refusal(split)):
            return not_started(refusal)
        silence_s = self.options.timeouts.answer
        with _shared_folder(trial) as shared, Fleet(trial, split, silence_s=silence_s) as fleet:
            with _timed(trial, "deploy"):
                yield from self._start(trial, fleet, split, shared)
            if kind in ALONE:
                return (yield from self._alone(trial, fleet, split))
            return (yield from self._whole(trial, fleet, split))

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        from trainables.disaggregated._deploy import deployment_files

        split = plan(self.options, parameters)
        return simulated_files(split) if self._simulates else deployment_files(split)

    def _start(
        self, trial: TrialRun, fleet: Fleet, split: Plan, shared: Path
    ) -> Generator[Progress, None, None]:
        if split.transfer is None:
            dummies = with_dummies if trial.spec.kind == DECODE else lambda instance: instance
            yield from fleet.start(self.options.model, lambda instance, _: dummies(instance))
            return
        transfer = self._transfer
        yield from fleet.start(
            self.options.model,
            partial(_joined, transfer, split, str(shared)),
            transfer.ports,
            transfer.reserved,
        )

    def _alone(self, trial: TrialRun, fleet: Fleet, split: Plan) -> Steps:
        """One instance, without a router."""
        (instance,) = fleet.instances
        assert instance.base_url is not None
        notes: list[str] = []
        data: dict[str, Json] = {}
        if instance.role == DECODE:
            said = "prompts are not computed: their KV cache is filled with dummy values"
            data, notes = yield from self._proven(trial, fleet, instance.base_url, split, said)
        course = self._course(
            trial,
            instance.base_url,
            split.served_name,
            split.load,
            self._benchmark_of(trial.spec.kind),
        )
        return (yield from self._measured(course, fleet, split, None, data, notes))

    def _whole(self, trial: TrialRun, fleet: Fleet, split: Plan) -> Steps:
        """All instances, behind their router."""
        flow = self._transfer.flow if split.transfer is not None else "prefill_first"
        with Front.start(trial, self._router, fleet.instances, flow) as front:
            with _timed(trial, "health"):
                yield from supervised(front.answers(split.served_name), fleet, front)
            data: dict[str, Json] = {}
            notes = list(front.notes)
            if split.transfer is not None:
                found = yield from self._proven(trial, fleet, front.base_url, split, "", front)
                data, notes = found[0], [*notes, *found[1]]
            course = self._course(
                trial, front.base_url, split.served_name, split.load, self._benchmark
            )
            return (yield from self._measured(course, fleet, split, front, data, notes))

    def _proven(
        self,
        trial: TrialRun,
        fleet: Fleet,
        base_url: str,
        split: Plan,
        note: str,
        front: Front | None = None,
    ) -> Generator[Progress, None, tuple[dict[str, Json], list[str]]]:
        """Data and notes on KV caches having come from elsewhere.

        Raises ``TrialFailure`` when they have not.
        """
        work = partial(
            transferred_tokens,
            base_url,
            split.served_name,
            [one for one in fleet.instances if one.role == DECODE],
            self._transfer.transferred,
            _ANSWER_S,
        )
        notes = [note] if note else []
        with _timed(trial, "transfer"):
            try:
                steps = aside(work, Progress("transfer", "asking until KV caches have moved"))
                tokens = yield from supervised(steps, fleet, front)
            except Uncounted as error:
                return {}, [*notes, f"KV transfer not proven: {error}"]
            except Unproven as error:
                raise TrialFailure(
                    "tool",
                    "transfer",
                    f"no KV cache came to the decode instances: {error}",
                    suggestion="see trial.transfer, and what the instances' engine.log say of it",
                ) from error
        idle = [name for name, count in tokens.items() if not count]
        if idle:
            notes.append(f"no question was passed on to {', '.join(idle)} before the benchmark")
        return {"transferred_tokens": tokens}, notes

    def _measured(
        self,
        course: Course,
        fleet: Fleet,
        split: Plan,
        front: Front | None,
        data: Mapping[str, Json],
        notes: Iterable[str],
    ) -> Steps:
        if front is None:
            answer = yield from supervised(course.steps(), fleet)
        else:
            earlier = "health" if split.transfer is None else "transfer"
            answer = yield from undisturbed(course, fleet, front, split.served_name, earlier)
        yield from fleet.confirm()
        said = [*fleet.notes, *notes]
        found = self._result(course, answer, fleet.startup_s, said)
        nodes = fleet.nodes
        instances = {
            one.name: {"shape": one.shape, "devices": one.devices, "node": nodes[one.name]}
            for one in split.instances
        }
        devices = float(sum(one.devices for one in split.instances))
        return Result(
            {**found.metrics, "devices": devices},
            {**found.data, **data, "instances": instances},
            {},
            {**found.environment, **fleet.versions},
        )

    def _misfits(self) -> Problems:
        """Why no split can work whose instances have nothing but what the block says."""
        try:
            split = plan(self.options, self.options.baseline or {})
        except SplitError:
            return []  # the search says which
        return [("trial", said) for said in self._misfits_of(split)]

    def _misfits_of(self, split: Plan) -> list[str]:
        if self._simulates and not str(engine_block(split).get("type")).startswith("vllm"):
            return []  # MindIE moves KV caches by its own configuration, which is not simulated
        if split.transfer is None:
            return self._router.misfits(split)
        return [*self._transfer.misfits(split), *self._router.misfits(split, self._transfer.flow)]

    def _split(self, parameters: Mapping[str, Json], kind: str) -> Plan:
        try:
            split = plan(self.options, parameters, kind)
        except SplitError as error:
            raise TrialFailure("input", "deploy", str(error)) from error
        if kind not in ALONE and (misfits := self._misfits_of(split)):
            suggestion = "see trial.transfer, trial.router and trial.roles"
            raise TrialFailure("input", "deploy", "; ".join(misfits), suggestion=suggestion)
        return split

    def _bundle(self, instance: Instance, one: Bundle) -> Bundle:
        """What an instance occupies."""
        own = {
            name: float(instance.devices) if name in _DEVICES else amount
            for name, amount in one.resources.items()
        }
        return Bundle(own, {**one.labels, **getattr(self.options.roles, instance.role).labels})

    def _refusal(self, split: Plan) -> str | None:
        """Why by arithmetic an instance would refuse to start; None when all may."""
        for instance in {one.role: one for one in split.instances}.values():
            where = (split.model, split.served_name, *_SHOWN)
            shown = Deployment(*where, instance.args, instance.env, instance.config)
            if said := self._too_big(shown):
                return f"{instance.role} instances: {said}"
        return None

    def _load(self, kind: str) -> Load:
        return alone_load(self.options.load) if kind in ALONE else super()._load(kind)

    def _goal_of(self, kind: str) -> Goal:
        return alone_goal(self._goal, kind) if kind in ALONE else self._goal

    def _benchmark_of(self, kind: str) -> Benchmark:
        short = one_token(self.options.benchmark) if kind == PREFILL else None
        return self._benchmark if short is None else make_benchmark(short)

    @cached_property
    def _transfer(self) -> Transfer:
        return make_transfer(self.options.transfer)

    @cached_property
    def _router(self) -> Router:
        return make_router(self.options.router)


def _joined(
    transfer: Transfer, split: Plan, folder: str, instance: Instance, there: Mapping[str, Json]
) -> Instance:
    """An instance with what its transfer needs on its node."""
    interface = split.interface or there["interface"] or ""
    where = Where(split, there["address"], there["ports"], interface, folder)
    try:
        addition = transfer.settings(instance, where)
    except StageError as error:
        raise TrialFailure(
            error.failure, "deploy", str(error), suggestion=error.suggestion
        ) from error
    return replace(
        instance,
        args={**addition.args, **instance.args},
        env={**addition.env, **instance.env},
    )


@contextmanager
def _shared_folder(trial: TrialRun) -> Iterator[Path]:
    """A folder for KV caches on their way, which nobody needs afterwards."""
    folder = trial.folder / "transfer"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _timed(trial: TrialRun, stage: str) -> Iterator[None]:
    """A stage of the trial; how long it took is recorded when it has succeeded."""
    begun = time.monotonic()
    yield
    seconds = round(time.monotonic() - begun, 3)
    trial.stages.append({"name": stage, "seconds": seconds, "resumed": False})
