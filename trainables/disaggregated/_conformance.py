"""What the conformance suites of transfers and routers share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainables._trial import Json
from trainables.disaggregated._options import DisaggregatedOptions
from trainables.disaggregated._plan import Plan, plan
from trainables.disaggregated._transfer import Flow, make_transfer
from trainables.engines import Launch
from trainables.engines.testing import ContractViolation

Changes = Iterable[Mapping[str, Json]]

_TRIAL: Mapping[str, Json] = {
    "model": "/models/some-model",
    "engine": {"type": "vllm", "command": ["vllm", "serve"]},
}
_TWO_OF_EACH = {"prefill_instances": 2, "decode_instances": 2}


def require(condition: bool, message: str) -> None:
    """Raise :class:`ContractViolation` unless ``condition`` holds."""
    if not condition:
        raise ContractViolation(message)


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
    identity = _identity(made)
    require(identity == _identity(make(block)), "the identity of one block is not always the same")
    require(identity == _identity(make(resolved)), "resolving the block changes its identity")
    for change in neutral:
        same = identity == _identity(make({**block, **change}))
        require(same, f"{change} changes the identity")
    for change in matters:
        same = identity == _identity(make({**block, **change}))
        require(not same, f"{change} does not change the identity")


def require_misfits(said: object, what: object) -> None:
    """Reasons for people why something cannot work."""
    sound = isinstance(said, list) and all(isinstance(one, str) and one.strip() for one in said)
    require(sound, f"misfits() gives no texts: {said}")
    require(bool(said), f"misfits() says nothing of {what}")


def words_of(launch: Launch) -> list[str]:
    """All words of a command and its environment, which have to be texts."""
    words = [*launch.argv, *launch.env, *launch.env.values()]
    text = all(isinstance(word, str) and "\0" not in word for word in words)
    require(bool(launch.argv) and text, f"not a command: {launch}")
    return words


def _require_strict(block: Mapping[str, Json], make: Callable[[Mapping[str, Json]], Any]) -> None:
    try:
        make({**block, "no_such_option": 1})
    except ValidationError:
        return
    raise ContractViolation("a key that it does not know is not refused")


def _identity(made: Any) -> Json:
    identity = made.identity()
    copy = json.loads(json.dumps(identity, allow_nan=False))
    require(copy == identity, f"identity() is not JSON: {identity}")
    return copy
