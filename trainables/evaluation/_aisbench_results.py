"""What AISBench left behind: numbers of a dataset, or the reason why there are none.

AISBench ends with exit code 0 when nothing worked, with ``-`` in its summary; and requests that
failed count as wrong answers in an accuracy that looks sound. So nothing is taken for a number
before every request is known to have been answered.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from trainables._aisbench import failure, output_folder, telling_line
from trainables._program import StageError
from trainables._trial import Json

_UNANSWERED = re.compile(r"Total (\d+) data are not in the predictions")
_NOTHING = "-"


@dataclass(frozen=True)
class Numbers:
    """One result file.

    Attributes:
        values: All its numbers, exactly as printed.
        items: How many questions they are about; None when that is not known.
    """

    values: Mapping[str, Decimal]
    items: int | None


@dataclass(frozen=True)
class DatasetNumbers:
    """What a dataset, of one or several result files, came to.

    Attributes:
        values: The wanted metrics; over several files their mean, weighted by questions.
        items: All questions; None when that is not known of every file, and means are plain.
        parts: Result file to its numbers.
    """

    values: Mapping[str, Decimal]
    items: int | None
    parts: Mapping[str, Numbers] = field(default_factory=dict)

    def document(self) -> dict[str, Json]:
        parts = {
            name: {"values": _texts(part.values), "items": part.items}
            for name, part in self.parts.items()
        }
        return {"values": _texts(self.values), "items": self.items, "results": parts}


def read_numbers(output: str, abbr: str, keys: Sequence[str]) -> DatasetNumbers:
    """The numbers of a run that ended by itself.

    Args:
        output: All it printed.
        abbr: Name of the model in its output.
        keys: Wanted metrics.

    Raises:
        StageError: There are none, or not all of them are about the model's own answers.
    """
    folder = output_folder(output)
    _require_answers(folder, abbr)
    rows = _summary(folder, output)
    for dataset, value in rows.items():
        if value == _NOTHING:
            raise failure(f"AISBench has no result of {dataset}", _reason(folder, abbr, output))
    parts = _parts(folder, abbr, keys, rows)
    if not parts:
        raise failure("AISBench left no result", _reason(folder, abbr, output))
    return _combined(parts, keys)


def _require_answers(folder: Path, abbr: str) -> None:
    """Requests that failed are wrong answers to AISBench."""
    failed = [
        str(_object(line).get("error_info") or "no reason given")
        for file in sorted((folder / "predictions" / abbr).glob("*_failed.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    if failed:
        reason, _ = Counter(failed).most_common(1)[0]
        raise failure(f"{len(failed)} requests of AISBench failed", reason)
    for file in sorted((folder / "logs" / "eval" / abbr).glob("*.out")):
        if missing := _UNANSWERED.search(_text(file)):
            reason = _reason(folder, abbr, "")
            raise failure(f"AISBench lost the answers to {missing[1]} of its questions", reason)


def _summary(folder: Path, output: str) -> dict[str, str]:
    """Dataset to its printed value, of the latest summary."""
    files = sorted((folder / "summary").glob("*.csv"))
    if not files:
        raise failure("AISBench wrote no summary", telling_line(output))
    with files[-1].open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row]
    return {row[0]: row[-1].strip() for row in rows[1:]}


def _parts(
    folder: Path, abbr: str, keys: Sequence[str], rows: Mapping[str, str]
) -> dict[str, Numbers]:
    """Every result file; those that AISBench's evaluators only take notes in are left out."""
    parts: dict[str, Numbers] = {}
    for file in sorted((folder / "results" / abbr).glob("*.json")):
        document = _result(file)
        values = _numbers(document)
        if file.stem not in rows and not set(keys) & set(values):
            continue
        if "error" in document or not values:
            reason = str(document.get("error") or "it is empty")
            raise failure(f"AISBench's result {file.name} holds no number", reason)
        predictions = folder / "predictions" / abbr / f"{file.stem}.jsonl"
        parts[file.stem] = Numbers(values, _items(document, predictions))
    return parts


def _combined(parts: Mapping[str, Numbers], keys: Sequence[str]) -> DatasetNumbers:
    numbers = list(parts.values())
    present = [key for key in keys if all(key in part.values for part in numbers)]
    if not present:
        known = sorted(set.intersection(*(set(part.values) for part in numbers)))
        raise StageError(
            "input",
            f"AISBench's result has no {' or '.join(keys)}, but {', '.join(known) or 'nothing'}",
            "name a key that it has in settings.default_metric_keys",
        )
    counts = [part.items for part in numbers]
    known_counts = [count for count in counts if count]
    weights = known_counts if len(known_counts) == len(counts) else [1] * len(counts)
    values = {key: _mean([part.values[key] for part in numbers], weights) for key in present}
    items = sum(known_counts) if len(known_counts) == len(counts) else None
    return DatasetNumbers(values, items, parts)


def _mean(values: Sequence[Decimal], weights: Sequence[int]) -> Decimal:
    if len(values) == 1:
        return values[0]
    total = sum((v * w for v, w in zip(values, weights, strict=True)), Decimal(0))
    return total / sum(weights)


def _items(document: Mapping[str, Json], predictions: Path) -> int | None:
    """How many questions a result is about. Details may be those of wrong answers alone."""
    total = _number(document.get("total_count"))
    if total is not None and total == int(total) > 0:
        return int(total)
    if predictions.is_file():
        with predictions.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    details = document.get("details")
    return len(details) if isinstance(details, dict | list) and details else None


def _result(file: Path) -> dict[str, Json]:
    try:
        document = json.loads(
            _text(file), parse_float=Decimal, parse_int=Decimal, parse_constant=_refused
        )
    except ValueError as error:
        raise StageError("tool", f"AISBench's result {file} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise StageError("tool", f"AISBench's result {file} is no object")
    return document


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _numbers(document: Mapping[str, Json]) -> dict[str, Decimal]:
    pairs = ((key, _number(value)) for key, value in document.items())
    return {key: number for key, number in pairs if number is not None}


def _number(value: Json) -> Decimal | None:
    """Numbers, and texts that are one; Decimal keeps what was printed."""
    if isinstance(value, bool) or not isinstance(value, Decimal | str):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _reason(folder: Path, abbr: str, output: str) -> str:
    """Why AISBench got nowhere: its own logs know, that of the inference best."""
    for phase in ("infer", "eval"):
        for file in sorted((folder / "logs" / phase / abbr).rglob("*.out")):
            if line := telling_line(_text(file)):
                return line
    if line := telling_line(output):
        return line
    logs = sorted((folder / "logs" / "eval" / abbr).rglob("*.out"))
    if any("No predictions found" in _text(file) for file in logs):
        return "its inference left no answers; something may have killed it"
    return ""


def _texts(values: Mapping[str, Decimal]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _object(line: str) -> dict[str, Json]:
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
