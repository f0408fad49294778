"""Log-likelihoods of text windows and of answers. Results do not depend on the batch size.

No sequence is ever padded before or between tokens that count: windows are of equal length,
questions are batched with others of equal length, and answers are padded only behind their end,
where a causal model cannot look. So there is no attention mask to get wrong.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables._program import StageError
from trainables.evaluation._data import ChoiceItem, spread


class Scored(NamedTuple):
    """Record of a dataset (see ``_statistics.Record``) and what it took.

    Attributes:
        tokens: Tokens that went through the model.
        items: Windows or questions.
        truncated: Questions whose beginning was cut off because they were too long.
    """

    record: dict[str, Any]
    tokens: int
    items: int
    truncated: int = 0


@dataclass(frozen=True)
class LanguageModel:
    """A causal model ready to score.

    Attributes:
        model: Called as ``model(input_ids=...)`` with ids of shape (batch, length), it returns an
            object with ``logits`` (batch, length, vocabulary).
        tokenizer: A transformers tokenizer.
        context: Longest sequence the model can read, in tokens.
        batch_tokens: Tokens of one forward pass, more or less.
    """

    model: Any
    tokenizer: Any
    context: int
    batch_tokens: int

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def beginning(self) -> list[int]:
        """What the model expects before every text: the BOS token if its tokenizer adds one."""
        bos = self.tokenizer.bos_token_id
        added = self.tokenizer("a")["input_ids"][:1]
        return [bos] if bos is not None and added == [bos] else []

    def tensor(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(rows, device=self.model.device)


def score_text(language_model: LanguageModel, text: str, *, tokens: int, window: int) -> Scored:
    """Predict each token of windows spread evenly over ``text`` from those before it.

    The windows do not overlap; a text shorter than one is one window of its own. The first token
    of a window is predicted only where the model has a BOS token to predict it from.

    Raises:
        StageError: The window does not fit the model, or the text has fewer than two tokens.
    """
    beginning = language_model.beginning
    if window + len(beginning) > language_model.context:
        raise StageError(
            "input",
            f"a window of {window} tokens does not fit the model's {language_model.context}",
            "lower `window` of the dataset",
        )
    ids = language_model.encode(text)
    length = min(window, len(ids))
    if length + len(beginning) < 2:
        raise StageError("input", "the text has fewer than two tokens, so nothing is predicted")
    whole = [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]
    windows = [beginning + each for each in spread(whole, max(1, tokens // length))]
    losses, hits = [], []
    for rows in _batches(windows, max(1, language_model.batch_tokens // length)):
        batch = language_model.tensor(rows)
        logits = language_model.model(input_ids=batch, use_cache=False).logits
        for row, ids_of_row in zip(logits, batch, strict=True):
            loss, hit = _predictions(row[:-1], ids_of_row[1:])
            losses.append(float(loss.double().sum()))
            hits.append(int(hit.sum()))
    record = {
        "kind": "text",
        "digest": _digest(windows),
        "tokens": [len(each) - 1 for each in windows],
        "nll": losses,
        "correct": hits,
    }
    return Scored(record, sum(map(len, windows)), len(windows))


def score_choices(
    language_model: LanguageModel, items: Sequence[ChoiceItem], prompt: str
) -> Scored:
    """Answer each question with its likeliest choice.

    ``accuracy`` takes the choice of the largest log-likelihood after the prompt, and
    ``accuracy_normalized`` the largest log-likelihood per byte of the choice's UTF-8 text: ``acc``
    and byte-length normalised ``acc_norm`` of lm-evaluation-harness. The first of equals wins.
    A question too long for the model loses its beginning.

    Raises:
        StageError: A choice alone is too long for the model.
    """
    questions = [_encode(language_model, item, prompt) for item in items]
    groups: dict[int, list[int]] = defaultdict(list)
    for index, question in enumerate(questions):
        groups[len(question.context)].append(index)
    likelihoods: dict[int, list[float]] = {}
    for length in sorted(groups):
        for rows in _batches(groups[length], max(1, language_model.batch_tokens // length)):
            found = _answers(language_model, [questions[index] for index in rows])
            likelihoods.update(zip(rows, found, strict=True))
    right, normalized = [], []
    for index, item in enumerate(items):
        values = likelihoods[index]
        sizes = [len(choice.encode()) for choice in item.choices]
        per_byte = [value / size for value, size in zip(values, sizes, strict=True)]
        right.append(_best(values) == item.answer)
        normalized.append(_best(per_byte) == item.answer)
    record = {
        "kind": "multiple_choice",
        "digest": _digest(
            [[q.context, q.choices, i.answer] for q, i in zip(questions, items, strict=True)]
        ),
        "correct": _digits(right),
        "correct_normalized": _digits(normalized),
    }
    used = sum(len(q.context) + sum(map(len, q.choices)) - len(q.choices) for q in questions)
    return Scored(record, used, len(items), sum(question.truncated for question in questions))


class _Question(NamedTuple):
    """Token ids of what all choices share, and of what each adds to it."""

    context: list[int]
    choices: list[list[int]]
    truncated: bool


def _encode(language_model: LanguageModel, item: ChoiceItem, prompt: str) -> _Question:
    """Prompt and choice are encoded together, as the model would see them in a text; where a
    choice changes the tokens at the prompt's end, these are counted as part of the choice."""
    asked = prompt.replace("{question}", item.question)
    alone = language_model.encode(asked)
    whole = [language_model.encode(f"{asked} {choice}") for choice in item.choices]
    shared = min(_common(alone, each) for each in whole)
    beginning = language_model.beginning
    if not shared and not beginning:
        beginning = [language_model.tokenizer.eos_token_id]
    context, choices = beginning + alone[:shared], [each[shared:] for each in whole]
    room = language_model.context - max(map(len, choices))
    if room < 1:
        raise StageError(
            "input",
            f"the choices of {item.question[:60]!r} do not fit the model's "
            f"{language_model.context} tokens",
        )
    return _Question(context[-room:], choices, len(context) > room)


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of equal ids at the beginning, with at least one of ``second`` left over."""
    length = 0
    while length < min(len(first), len(second) - 1) and first[length] == second[length]:
        length += 1
    return length


def _answers(language_model: LanguageModel, batch: Sequence[_Question]) -> list[list[float]]:
    """Log-likelihood of every choice. All contexts have the same length.

    The contexts go through the model once, and their cache is then shared by their choices.
    """
    model = language_model.model
    last = {"logits_to_keep": 1} if _keeps_logits(model) else {}
    contexts = language_model.tensor([question.context for question in batch])
    output = model(input_ids=contexts, use_cache=True, **last)
    owners = [row for row, question in enumerate(batch) for _ in question.choices]
    choices = [choice for question in batch for choice in question.choices]
    ending = output.logits[:, -1][owners]
    likelihoods = [float(each) for each in _first_losses(ending, choices)]
    longest = max(map(len, choices)) - 1
    if longest:
        cache = output.past_key_values
        cache.reorder_cache(torch.tensor(owners, device=model.device))
        rows = language_model.tensor([_padded(choice[:-1], longest) for choice in choices])
        logits = model(input_ids=rows, past_key_values=cache, use_cache=True).logits
        for index, choice in enumerate(choices):
            if rest := choice[1:]:
                loss, _ = _predictions(
                    logits[index, : len(rest)], torch.tensor(rest, device=model.device)
                )
                likelihoods[index] -= float(loss.double().sum())
    ends = iter(likelihoods)
    return [[next(ends) for _ in question.choices] for question in batch]


def _first_losses(logits: Tensor, choices: Sequence[Sequence[int]]) -> Tensor:
    targets = torch.tensor([choice[0] for choice in choices], device=logits.device)
    loss, _ = _predictions(logits, targets)
    return -loss.double()


def _predictions(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss in nats (float32) and whether the likeliest token is the right one, of each row.

    Raises:
        StageError: The model's output is no number.
    """
    logits = logits.float()
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    if not bool(loss.isfinite().all()):
        raise StageError("input", "the model's output is not finite: its weights or scales are bad")
    return loss, logits.argmax(-1) == targets


def _keeps_logits(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _padded(ids: Sequence[int], length: int) -> list[int]:
    return [*ids, *[0] * (length - len(ids))]


def _batches(things: Sequence[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(things), size):
        yield things[start : start + size]


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _digits(values: Sequence[bool]) -> str:
    return "".join("1" if value else "0" for value in values)


def _digest(items: Any) -> str:
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16]
