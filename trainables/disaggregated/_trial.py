"""The disaggregated trial: a split of a model's service over several nodes, measured under load.

Kinds: ``candidate`` a split, prefill and decode instances or mixed ones; ``verification`` the
winner once more; ``baseline`` the split in use today; ``prefill`` and ``decode`` one instance of
that role alone, whose numbers rate it and which can never win.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from pydantic import BaseModel, ValidationError

from cluster import Bundle, Placement
from trainables._blocks import Problems, model_ready, plugin_problems, plugin_schemas
from trainables._trial import Json, Result, Steps, TrialFailure, TrialRun
from trainables._types import register_trial_type
from trainables.benchmarks import Benchmark, make_benchmark
from trainables.disaggregated._alone import alone_goal, alone_load, one_token
from trainables.disaggregated._checks import name_problems, option_problems
from trainables.disaggregated._fleet import Fleet
from trainables.disaggregated._front import Front
from trainables.disaggregated._link import STAGE as LINK
from trainables.disaggregated._link import Link, Proof
from trainables.disaggregated._options import DECODE, PREFILL, DisaggregatedOptions, Shape
from trainables.disaggregated._plan import (
    ALONE,
    Instance,
    Plan,
    SplitError,
    one_of_each,
    pairings,
    plan,
)
from trainables.disaggregated._router import DEFAULT as DEFAULT_ROUTER
from trainables.disaggregated._router import Router, make_router, router_type, router_types
from trainables.disaggregated._simulated import simulated, simulated_files, split_problems
from trainables.disaggregated._span import span_misfits
from trainables.disaggregated._supervision import supervised, timed, undisturbed
from trainables.disaggregated._transfer import DEFAULT as DEFAULT_TRANSFER
from trainables.disaggregated._transfer import (
    Transfer,
    make_transfer,
    transfer_type,
    transfer_types,
)
from trainables.disaggregated._transfer_sizes import engine_block
from trainables.engines import Deployment, make_engine
from trainables.engines._simulated import SimulatedEngine
from trainables.serving._course import Answer, Course
from trainables.serving._goal import Goal
from trainables.serving._load import Load
from trainables.serving._served import ServedTrial, not_started

_SUPERVISOR_CPU = 1.0
_DEVICES = ("NPU", "GPU")
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

    def _blocks(self) -> dict[str, BaseModel]:
        more = {"transfer": self._transfer.options, "router": self._router.options}
        return super()._blocks() | more

    def placement(self, parameters: Mapping[str, Json], kind: str, one: Bundle) -> Placement:
        """The supervisor, with router and benchmark, and a bundle for each part of an instance.

        Parameters that are no split get the supervisor alone, which then says so; and so do
        simulated ones, which need no more.
        """
        cpus = min(_SUPERVISOR_CPU, one.resources.get("CPU", _SUPERVISOR_CPU))
        supervisor = Bundle({"CPU": cpus}, one.labels)
        if self._simulates:
            return Placement((supervisor,))
        try:
            parts = plan(self.options, parameters, kind).parts
        except SplitError:
            parts = ()
        bundles = (supervisor, *(self._bundle(part, one) for part in parts))
        heads = [number for number, part in enumerate(parts, 1) if part.leads]
        apart = (range(head, head + parts[head - 1].nodes) for head in heads)
        return Placement(bundles, apart=tuple(map(tuple, apart)))

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
                name: {"devices": shape.devices, "args": shape.args, **_spread(shape)}
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
        """The shapes, and which of them transfer and router cannot serve together."""
        shapes = self.options.shapes
        return {
            "shapes": {
                name: {"devices": shape.devices, "roles": list(shape.roles)}
                for name, shape in shapes.items()
            },
            "misfits": self._unfit_shapes(),
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
        with (
            Link(trial, split, self._transfer) as link,
            Fleet(trial, split, silence_s=silence_s) as fleet,
        ):
            with timed(trial, "deploy"):
                yield from link.start(fleet, self.options.model)
            if kind in ALONE:
                return (yield from self._alone(trial, fleet, split, link))
            return (yield from self._whole(trial, fleet, split, link))

    def deliverables(self, parameters: Mapping[str, Json]) -> Mapping[str, str]:
        from trainables.disaggregated._deploy import deployment_files

        split = plan(self.options, parameters)
        return simulated_files(split) if self._simulates else deployment_files(split)

    def _alone(self, trial: TrialRun, fleet: Fleet, split: Plan, link: Link) -> Steps:
        """One instance, without a router."""
        (instance,) = fleet.instances
        assert instance.base_url is not None
        proof = yield from link.prove(fleet, instance.base_url)
        benchmark = self._benchmark_of(trial.spec.kind)
        course = self._course(trial, instance.base_url, split.served_name, split.load, benchmark)
        answer = yield from supervised(course.steps(), fleet)
        return (yield from self._measured(course, answer, fleet, split, proof))

    def _whole(self, trial: TrialRun, fleet: Fleet, split: Plan, link: Link) -> Steps:
        """All instances, behind their router."""
        name = split.served_name
        router = self._router
        with Front.start(trial, router, fleet.instances, link.flow, link.taken) as front:
            with timed(trial, "health"):
                yield from supervised(front.answers(name), fleet, front)
            proof = yield from link.prove(fleet, front.base_url, front)
            course = self._course(trial, front.base_url, name, split.load, self._benchmark)
            earlier = LINK if link.transfers else "health"
            answer = yield from undisturbed(course, fleet, front, name, earlier)
            return (yield from self._measured(course, answer, fleet, split, proof, front.notes))

    def _measured(
        self,
        course: Course,
        answer: Answer,
        fleet: Fleet,
        split: Plan,
        proof: Proof,
        notes: Iterable[str] = (),
    ) -> Steps:
        """What a course found, once all instances are known to have lived to its end."""
        yield from fleet.confirm()
        found = self._result(course, answer, fleet.startup_s, [*fleet.notes, *notes, *proof.notes])
        nodes = fleet.nodes
        instances = {
            one.title: {"shape": one.shape, "devices": one.devices_here, "node": nodes[one.title]}
            for one in split.parts
        }
        devices = float(sum(one.devices for one in split.instances))
        return Result(
            {**found.metrics, "devices": devices},
            {**found.data, **proof.data, "instances": instances},
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

    def _unfit_shapes(self) -> list[dict[str, Json]]:
        """As far as the block decides it; none where it has faults, which are said elsewhere."""
        try:
            if isinstance(self._engine, SimulatedEngine):
                make_engine(self._engine.options.of)
            return [
                {**shapes, "why": "; ".join(misfits)}
                for shapes in pairings(self.options)
                if (misfits := self._misfits_of(plan(self.options, one_of_each(shapes))))
            ]
        except (ValidationError, KeyError, ImportError):
            return []

    def _misfits_of(self, split: Plan) -> list[str]:
        if self._simulates and not str(engine_block(split).get("type")).startswith("vllm"):
            return []  # MindIE moves KV caches by its own configuration, which is not simulated
        found = self._unspannable(split)
        if split.transfer is None:
            return [*found, *self._router.misfits(split)]
        found += [said for said in self._transfer.misfits(split) if said not in found]
        return [*found, *self._router.misfits(split, self._transfer.flow)]

    def _split(self, parameters: Mapping[str, Json], kind: str) -> Plan:
        try:
            split = plan(self.options, parameters, kind)
        except SplitError as error:
            raise TrialFailure("input", "deploy", str(error)) from error
        misfits = self._unspannable(split) if kind in ALONE else self._misfits_of(split)
        if misfits:
            suggestion = "see trial.transfer, trial.router, trial.roles and trial.shapes"
            raise TrialFailure("input", "deploy", "; ".join(misfits), suggestion=suggestion)
        return split

    def _unspannable(self, split: Plan) -> list[str]:
        """Why instances cannot be on several nodes, which simulated ones never are."""
        return [] if self._simulates else span_misfits(split)

    def _bundle(self, instance: Instance, one: Bundle) -> Bundle:
        """What a part of an instance occupies."""
        own = {
            name: float(instance.devices_here) if name in _DEVICES else amount
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


def _spread(shape: Shape) -> dict[str, Json]:
    """What identities say of a shape's nodes: nothing of one, as before there were more."""
    return {"nodes": shape.nodes} if shape.nodes > 1 else {}
