"""The workloads ``sharegpt`` and ``text``: prompts that somebody wrote."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from trainables._trial import Json
from trainables.benchmarks._workload import Ask, FileOptions, FileWorkload, register_workload
from trainables.benchmarks._workload_vocabulary import Vocabulary, WorkloadError

_PROMPTS = ("prompt", "text", "question", "input")
_ANSWERS = ("output_tokens", "max_tokens", "output_len")
_TURNS = 2
_FEWEST_TOKENS = 4


@dataclass(frozen=True)
class Written:
    """One prompt of a file.

    Attributes:
        prompt: Its text.
        answer: The answer that belongs to it, or its tokens, or None where there is none.
    """

    prompt: str
    answer: str | int | None = None


class TextOptions(FileOptions):
    """The block of prompts from a file.

    Attributes:
        path: Lines of JSON with the prompt under ``prompt``, ``text``, ``question`` or ``input``,
            and optionally the tokens of the answer under ``output_tokens``, ``max_tokens`` or
            ``output_len``.
        output_tokens: Tokens of an answer of which the file says nothing.
        shuffle: Whether the seed decides the order; else it is that of the file.
    """

    type: Literal["text"] = "text"
    output_tokens: PositiveInt = 128
    shuffle: bool = True


@register_workload("text")
class TextWorkload(FileWorkload):
    """The prompts of a file, again from the first when there are too few."""

    Options = TextOptions
    options: TextOptions

    def read(self) -> Sequence[Written]:
        return _some([_written(document, where) for document, where in _lines(self.options.path)])

    def asks(self, count: int, seed: int, vocabulary: Vocabulary) -> Sequence[Ask]:
        found = list(self.read())
        if self.options.shuffle:
            random.Random(f"{seed}/text").shuffle(found)
        return [
            Ask(
                one.prompt,
                vocabulary.count(one.prompt),
                one.answer if isinstance(one.answer, int) else self.options.output_tokens,
            )
            for one in islice(cycle(found), count)
        ]


class ShareGPTOptions(FileOptions):
    """The block of conversations in the form of ShareGPT.

    Attributes:
        path: A JSON list of ``{"conversations": [{"from": ..., "value": ...}, ...]}``, of which
            the first two turns are prompt and answer, or lines of JSON as the workload ``text``.
        output_tokens: Tokens of every answer; None: as many as the answer of the file has.
        max_input_tokens: Longer prompts are left out.
        max_total_tokens: Longer prompts and answers together are left out.
    """

    type: Literal["sharegpt"] = "sharegpt"
    output_tokens: PositiveInt | None = None
    max_input_tokens: PositiveInt = 1024
    max_total_tokens: PositiveInt = 2048


@register_workload("sharegpt")
class ShareGPTWorkload(FileWorkload):
    """Conversations in an order that the seed decides, again from the first when there are too
    few; those with fewer than four tokens in prompt or in the file's answer are left out."""

    Options = ShareGPTOptions
    options: ShareGPTOptions

    def read(self) -> Sequence[Written]:
        if Path(self.options.path).suffix == ".jsonl":
            return _some(
                [_written(document, where) for document, where in _lines(self.options.path)]
            )
        try:
            documents = json.loads(Path(self.options.path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise WorkloadError(f"{self.options.path} is not JSON: {error}") from None
        if not isinstance(documents, list):
            raise WorkloadError(f"{self.options.path} is no list of conversations")
        return _some([one for one in map(_conversation, documents) if one is not None])

    def asks(self, count: int, seed: int, vocabulary: Vocabulary) -> Sequence[Ask]:
        written = list(self.read())
        random.Random(f"{seed}/sharegpt").shuffle(written)
        found = list(islice(self._fitting(written, vocabulary), count))
        if not found:
            raise WorkloadError(f"no conversation in {self.options.path} has the wanted lengths")
        return list(islice(cycle(found), count))

    def _fitting(self, written: Sequence[Written], vocabulary: Vocabulary) -> Iterator[Ask]:
        options = self.options
        for one in written:
            tokens = vocabulary.count(one.prompt)
            answer = options.output_tokens or (
                one.answer if isinstance(one.answer, int) else vocabulary.count(one.answer or "")
            )
            few = tokens < _FEWEST_TOKENS
            few |= answer < _FEWEST_TOKENS and options.output_tokens is None
            many = tokens > options.max_input_tokens or tokens + answer > options.max_total_tokens
            if not few and not many:
                yield Ask(one.prompt, tokens, answer)


def _some(found: Sequence[Written]) -> Sequence[Written]:
    if not found:
        raise WorkloadError("there is no prompt in the file")
    return found


def _lines(path: str) -> Iterator[tuple[Mapping[str, Json], str]]:
    """The objects of a file of JSON lines, each with where it is."""
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                document = json.loads(line)
            except ValueError as error:
                raise WorkloadError(f"{where}: not JSON: {error}") from None
            if not isinstance(document, dict):
                raise WorkloadError(f"{where}: not an object")
            yield document, where


def _written(document: Mapping[str, Any], where: str) -> Written:
    prompt = next((document[key] for key in _PROMPTS if key in document), None)
    if not isinstance(prompt, str) or not prompt:
        raise WorkloadError(f"{where}: no text under {', '.join(_PROMPTS)}")
    tokens = next((document[key] for key in _ANSWERS if key in document), None)
    if tokens is not None and (not isinstance(tokens, int) or tokens < 1):
        raise WorkloadError(f"{where}: {tokens!r} is no number of tokens")
    return Written(prompt, tokens)


def _conversation(document: Any) -> Written | None:
    """Prompt and answer; None for what has no two turns."""
    turns = document.get("conversations") if isinstance(document, dict) else None
    said = [turn.get("value") for turn in turns or () if isinstance(turn, dict)][:_TURNS]
    texts = [text for text in said if isinstance(text, str) and text]
    return Written(texts[0], texts[1]) if len(texts) == _TURNS else None
