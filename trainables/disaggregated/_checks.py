"""Faults of a disaggregated trial's block and of its parameters. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from trainables._blocks import Problems
from trainables._trial import Json
from trainables.disaggregated._options import ROLES, DisaggregatedOptions, Shape
from trainables.disaggregated._plan import (
    ALONE,
    SplitError,
    fitting_shapes,
    load_roles,
    plan,
    scope,
    split_names,
)
from trainables.disaggregated._transfer_sizes import SIMULATED
from trainables.engines import engine_type
from trainables.engines._arguments import argument_name, argument_problems

_CONFIG = "kv-transfer-config"
_DECIDED = {
    **dict.fromkeys(("model", "host", "port", "served-model-name"), "the trial decides it"),
    "api-key": "the router would need the key too",
    _CONFIG: "trial.transfer decides it",
}
_SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


def option_problems(options: DisaggregatedOptions) -> Problems:
    """Faults as (dotted path inside the ``trial`` block, message)."""
    return [
        *_engine_problems(options),
        *_shape_problems(options),
        *_role_problems(options),
        *_baseline_problems(options),
    ]


def name_problems(options: DisaggregatedOptions, names: Iterable[str]) -> Problems:
    """Parameters of a search space that cannot do what they seem to, as (name, message)."""
    found: Problems = []
    names = list(names)
    for name in names:
        role, plain = scope(name)
        if role is None and name in split_names():
            role = next(one for one in ROLES if name.startswith(f"{one}_"))
        if role is not None and not fitting_shapes(options, role):
            found.append((name, f"no shape may be {role}, so there are no such instances"))
        elif argument_name(plain) in _DECIDED:
            found.append((name, f"{_DECIDED[argument_name(plain)]}; leave it out"))
    said = "is a load, which the split has as a whole; leave its role out"
    return [*found, *((name, said) for name in load_roles(names, options.positions))]


def _engine_problems(options: DisaggregatedOptions) -> Problems:
    engine = options.engine
    found: Problems = []
    if engine.get("port") is not None:
        said = "instances may share a node, so each gets a free port; leave it out"
        found.append(("engine.port", said))
    if str(engine.get("host", "localhost")) != "localhost":
        said = "each instance listens on the address of its node; leave it out"
        found.append(("engine.host", said))
    args = engine.get("args")
    for key in args if isinstance(args, dict) else ():
        if argument_name(str(key)) == _CONFIG:
            found.append((f"engine.args.{key}", f"{_DECIDED[_CONFIG]}; leave it out"))
    return found


def _shape_problems(options: DisaggregatedOptions) -> Problems:
    found: Problems = []
    for name, shape in options.shapes.items():
        path = f"shapes.{name}"
        if not shape.roles:
            found.append((f"{path}.roles", "it names no role, so nothing has this shape"))
        found += _argument_problems(f"{path}.args", shape.args)
        found += _node_problems(options, path, shape)
        if (size := _size(shape.args)) is not None and size != shape.devices:
            said = f"its arguments take {size} devices, not {shape.devices}"
            found.append((f"{path}.devices", said))
    lacking = [role for role in ALONE if not fitting_shapes(options, role)]
    if len(lacking) == 1:
        said = f"no shape may be {lacking[0]}, so no split has what may only be the other role"
        found.append(("shapes", said))
    return found


def _node_problems(options: DisaggregatedOptions, path: str, shape: Shape) -> Problems:
    """Why instances of a shape cannot be on as many nodes as it says."""
    if shape.nodes == 1:
        return []
    found: Problems = []
    if shape.devices % shape.nodes:
        said = f"{shape.devices} devices cannot be shared out evenly over {shape.nodes} nodes"
        found.append((f"{path}.nodes", said))
    sort = str(options.engine.get("type"))
    if sort != SIMULATED and not _can_span(sort):
        said = f"an instance of the engine {sort} is started on one node; leave it out"
        found.append((f"{path}.nodes", said))
    return found


def _can_span(sort: str) -> bool:
    """Whether an engine can be on several nodes; others' faults with an unknown one are said
    elsewhere."""
    try:
        return engine_type(sort).headless
    except (KeyError, ImportError):
        return True


def _role_problems(options: DisaggregatedOptions) -> Problems:
    found: Problems = []
    for role in ROLES:
        own = getattr(options.roles, role)
        path = f"roles.{role}"
        found += _argument_problems(f"{path}.args", own.args)
        said_something = own.args or own.env_vars or own.labels
        if said_something and not fitting_shapes(options, role):
            found.append((path, f"no shape may be {role}; name the role in shapes, or leave it"))
    return found


def _baseline_problems(options: DisaggregatedOptions) -> Problems:
    if options.baseline is None:
        return []
    found = [(f"baseline.{name}", said) for name, said in name_problems(options, options.baseline)]
    if not found:
        try:
            plan(options, options.baseline, "baseline")
        except SplitError as error:
            found.append(("baseline", str(error)))
    return found


def _argument_problems(path: str, args: Mapping[str, Json]) -> Problems:
    found = [(f"{path}.{key}", said) for key, said in argument_problems(args)]
    for key in args:
        if why := _DECIDED.get(argument_name(key)):
            found.append((f"{path}.{key}", f"{why}; leave it out"))
    return found


def _size(args: Mapping[str, Json]) -> int | None:
    """Devices that the sizes in arguments multiply to; None where they name none."""
    given = [value for key, value in args.items() if argument_name(key) in _SIZES]
    sizes = [size for size in given if isinstance(size, int)]
    return math.prod(sizes) if sizes and sizes == given else None
