"""What the conformance suites of transfers and routers share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainables._contract import ContractViolation, json_identity, require
from trainables._trial import Json
from trainables.disaggregated._options import DisaggregatedOptions
from trainables.disaggregated._plan import Plan, plan
from trainables.disaggregated._transfer import Flow, make_transfer

Changes = Iterable[Mapping[str, Json]]

_TRIAL: Mapping[str, Json] = {
    "model": "/models/some-model",
    "engine": {"type": "vllm", "command": ["vllm", "serve"]},
}
_TWO_OF_EACH = {"prefill_instances": 2, "decode_instances": 2}


def split_of(trial: Mapping[str, Json]) -> Plan:
    """The split that a ``trial`` block starts; its ``baseline`` are the parameters."""
    options = DisaggregatedOptions.model_validate({**_TRIAL, **trial})
    return plan(options, options.baseline or _TWO_OF_EACH)


def flow_of(split: Plan) -> Flow:
    """Whom requests meet first."""
    return "prefill_first" if split.transfer is None else make_transfer(split.transfer).flow


def check_options(
    block: Mapping[str, Json],
    make: Callable[[Mapping[str, Json]], Any],
    matters: Changes,
    neutral: Changes,
) -> None:
    """Schema, options, problems and identity of a block without faults."""
    made = make(block)
    kind = type(made.options)
    require(kind is made.Options, f"its options are {kind.__name__}, not {made.Options.__name__}")
    schema = TypeAdapter(kind).json_schema()
    require("type" in schema.get("properties", {}), "its schema has no type")
    resolved = made.options.model_dump(mode="json")
    again = kind.model_validate(json.loads(json.dumps(resolved)))
    require(again == made.options, f"options change on the way through JSON: {made.options}")
    _require_strict(block, make)
    require(made.problems() == [], f"a sound block has problems: {made.problems()}")
    identity = json_identity(made)
    require(
        identity == json_identity(make(block)), "the identity of one block is not always the same"
    )
    require(identity == json_identity(make(resolved)), "resolving the block changes its identity")
    for change in neutral:
        same = identity == json_identity(make({**block, **change}))
        require(same, f"{change} changes the identity")
    for change in matters:
        same = identity == json_identity(make({**block, **change}))
        require(not same, f"{change} does not change the identity")


def require_misfits(said: object, what: object) -> None:
    """Reasons for people why something cannot work."""
    sound = isinstance(said, list) and all(isinstance(one, str) and one.strip() for one in said)
    require(sound, f"misfits() gives no texts: {said}")
    require(bool(said), f"misfits() says nothing of {what}")


def _require_strict(block: Mapping[str, Json], make: Callable[[Mapping[str, Json]], Any]) -> None:
    try:
        make({**block, "no_such_option": 1})
    except ValidationError:
        return
    raise ContractViolation("a key that it does not know is not refused")
