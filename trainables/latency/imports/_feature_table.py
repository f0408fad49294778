"""``output_csv/pid_*/feature.csv``, which msServiceProfiler makes on the way to its own model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.latency._records import IterationRecord
from trainables.latency.imports._members import Content, Framework
from trainables.latency.imports._notes import MalformedError, Notes
from trainables.latency.imports._pairing import record
from trainables.latency.imports._tables import (
    MICROSECONDS,
    as_count,
    as_literal,
    as_number,
    read_plain,
)
from trainables.simulation import Chunk

_BATCH = ("batch_stage", "model_execute_time")
_REQUEST = ("input_length", "output_length")


def read_feature_table(path: Path, framework: Framework, notes: Notes) -> list[IterationRecord]:
    """Iterations of a table: headers and cells are tuples, durations are in microseconds.

    ``output_length`` is the iteration for MindIE. For vLLM it is the number of tokens that were
    computed, so that the context of a decoding request is only known to be its prompt at least.
    """
    lines = read_plain(path, notes)
    if not lines:
        return []
    try:
        batch, request = (_tuple(cell, "the header") for cell in lines[0][1][:2])
        missing = [name for name in _BATCH if name not in batch]
        missing += [name for name in _REQUEST if name not in request]
        if missing:
            raise MalformedError(f"the header does not name {', '.join(missing)}")
    except (MalformedError, ValueError) as error:
        notes.fault(path, lines[0][0], error)
        return []
    if framework == "vllm":
        said = "it does not tell the context of decoding requests; their prompts are taken for it"
        notes.fault(path, None, said)
    records: list[IterationRecord] = []
    at = 0.0
    for number, cells in lines[1:]:
        try:
            found = list(_iteration(cells, batch, request, framework, at, notes))
        except MalformedError as error:
            notes.malformed(path, number, error)
            continue
        records += found
        at += sum(one.seconds for one in found)
    return records


def _iteration(
    cells: Sequence[str],
    batch: Sequence[Any],
    request: Sequence[Any],
    framework: Framework,
    at: float,
    notes: Notes,
) -> Iterator[IterationRecord]:
    if len(cells) < 2:
        raise MalformedError("there is no second column")
    about = _named(batch, _tuple(cells[0], "the first column"))
    seconds = as_number(about["model_execute_time"], "model_execute_time") * MICROSECONDS
    members = [_named(request, one) for one in _tuple(cells[1], "the second column")]
    if not members:
        raise MalformedError("the batch has no requests")
    prefills, decodes = [], []
    for member in members:
        prompt = as_count(member["input_length"], "input_length")
        step = as_count(member["output_length"], "output_length")
        if framework == "vllm":
            prefill, context = step > 1, prompt
        else:
            prefill, context = about["batch_stage"] == "prefill", prompt + max(step - 1, 0)
        if prefill:
            prefills.append(Chunk(step if framework == "vllm" else prompt))
        else:
            decodes.append(context)
    return record(Content(tuple(prefills), tuple(decodes)), seconds, at, notes)


def _tuple(text: str, what: str) -> Sequence[Any]:
    found = as_literal(text, what)
    if not isinstance(found, tuple | list):
        raise MalformedError(f"{what} is no tuple: {text[:60]!r}")
    return found


def _named(names: Sequence[Any], values: Any) -> Mapping[Any, Any]:
    if not isinstance(values, tuple | list) or len(values) != len(names):
        raise MalformedError(f"there should be {len(names)} values in {str(values)[:60]!r}")
    return dict(zip(names, values, strict=True))
