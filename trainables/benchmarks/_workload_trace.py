"""The workload ``trace``: lengths and arrivals of requests that a real service once had."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from trainables.benchmarks._workload import Ask, FileOptions, FileWorkload, register_workload
from trainables.benchmarks._workload_vocabulary import Form, Vocabulary, WorkloadError

_ARRIVALS = ("arrived_at", "Timestamp", "TIMESTAMP")
_INPUTS = ("num_prefill_tokens", "Request tokens", "ContextTokens")
_OUTPUTS = ("num_decode_tokens", "Response tokens", "GeneratedTokens")
_MS = 1000.0


@dataclass(frozen=True)
class Row:
    """One recorded request.

    Attributes:
        arrival: Seconds, from any beginning.
        input_tokens, output_tokens: Its lengths.
        blocks: Ids of the blocks of its prompt; prompts that begin with equal ids share them.
    """

    arrival: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class TraceOptions(FileOptions):
    """The block of a recorded trace.

    Attributes:
        path: A CSV file with columns for arrival, prompt and answer as Vidur, Azure or BurstGPT
            name them (``arrived_at, num_prefill_tokens, num_decode_tokens``), or JSON lines as
            Mooncake's: ``timestamp`` in milliseconds, ``input_length``, ``output_length``,
            ``hash_ids``.
        start: Requests at the beginning that are skipped.
        block_tokens: Tokens that one of the ``hash_ids`` stands for.
        input_scale, output_scale: Factors on the recorded lengths; the first one on blocks too.
        max_input_tokens, max_output_tokens: Longer ones are cut to that.
        form: ``text``, or ``token_ids`` (exact; only for engines whose completions take ids).
    """

    type: Literal["trace"] = "trace"
    start: NonNegativeInt = 0
    block_tokens: PositiveInt = 512
    input_scale: Annotated[float, Field(gt=0)] = 1.0
    output_scale: Annotated[float, Field(gt=0)] = 1.0
    max_input_tokens: PositiveInt | None = None
    max_output_tokens: PositiveInt | None = None
    form: Form = "text"


@register_workload("trace")
class TraceWorkload(FileWorkload):
    """Meaningless prompts whose lengths, shared beginnings and arrivals are those of a trace; it
    ends where the trace does."""

    Options = TraceOptions
    options: TraceOptions

    def read(self) -> Sequence[Row]:
        path = Path(self.options.path)
        rows = _mooncake(path) if path.suffix == ".jsonl" else _table(path)
        if len(rows) <= self.options.start:
            raise WorkloadError(f"{path} has {len(rows)} requests, so none after start")
        # A stable sort: requests that came together stay in their order.
        return sorted(rows, key=lambda row: row.arrival)[self.options.start :]

    def asks(self, count: int, seed: int, vocabulary: Vocabulary) -> Sequence[Ask]:
        rows = self.read()[:count]
        return [
            self._ask(row, row.arrival - rows[0].arrival, f"{seed}/{number}", seed, vocabulary)
            for number, row in enumerate(rows)
        ]

    def _ask(self, row: Row, arrival: float, own: str, seed: int, vocabulary: Vocabulary) -> Ask:
        options = self.options
        tokens = _scaled(row.input_tokens, options.input_scale, options.max_input_tokens)
        answer = _scaled(row.output_tokens, options.output_scale, options.max_output_tokens)
        block = max(1, round(options.block_tokens * options.input_scale))
        parts = []
        left = tokens
        for number in row.blocks:
            if left > 0:
                parts.append((min(block, left), f"{seed}/block/{number}"))
                left -= block
        parts.append((left, f"{own}/rest"))
        return Ask(vocabulary.prompt(options.form, *parts), tokens, answer, arrival)


def _scaled(tokens: int, scale: float, most: int | None) -> int:
    value = max(1, round(tokens * scale))
    return value if most is None else min(value, most)


def _table(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or ()
        names = [
            next((name for name in wanted if name in columns), None)
            for wanted in (_ARRIVALS, _INPUTS, _OUTPUTS)
        ]
        if None in names:
            wanted = " or ".join(map(" / ".join, zip(_ARRIVALS, _INPUTS, _OUTPUTS, strict=True)))
            raise WorkloadError(f"{path} has the columns {', '.join(columns)}, but not {wanted}")
        arrival, asked, answered = map(str, names)
        return [
            _row(
                f"{path}, line {reader.line_num}",
                lambda line=line: Row(
                    _seconds(line[arrival]), int(line[asked]), int(line[answered])
                ),
            )
            for line in reader
        ]


def _mooncake(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as stream:
        return [
            _row(f"{path}, line {number}", lambda line=line: _recorded(json.loads(line)))
            for number, line in enumerate(stream, 1)
            if line.strip()
        ]


def _recorded(document: Mapping[str, Any]) -> Row:
    return Row(
        float(document["timestamp"]) / _MS,
        int(document["input_length"]),
        int(document["output_length"]),
        tuple(map(int, document.get("hash_ids", ()))),
    )


def _row(where: str, read: Any) -> Row:
    try:
        row: Row = read()
    except (KeyError, TypeError, ValueError) as error:
        raise WorkloadError(f"{where}: {type(error).__name__}: {error}") from None
    return row


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()
