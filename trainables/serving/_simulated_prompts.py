"""Prompts that are not written: how long they are, and with what they begin."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from trainables.benchmarks._workload import Ask
from trainables.benchmarks._workload_vocabulary import Form, Prompt, Vocabulary, vocabulary_of


class Unwritten(str):
    """A prompt without its text.

    Attributes:
        shared: Tokens and seed of each part that others may have as well, from the beginning;
            equal seeds begin with equal text. What follows is this prompt's own.
    """

    shared: tuple[tuple[int, str], ...]

    def __new__(cls, shared: Sequence[tuple[int, str]] = ()) -> Unwritten:
        made = super().__new__(cls, "")
        made.shared = tuple(shared)
        return made


class LengthsVocabulary(Vocabulary):
    """Writes no prompts, and counts the tokens of given ones as the model's tokenizer does.

    Args:
        model: Folder of the checkpoint.
    """

    exact = True

    def __init__(self, model: Path) -> None:
        super().__init__([])
        self._model = model
        self._counted = self._written = False

    @property
    def estimates(self) -> bool:
        """Whether something was counted without a tokenizer."""
        return self._counted and not self._theirs.exact

    @property
    def differs(self) -> bool:
        """Whether texts that the benchmark would write for a wanted number of tokens may have
        another number: it has no tokenizer to count them. Of a configuration alone it is not known
        what the whole checkpoint has."""
        whole = any(self._model.glob("*.safetensors"))
        return whole and self._written and not self._theirs.exact

    def special_tokens(self) -> int:
        """Tokens that the tokenizer puts around every text; 0 where there is none here."""
        return self._theirs.added

    def text(self, tokens: int, source: random.Random) -> str:
        return self._theirs.text(tokens, source)

    def count(self, text: str) -> int:
        self._counted = True
        return self._theirs.count(text)

    def prompt(self, form: Form, *parts: tuple[int, str]) -> Prompt:
        """The parts of a prompt but for the last, which is its own."""
        self._written |= form == "text"
        return Unwritten([part for part in parts[:-1] if part[0] > 0])

    @cached_property
    def _theirs(self) -> Vocabulary:
        return vocabulary_of(self._model)


class Prefixes:
    """Numbers for what prompts begin with: equal numbers, equal beginnings."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, ask: Ask) -> tuple[tuple[int, ...], int]:
        """Hashes of the blocks at the beginning of a prompt, and the tokens of each block.

        Of a text that is given, the whole may come again.
        """
        if not isinstance(ask.prompt, Unwritten):
            return (self._number(f"text {ask.prompt}"),), max(1, ask.input_tokens)
        shared = ask.prompt.shared
        if not shared:
            return (), 1
        block = shared[0][0]
        whole = list(takewhile(lambda part: part[0] == block, shared))
        shorter = [part for part in shared[len(whole) : len(whole) + 1] if part[0] < block]
        return tuple(self._number(seed) for _, seed in [*whole, *shorter]), block

    def _number(self, what: str) -> int:
        return self._known.setdefault(what, len(self._known))
