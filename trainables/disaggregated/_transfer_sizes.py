"""What the arguments of an instance say about its parallelism and blocks. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables._trial import Json
from trainables.disaggregated._plan import Instance, Plan
from trainables.engines._arguments import argument_name, merged
from trainables.engines._substitution import in_list, in_mapping

SIMULATED = "simulated"
_SHORT = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
}


class SizeError(ValueError):
    """An argument that is no number where a number is needed."""


@dataclass(frozen=True)
class Sizes:
    """How one engine is spread over its devices.

    Attributes:
        tensor, pipeline, data: Its parallel sizes; data parallel ranks are all in this instance.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.data


def sizes(plan: Plan, instance: Instance) -> Sizes:
    """The sizes that an instance's engine will have.

    Raises :class:`SizeError` for sizes that are no numbers.
    """
    return Sizes(
        number(plan, instance, "tensor-parallel-size") or 1,
        number(plan, instance, "pipeline-parallel-size") or 1,
        number(plan, instance, "data-parallel-size") or 1,
    )


def number(plan: Plan, instance: Instance, name: str) -> int | None:
    """A positive argument of an instance; None where nobody has said it.

    Raises :class:`SizeError` for anything else.
    """
    value = given_arguments(plan, instance).get(name)
    if value is None or value is False:
        return None
    try:
        size = int(str(value))
    except ValueError:
        size = 0
    if size < 1:
        raise SizeError(f"{name} of {instance.role} instances is {value!r}, no number above 0")
    return size


def engine_block(plan: Plan) -> Mapping[str, Json]:
    """The block of the engine that serves, or that a simulated one stands for."""
    block = plan.engine
    return block["of"] if block.get("type") == SIMULATED and "of" in block else block


def given_arguments(plan: Plan, instance: Instance) -> dict[str, Json]:
    """All that was said about an instance's arguments, by plain name, with variables replaced.

    Raises :class:`SizeError` where a variable without a value is in them.
    """
    engine = engine_block(plan)
    env = {**engine.get("env_vars", {}), **instance.env}
    together = merged(engine.get("args", {}), instance.args)
    try:
        written = _written(in_list(engine.get("extra_args", []), env))
        named = in_mapping(together, env)
    except ValueError as error:
        raise SizeError(str(error)) from None
    return {**written, **{argument_name(name): value for name, value in named.items()}}


def plain_name(name: str) -> str:
    """What an argument is about: ``--no-enable-x`` and ``enable_x`` are the same."""
    return argument_name(name).removeprefix("no-")


def setting(arguments: Mapping[str, Json], name: str, key: str) -> Json:
    """An entry of an argument that is a mapping, or JSON of one; None where it has none."""
    found = arguments.get(name)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return None
    return found.get(key) if isinstance(found, dict) else None


def _written(words: Sequence[str]) -> dict[str, Json]:
    """Arguments of a command line; one without a value is a flag."""
    found: dict[str, Json] = {}
    name = ""
    for word in words:
        if _is_name(word):
            start, equals, value = word.partition("=")
            name = _SHORT.get(start, argument_name(start))
            found[name] = value if equals else True
        elif name and found[name] is True:
            found[name] = word
    return found


def _is_name(word: str) -> bool:
    return word.startswith("--") or word.partition("=")[0] in _SHORT
