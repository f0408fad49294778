"""Reading of datasets: the shipped ones and users' files, every fault reported with its line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainables.evaluation._options import ChoiceDataset, TextDataset

BUILTIN_DATASETS = {"builtin:prose": "prose.txt", "builtin:choice": "choice.jsonl"}
_FOLDER = Path(__file__).parent / "data"


class DatasetError(Exception):
    """A dataset cannot be used.

    Attributes:
        problems: One message per fault, each beginning with ``file:line`` where there is a line.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ChoiceItem(BaseModel):
    """One question; ``answer`` is the index, from 0, of the right one of at least two choices."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    question: str = Field(min_length=1)
    choices: tuple[str, ...] = Field(min_length=2, strict=False)
    answer: int = Field(ge=0)
    subject: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> ChoiceItem:
        if any(not choice.strip() for choice in self.choices):
            raise ValueError("a choice is empty")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("two choices are equal")
        if self.answer >= len(self.choices):
            raise ValueError(
                f"answer is {self.answer}, but the choices are 0 to {len(self.choices) - 1}"
            )
        return self


class _TextLine(BaseModel):
    text: str = Field(min_length=1)


def dataset_file(path: str) -> Path:
    """The file behind ``path``. Raises :class:`DatasetError` when there is none."""
    if path.startswith("builtin:"):
        if path not in BUILTIN_DATASETS:
            known = ", ".join(BUILTIN_DATASETS)
            raise DatasetError([f"there is no dataset {path!r}; there is {known}"])
        return _FOLDER / BUILTIN_DATASETS[path]
    file = Path(path)
    if not file.is_file():
        raise DatasetError([f"the dataset {file} does not exist"])
    return file


def dataset_digest(path: str) -> str:
    """SHA-256 of the dataset's bytes, which tells one content from another wherever it lies."""
    return hashlib.sha256(dataset_file(path).read_bytes()).hexdigest()


def read_text(dataset: TextDataset) -> str:
    """The whole text. Raises :class:`DatasetError` with all faults."""
    file = dataset_file(dataset.path)
    if file.suffix == ".jsonl":
        text = "\n\n".join(line.text for line in _read_lines(file, _TextLine))
    else:
        text = _decoded(file)
    if not text.strip():
        raise DatasetError([f"{file} is empty"])
    return text


def read_choices(dataset: ChoiceDataset) -> list[ChoiceItem]:
    """The items that are used, in the file's order. Raises :class:`DatasetError`."""
    items = _read_lines(dataset_file(dataset.path), ChoiceItem)
    return spread(items, dataset.items or len(items))


T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


def spread(things: list[T], count: int) -> list[T]:
    """At most ``count`` of ``things``, at even distances, in their order."""
    total = len(things)
    if count >= total:
        return things
    return [things[index * total // count] for index in range(count)]


def _read_lines(file: Path, model: type[M]) -> list[M]:
    found: list[M] = []
    problems: list[str] = []
    for number, line in enumerate(_decoded(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(model.model_validate(json.loads(line)))
        except ValidationError as error:
            problems += [f"{file}:{number}: {message}" for message in _messages(error)]
        except ValueError as error:
            problems.append(f"{file}:{number}: no valid JSON: {error}")
    if not found and not problems:
        problems.append(f"{file} is empty")
    if problems:
        raise DatasetError(problems)
    return found


def _messages(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        message: Any = fault["msg"].removeprefix("Value error, ")
        yield f"{place}: {message}" if place else message


def _decoded(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError([f"{file} is no UTF-8 text: {error}"]) from error
