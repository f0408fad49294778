"""Texts that show a quantizer which values activations take."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

BUILTIN = "builtin:calibration"
_BUILTIN_FILE = Path(__file__).parent / "data" / "calibration.jsonl"
_TEXT_KEYS = ("text", "inputs_pretokenized")


class CalibrationError(ValueError):
    """The calibration data cannot be used; the message says why and what to do."""


class Calibration(BaseModel):
    """Which calibration data, and how much of it.

    Attributes:
        dataset: ``builtin:calibration`` or a file: ``.jsonl`` of objects with ``text`` or
            ``inputs_pretokenized``, ``.json`` with a list of strings, or ``.txt``, where blank
            lines separate texts.
        samples: Sequences shown to the model.
        length: Tokens per sequence.
        seed: Decides the order of the texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = BUILTIN
    samples: int = Field(default=16, ge=1)
    length: int = Field(default=128, ge=1)
    seed: int = 0


def calibration_file(dataset: str) -> Path:
    """The file of a calibration dataset. Raises :class:`CalibrationError` when there is none."""
    file = _BUILTIN_FILE if dataset == BUILTIN else Path(dataset).expanduser()
    if not file.is_file():
        raise CalibrationError(
            f"there is no calibration file {dataset!r}; name a .jsonl, .json or .txt file, "
            f"or {BUILTIN}"
        )
    return file


def calibration_digest(dataset: str) -> str:
    """SHA-256 of the file's content. Raises :class:`CalibrationError` when there is no file."""
    with calibration_file(dataset).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def calibration_texts(dataset: str) -> list[str]:
    """The texts of a dataset in file order, empty ones left out.

    Raises:
        CalibrationError: No such file, an unknown form, or nothing in it.
    """
    file = calibration_file(dataset)
    readers = {".jsonl": _read_lines, ".json": _read_list, ".txt": _read_paragraphs}
    if file.suffix not in readers:
        raise CalibrationError(f"{file}: calibration data is .jsonl, .json or .txt")
    texts = [text for text in readers[file.suffix](file) if text.strip()]
    if not texts:
        raise CalibrationError(f"{file} holds no text")
    return texts


def shuffled_texts(calibration: Calibration) -> list[str]:
    """The texts in the order the seed gives. Raises as :func:`calibration_texts`."""
    texts = calibration_texts(calibration.dataset)
    random.Random(calibration.seed).shuffle(texts)
    return texts


def _read_lines(file: Path) -> list[str]:
    texts = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            record = _parse(line, f"{file}, line {number}")
            found = [
                record[key] for key in _TEXT_KEYS if isinstance(record, dict) and key in record
            ]
            if not found or not isinstance(found[0], str):
                raise CalibrationError(
                    f"{file}, line {number}: an object with {' or '.join(_TEXT_KEYS)} is expected"
                )
            texts.append(found[0])
    return texts


def _read_list(file: Path) -> list[str]:
    document = _parse(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(document, list) or not all(isinstance(text, str) for text in document):
        raise CalibrationError(f"{file}: a list of strings is expected")
    return document


def _read_paragraphs(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n\n")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CalibrationError(f"{where}: no valid JSON: {error}") from error
