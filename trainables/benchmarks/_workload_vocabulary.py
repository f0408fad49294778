"""Prompts of a wanted number of tokens, with the model's tokenizer or without."""

from __future__ import annotations

import json
import math
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Form: TypeAlias = Literal["text", "token_ids"]
"""``token_ids`` is exact, but only some engines' completions take it, vLLM's among them."""
Prompt: TypeAlias = str | list[int]
"""Text, or the ids of its tokens."""

_TEXT = """
a about after again all also an and any are as at back be because been before but by can come
could day do down even find first for from get give go good great had has have he her here him his
how i if in into is it its just know like little long look made make man many may me men more most
much must my new no not now of off old on one only or other our out over own part people place
right said same see she should so some state still such take than that the their them then there
these they thing think this three time to two under up use very want was way we well were what
when where which while who will with work world would year you your
"""
_COMMON = _TEXT.split()
"""Words that are one token each, after a space, in every vocabulary of some thousand tokens."""
_BYTES_PER_TOKEN = 4.0
_FEWEST_WORDS = 64
_MOST_WORDS = 8192


class WorkloadError(Exception):
    """A workload that cannot be made; the message says what is wrong, and where."""


class Vocabulary(ABC):
    """What a model's prompts are made of.

    Attributes:
        exact: Whether numbers of tokens are counted, not estimated.
        added: Tokens that a service puts around the text of a completion by itself.
    """

    exact: bool
    added: int = 0

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids

    @abstractmethod
    def text(self, tokens: int, source: random.Random) -> str:
        """A text of ``tokens`` tokens; texts with a space between them add up."""

    @abstractmethod
    def count(self, text: str) -> int:
        """Tokens of ``text`` as a service reads it."""

    def ids(self, tokens: int, source: random.Random) -> list[int]:
        """Ids of ``tokens`` tokens, none of them a special one.

        Raises :class:`WorkloadError` when the checkpoint does not tell how many tokens it knows.
        """
        if not self._ids:
            said = "prompts of token ids need the model's vocab_size, and its config.json has none"
            raise WorkloadError(f"{said}; say form: text")
        return source.choices(self._ids, k=tokens)

    def prompt(self, form: Form, *parts: tuple[int, str]) -> Prompt:
        """A prompt made of parts, each (tokens, seed): equal parts are equal text, so prompts
        that begin with equal parts share a prefix."""
        wanted = [(tokens, random.Random(seed)) for tokens, seed in parts if tokens > 0]
        if form == "token_ids":
            return [number for each in wanted for number in self.ids(*each)]
        *first, (tokens, source) = wanted
        last = self.text(max(1, tokens - self.added), source)
        return " ".join([*(self.text(*each) for each in first), last])


class EstimatedVocabulary(Vocabulary):
    """Common English words, taken for one token each."""

    exact = False

    def text(self, tokens: int, source: random.Random) -> str:
        return " ".join(source.choices(_COMMON, k=tokens))

    def count(self, text: str) -> int:
        return max(1, math.ceil(len(text.encode()) / _BYTES_PER_TOKEN))


class TokenizerVocabulary(Vocabulary):
    """Words that are one token of the model's own tokenizer each."""

    exact = True

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        super().__init__(ids)
        self._tokenizer = tokenizer
        self.added = tokenizer.num_special_tokens_to_add(False)
        self._words = _single_tokens(tokenizer)

    def text(self, tokens: int, source: random.Random) -> str:
        if len(self._words) >= _FEWEST_WORDS:
            return " ".join(source.choices(self._words, k=tokens))
        words: list[str] = []
        while True:
            words += source.choices(_COMMON, k=tokens)
            text = " ".join(words)
            found = self._tokenizer.encode(text, add_special_tokens=False)
            if len(found.ids) >= tokens:
                return text[: found.offsets[tokens - 1][1]]

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)


def vocabulary_of(model: Path) -> Vocabulary:
    """The vocabulary of a checkpoint: exact where its ``tokenizer.json`` and the package
    ``tokenizers`` are there, else an estimate."""
    file = model / "tokenizer.json"
    special = _special_ids(model)
    size = _config(model / "config.json").get("vocab_size")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        file = model / "no tokenizers"
    if not file.is_file():
        usable = range(size) if isinstance(size, int) else range(0)
        return EstimatedVocabulary([number for number in usable if number not in special])
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special |= set(tokenizer.get_added_tokens_decoder())
    known = tokenizer.get_vocab_size(with_added_tokens=False)
    usable = range(min(known, size) if isinstance(size, int) else known)
    return TokenizerVocabulary(tokenizer, [number for number in usable if number not in special])


def _single_tokens(tokenizer: Tokenizer) -> list[str]:
    """Words that are one token at the beginning of a text as well as after a space."""
    marked = re.compile(r"[\u0120\u2581]([a-z]{2,})")
    found = (marked.fullmatch(token) for token in tokenizer.get_vocab())
    words = sorted(match[1] for match in found if match)
    step = max(1, len(words) // _MOST_WORDS)
    words = words[::step]
    encoded = tokenizer.encode_batch(
        [f"{word} {word} {word}" for word in words], add_special_tokens=False
    )
    return [word for word, one in zip(words, encoded, strict=True) if len(one.ids) == 3]


def _special_ids(model: Path) -> set[int]:
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        config = _config(model / name)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            found.update(_numbers(config.get(key)))
    return found


def _numbers(value: Any) -> Iterable[int]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]


def _config(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(document, dict):
        return {}
    # Models of several modalities keep what concerns their text one level deeper.
    inner = document.get("text_config")
    return {**document, **inner} if isinstance(inner, dict) else document
