"""The ``trial.engine`` block of an optimizer's settings, and what is served with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from searchers import Json
from trainables.engines import split_arguments
from tuner.compat.serviceparam._config import Settings
from tuner.compat.serviceparam._parameters import Remarks
from tuner.compat.serviceparam._words import flags

_TUNED = {
    "max-num-batched-tokens": "MAX_NUM_BATCHED_TOKENS",
    "max-num-seqs": "MAX_NUM_SEQS",
}
"""Arguments that the original always gives, and the fields they take their values from."""
_WIDTHS = ("tensor-parallel-size", "tp", "pipeline-parallel-size", "pp", "data-parallel-size", "dp")
_OTHERS = "vllm.command.others"
_EVERYWHERE = ("0.0.0.0", "::", "[::]")
_MOST_LINES = 1000


@dataclass(frozen=True)
class Served:
    """An engine's block, and what the rest of the experiment has to know of it.

    Attributes:
        model: Folder of the checkpoint; empty after a problem.
        width: Devices that one instance occupies.
    """

    block: dict[str, Json]
    model: str
    width: int


def placeholder(value: str, shipped: str, place: str, wanted: str, remarks: Remarks) -> str:
    """A value that is neither missing nor the shipped file's placeholder; else empty."""
    if value.strip() and value != shipped:
        return value
    said = f"is not set; give {wanted}"
    if value.strip():
        said = f"{value!r} is the placeholder of the shipped file; give {wanted}"
    remarks.problem(place, said)
    return ""


def vllm_engine(
    settings: Settings,
    space: Mapping[str, Mapping[str, Json]],
    remarks: Remarks,
    *,
    kind: str,
    command: list[str] | None,
) -> Served:
    """vLLM as ``vllm serve MODEL``; ``kind`` is its type here."""
    given, place = settings.vllm.command, "vllm.command"
    model = placeholder(
        given.model, "model_path", f"{place}.model", "the checkpoint's folder", remarks
    )
    name = placeholder(
        given.served_model_name,
        "model_name",
        f"{place}.served_model_name",
        "the name for clients",
        remarks,
    )
    block: dict[str, Json] = {"type": kind, "command": command or ["vllm", "serve"]}
    block["served_model_name"] = name
    if host := _host(given.host, f"{place}.host", remarks):
        block["host"] = host
    _check_port(given.port, f"{place}.port", remarks)
    block |= watched(settings)
    words = _words(given.others, remarks)
    if args := _tuned(words, space, remarks):
        block["args"] = args
    if words:
        block["extra_args"] = words
    return Served(block, model, _width(words, space, remarks))


def _words(others: str, remarks: Remarks) -> list[str]:
    try:
        return split_arguments(others)
    except ValueError as error:
        remarks.problem(_OTHERS, str(error))
        return []


def _tuned(
    words: list[str], space: Mapping[str, Mapping[str, Json]], remarks: Remarks
) -> dict[str, Json]:
    """The arguments that the original always gives, as far as there are fields for them."""
    written = {name for name, _ in flags(words)}
    tuned: dict[str, Json] = {}
    for argument, name in _TUNED.items():
        if name not in space:
            remarks.note("vllm.target_field", f"there is no {name}, so --{argument} is not given")
        elif argument in written:
            said = f"--{argument} would end the effect of the field {name}; keep one of the two"
            remarks.problem(_OTHERS, said)
        else:
            tuned[argument] = f"${name}"
    return tuned


def watched(settings: Settings) -> dict[str, Json]:
    """How long a start may take, and the words in logs that end a trial."""
    given = settings.health_check
    found: dict[str, Json] = {"startup_timeout": settings.wait_start_time}
    errors = {
        whose: _filled({kind: _filled(listed) for kind, listed in patterns.items()})
        for whose, patterns in given.model_dump(exclude={"log_snippet_length"}).items()
    }
    if patterns := _filled(errors):
        lines = min(given.log_snippet_length, _MOST_LINES)
        found["health_check"] = {**patterns, "log_snippet_length": lines}
    return found


def _filled(entries: Mapping[str, Json]) -> dict[str, Json]:
    return {name: entry for name, entry in entries.items() if entry}


def _host(host: str, place: str, remarks: Remarks) -> str:
    if host in _EVERYWHERE:
        remarks.note(place, f"{host} is open to everybody; the engine listens on localhost")
        return "localhost"
    return host


def _check_port(port: str, place: str, remarks: Remarks) -> None:
    if not port or port == "port":
        return
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        remarks.problem(place, f"has to be a number from 1 to 65535, not {port!r}")
    else:
        remarks.note(place, f"{port} is not used: each engine gets a free port")


def _width(words: list[str], space: Mapping[str, Mapping[str, Json]], remarks: Remarks) -> int:
    """Devices of an instance; the most of them where the search decides."""
    width = 1
    for name, values in flags(words):
        if name not in _WIDTHS:
            continue
        text = values[0] if values else ""
        if text.startswith("$"):
            width *= _most(space.get(text.strip("${}"), {}))
        elif text.isdecimal() and int(text) > 0:
            width *= int(text)
        else:
            remarks.problem(_OTHERS, f"--{name} has to be 1 or more, not {text!r}")
    return width


def _most(parameter: Mapping[str, Json]) -> int:
    values = parameter.get("values", [parameter.get("high", parameter.get("value", 1))])
    return max((int(value) for value in values if isinstance(value, int | float)), default=1)
