"""Conformance suite of the contract of transfers. Nothing is started."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import get_args

from trainables._contract import require
from trainables._program import StageError
from trainables._trial import Json
from trainables.disaggregated._conformance import (
    Changes,
    check_options,
    require_misfits,
    split_of,
)
from trainables.disaggregated._plan import Instance, Plan
from trainables.disaggregated._transfer import (
    CONFIG,
    Addition,
    Flow,
    Transfer,
    Where,
    make_transfer,
)
from trainables.disaggregated._transfer_sizes import engine_block
from trainables.engines import Deployment, make_engine
from trainables.engines.testing import words_of

_HOST, _PORT, _FOLDER = "192.0.2.1", 7100, "/shared/folder"
_FIRST, _APART = 41000, 1000


def check_transfer(
    block: Mapping[str, Json],
    *,
    trial: Mapping[str, Json] | None = None,
    misfits: Changes = (),
    matters: Changes = (),
    neutral: Changes = (),
    counted: Iterable[tuple[str, float | None]] = (),
) -> None:
    """Check the whole contract.

    Args:
        block: A ``transfer`` block without faults.
        trial: The rest of a ``trial`` block that it serves, as far as it is not vLLM with one
            device for each instance; ``baseline`` are the parameters, by default two instances of
            either role.
        misfits: Changes of ``trial``, each of which it cannot serve.
        matters: Changes of ``block``, each of which changes results.
        neutral: Changes of ``block`` that do not: addresses, ports, folders.
        counted: Answers of an engine's ``/metrics``, each with the tokens that have come there;
            None where it does not tell.
    """
    check_options(block, make_transfer, matters, neutral)
    transfer = make_transfer(block)
    rest = {**(trial or {}), "transfer": block}
    split = split_of(rest)
    require(transfer.flow in get_args(Flow), f"flow is {transfer.flow!r}")
    require(isinstance(transfer.reserved, range), f"reserved is no range: {transfer.reserved}")
    said = transfer.misfits(split)
    require(said == [], f"a split that it serves has misfits: {said}")
    for instance in split.instances:
        _check_settings(transfer, split, instance)
        _check_ports(transfer, split, instance)
    for change in misfits:
        _check_misfit(transfer, split_of({**rest, **change}), change)
    unknown = transfer.transferred("")
    require(unknown is None, f"{unknown} tokens have come where nothing is counted, not None")
    for text, tokens in counted:
        found = transfer.transferred(text)
        require(found == tokens, f"{found} tokens have come instead of {tokens}")


def _check_settings(transfer: Transfer, split: Plan, instance: Instance) -> None:
    """They are JSON, always the same, reach the engine, and leave alone what a user says."""
    found = _settings(transfer, split, instance)
    copy = json.loads(json.dumps(dict(found.args), allow_nan=False))
    require(copy == found.args, f"arguments are not JSON: {dict(found.args)}")
    again = _settings(transfer, split, instance)
    require(found == again, "the settings of one instance are not always the same")
    told = words_of(make_engine(engine_block(split)).launch(_deployment(split, instance, found)))
    lacking = [word for item in found.env.items() for word in item if word not in told]
    require(not lacking, f"the engine is not told {lacking}")
    for name in (name for name in found.args if name != CONFIG):
        decided = replace(instance, args={**instance.args, name: "decided"})
        kept = name not in _settings(transfer, split, decided).args
        require(kept, f"the argument {name} is set although the user has said it")
    for name in found.env:
        decided = replace(instance, env={**instance.env, name: "decided"})
        kept = name not in _settings(transfer, split, decided).env
        require(kept, f"the variable {name} is set although the user has said it")


def _check_ports(transfer: Transfer, split: Plan, instance: Instance) -> None:
    """Those that are leased are used, so that instances on one node do not meet."""
    wanted = transfer.ports(instance)
    require(isinstance(wanted, int) and wanted >= 0, f"ports() is {wanted!r}")
    if not wanted:
        return
    first, other = (_settings(transfer, split, instance, ports=number) for number in (0, 1))
    require(first != other, "two instances on one node would use the same ports")
    used = str(_first_port(transfer, 0)) in json.dumps([dict(first.args), dict(first.env)])
    require(used, f"the settings do not have the leased port: {first}")
    few = range(_first_port(transfer, 0), _first_port(transfer, 0) + wanted - 1)
    _require_refusal(transfer, split, instance, few, "fewer ports than it asked for")
    if transfer.reserved:
        inside = range(transfer.reserved.start, transfer.reserved.start + wanted)
        _require_refusal(transfer, split, instance, inside, "ports that it has reserved")


def _check_misfit(transfer: Transfer, split: Plan, change: Mapping[str, Json]) -> None:
    require_misfits(transfer.misfits(split), change)
    instance = split.instances[0]
    ports = _ports(transfer, instance, 0)
    _require_refusal(transfer, split, instance, ports, f"a split that cannot work: {change}")


def _require_refusal(
    transfer: Transfer, split: Plan, instance: Instance, ports: range, what: str
) -> None:
    try:
        transfer.settings(instance, Where(split, _HOST, ports, "eth0", _FOLDER))
    except StageError as error:
        require(error.failure == "input", f"{what}: a failure {error.failure}, not input")
    else:
        require(False, f"settings() takes {what}")


def _settings(transfer: Transfer, split: Plan, instance: Instance, ports: int = 0) -> Addition:
    leased = _ports(transfer, instance, ports)
    return transfer.settings(instance, Where(split, _HOST, leased, "eth0", _FOLDER))


def _ports(transfer: Transfer, instance: Instance, number: int) -> range:
    first = _first_port(transfer, number)
    return range(first, first + transfer.ports(instance))


def _first_port(transfer: Transfer, number: int) -> int:
    """Of one instance's ports, or of another's on its node."""
    return max(_FIRST, transfer.reserved.stop) + number * _APART


def _deployment(split: Plan, instance: Instance, found: Addition) -> Deployment:
    args, env = {**instance.args, **found.args}, {**instance.env, **found.env}
    return Deployment(split.model, split.served_name, _HOST, _PORT, args, env)
