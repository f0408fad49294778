"""What one trial starts: its instances, what they have, and what joins them. Pure.

The modules of this package meet in these types:

* a trial makes a :class:`Plan` of its options and parameters; every part of an instance, of which
  most have one, becomes one engine on the node of one bundle, in the order of :attr:`Plan.parts`;
* the transfer (``make_transfer(plan.transfer)``) adds arguments and variables to an
  :class:`Instance`, given where it runs;
* once an instance serves, :meth:`Instance.serving` is what the router gets, which
  ``make_router(plan.router)`` makes;
* ``deployment_files(plan)`` writes a plan down for people, before anything has a host or a port.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainables._blocks import model_folder
from trainables._trial import Json
from trainables.disaggregated._options import (
    DECODE,
    MIXED,
    PREFILL,
    ROLES,
    DisaggregatedOptions,
    Role,
    Shape,
)
from trainables.engines._arguments import merged
from trainables.serving._positions import (
    CONCURRENCY,
    REQUEST_RATE,
    Placed,
    place,
    position,
)

ALONE: tuple[Role, ...] = (PREFILL, DECODE)
"""Kinds of trials that measure one instance of that role, without a router or a transfer."""


class SplitError(ValueError):
    """Parameters that describe no split."""


@dataclass(frozen=True)
class Instance:
    """One engine of a split, or one part of an engine that is spread over several nodes.

    Attributes:
        role: What it does.
        number: From 1, within its role.
        shape: Name of its shape.
        devices: Accelerators it takes, on all its nodes together.
        args: Arguments over the engine block's own: those of its role, its shape and the
            parameters, the later ones winning.
        env: Variables over the engine block's own, likewise.
        config: Entries of the engine's configuration file, for engines that have one.
        host: Address of its node; empty as long as it has none.
        port: Its port there; 0 as long as it has none.
        base_url: ``http://host:port`` once it serves.
        nodes: How many nodes it is spread over.
        part: Which of its parts this is, from 1. Part 1 is its head, which has the API.
    """

    role: Role
    number: int
    shape: str
    devices: int
    args: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, Json] = field(default_factory=dict)
    config: Mapping[str, Json] = field(default_factory=dict)
    host: str = ""
    port: int = 0
    base_url: str | None = None
    nodes: int = 1
    part: int = 1

    @property
    def name(self) -> str:
        """``prefill-1``, the same for all its parts."""
        return f"{self.role}-{self.number}"

    @property
    def title(self) -> str:
        """``prefill-1``, ``prefill-1 part 2``: what people read."""
        return self.name if self.part == 1 else f"{self.name} part {self.part}"

    @property
    def slug(self) -> str:
        """``prefill-1``, ``prefill-1-part-2``: its folder in the trial's, and its script."""
        return self.title.replace(" ", "-")

    @property
    def devices_here(self) -> int:
        """Accelerators that a part takes on its node."""
        return self.devices // self.nodes

    @property
    def leads(self) -> bool:
        """Whether other parts of its instance meet at it."""
        return self.part == 1 < self.nodes

    @property
    def parts(self) -> tuple[Instance, ...]:
        """Its parts, itself first. Only the head is somewhere."""
        elsewhere = replace(self, host="", port=0, base_url=None)
        return (self, *(replace(elsewhere, part=part) for part in range(2, self.nodes + 1)))

    def serving(self, host: str, port: int, base_url: str) -> Instance:
        """The same one, where it serves."""
        return replace(self, host=host, port=port, base_url=base_url)


@dataclass(frozen=True)
class Plan:
    """What one trial starts.

    Attributes:
        model: Folder of the checkpoint.
        served_name: The model's name in requests.
        engine: The engine's block, the same for all instances.
        instances: Prefill ones, then decode ones, then mixed ones.
        transfer: The transfer's block; None where nothing is transferred.
        router: The router's block; None where one instance is measured alone.
        load: Where the search decides the load: its ``concurrency`` and ``request_rate``.
        interface: Network interface of the nodes; None: the one that has the node's address.
    """

    model: Path
    served_name: str
    engine: Mapping[str, Json]
    instances: tuple[Instance, ...]
    transfer: Mapping[str, Json] | None = None
    router: Mapping[str, Json] | None = None
    load: Placed = field(default_factory=Placed)
    interface: str | None = None

    @property
    def parts(self) -> tuple[Instance, ...]:
        """All parts of all instances, those of one instance next to each other."""
        return tuple(part for one in self.instances for part in one.parts)

    def of(self, role: Role) -> tuple[Instance, ...]:
        """The instances of a role."""
        return tuple(one for one in self.instances if one.role == role)


def plan(
    options: DisaggregatedOptions, parameters: Mapping[str, Json], kind: str = "candidate"
) -> Plan:
    """What a trial of these parameters starts.

    Raises :class:`SplitError` for parameters that describe none.
    """
    counts = instance_counts(options, parameters, kind)
    served_name = options.engine.get("served_model_name") or model_folder(options.model).name
    alone = kind in ALONE
    instances = tuple(
        instance
        for role in ROLES
        if counts[role]
        for instance in _instances(options, parameters, role, counts[role])
    )
    return Plan(
        model_folder(options.model),
        served_name,
        options.engine,
        instances,
        None if alone or counts[MIXED] else options.transfer,
        None if alone else options.router,
        _load(options, parameters),
        options.interface,
    )


def instance_counts(
    options: DisaggregatedOptions, parameters: Mapping[str, Json], kind: str = "candidate"
) -> dict[Role, int]:
    """How many instances each role has.

    Counts that the parameters do not give: one prefill and one decode instance where there are
    shapes for both and no mixed one is given, else one mixed one. Raises :class:`SplitError` for
    counts that are no split.
    """
    if kind in ALONE:
        return {role: int(role == kind) for role in ROLES}
    given = {role: _count(role, parameters) for role in ROLES}
    splits = all(fitting_shapes(options, role) for role in ALONE)
    mixed = given[MIXED]
    if mixed is None:
        mixed = int(not splits and all(given[role] is None for role in ALONE))
    assumed = int(splits and not mixed)
    counts: dict[Role, int] = {
        role: assumed if (count := given[role]) is None else count for role in ALONE
    }
    counts[MIXED] = mixed
    if mixed and any(counts[role] for role in ALONE):
        raise SplitError(
            f"{counts[PREFILL]} prefill, {counts[DECODE]} decode and {mixed} mixed instances: "
            "a trial has either mixed ones, or prefill and decode ones"
        )
    if not mixed and not all(counts[role] for role in ALONE):
        raise SplitError(
            f"{counts[PREFILL]} prefill, {counts[DECODE]} decode and no mixed instances: "
            "a trial needs a mixed one, or one of each other role"
        )
    return counts


def fitting_shapes(options: DisaggregatedOptions, role: Role) -> tuple[str, ...]:
    """The names of the shapes that instances of a role may have."""
    return tuple(name for name, shape in options.shapes.items() if role in shape.roles)


def shape_of(
    options: DisaggregatedOptions, parameters: Mapping[str, Json], role: Role
) -> tuple[str, Shape]:
    """The shape of a role's instances, with its name.

    Raises :class:`SplitError` where the parameters name none that the role may have.
    """
    fitting = fitting_shapes(options, role)
    known = ", ".join(fitting) or "none"
    named = parameters.get(f"{role}_shape")
    if named is None:
        if len(fitting) != 1:
            raise SplitError(f"{role}_shape: say which of the shapes that may be {role}: {known}")
        named = fitting[0]
    if named not in fitting:
        raise SplitError(f"{role}_shape: {named!r} is no shape that may be {role}; {known}")
    return named, options.shapes[named]


def pairings(options: DisaggregatedOptions) -> list[dict[str, str]]:
    """The shapes that a split may have, by role: one for prefill and one for decode, or a mixed."""
    shapes = {role: fitting_shapes(options, role) for role in ROLES}
    apart: list[dict[str, str]] = [
        {PREFILL: first, DECODE: second} for first in shapes[PREFILL] for second in shapes[DECODE]
    ]
    mixed: list[dict[str, str]] = [{MIXED: shape} for shape in shapes[MIXED]]
    return apart + mixed


def one_of_each(shapes: Mapping[str, str]) -> dict[str, Json]:
    """Parameters of the smallest split with these shapes."""
    counts: dict[str, Json] = {f"{role}_instances": 1 for role in shapes}
    return counts | {f"{role}_shape": shape for role, shape in shapes.items()}


def split_names() -> frozenset[str]:
    """The parameters that decide which instances there are."""
    return frozenset(f"{role}_{what}" for role in ROLES for what in ("instances", "shape"))


def scope(name: str) -> tuple[Role | None, str]:
    """Whose a parameter is, and its name there: ``prefill.NAME`` is a role's, ``NAME`` all's."""
    first, dot, rest = name.partition(".")
    for role in ROLES:
        if dot and rest and first == role:
            return role, rest
    return None, name


def where(name: str, positions: Mapping[str, str]) -> str:
    """The position of a parameter; a role's has that of its plain name unless it has its own."""
    return positions[name] if name in positions else position(scope(name)[1], positions)


def _instances(
    options: DisaggregatedOptions, parameters: Mapping[str, Json], role: Role, count: int
) -> Iterable[Instance]:
    name, shape = shape_of(options, parameters, role)
    own = getattr(options.roles, role)
    common, particular = (_placed(options, parameters, whose) for whose in (None, role))
    args = _over(own.args, shape.args, common.arguments, particular.arguments)
    env = {**own.env_vars, **common.env, **particular.env}
    config = {**common.config, **particular.config}
    for number in range(1, count + 1):
        yield Instance(role, number, name, shape.devices, args, env, config, nodes=shape.nodes)


def _placed(
    options: DisaggregatedOptions, parameters: Mapping[str, Json], whose: Role | None
) -> Placed:
    """The parameters of one scope, by where they go."""
    mine = {
        scope(name)[1]: (value, where(name, options.positions))
        for name, value in parameters.items()
        if scope(name)[0] == whose and name not in split_names()
    }
    return place(
        {name: value for name, (value, _) in mine.items()},
        {name: position for name, (_, position) in mine.items()},
    )


def _load(options: DisaggregatedOptions, parameters: Mapping[str, Json]) -> Placed:
    found = _placed(options, parameters, None)
    return Placed(
        concurrency=found.concurrency, request_rate=found.request_rate, searched=found.searched
    )


def _over(*layers: Mapping[str, Json]) -> dict[str, Json]:
    """Arguments of several layers, the later ones winning however they are spelled."""
    together: dict[str, Json] = {}
    for layer in layers:
        together = merged(together, layer)
    return together


def _count(role: Role, parameters: Mapping[str, Json]) -> int | None:
    value = parameters.get(f"{role}_instances")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise SplitError(f"{role}_instances: {value!r} is no number of instances")
    if value < 0:
        raise SplitError(f"{role}_instances: {value!r} is below 0")
    return int(value)


def load_roles(names: Sequence[str], positions: Mapping[str, str]) -> list[str]:
    """Parameters of one role that would be the load, which there is only one of."""
    loads = (CONCURRENCY, REQUEST_RATE)
    return [name for name in names if scope(name)[0] and where(name, positions) in loads]
