"""Signs that a reply is no text: pure functions from a reply to what is wrong with it, or ``""``.

A broken model is stuck in a loop, or emits what no language has. Short and dull replies are none
of that, so every sign needs a minimum of evidence.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

Symptom: TypeAlias = Literal[
    "empty_text", "repeated_char", "normal_char_ratio", "control_char", "repeated_pattern"
]

_RUN_SHARE = 0.3
_RUN_MINIMUM = 8
_WHOLE_RUN_MINIMUM = 4
"""A reply that is nothing but one character, unless it is a digit, needs no more of it."""
_NORMAL_SHARE = 0.5
_NORMAL_MINIMUM = 4
_WORD_SHARE = 0.1
_WORD_MINIMUM = 8
_CONTROL_SHARE = 0.1
_LONGEST_PERIOD = 200
_LOOP_SHARE = 0.5
_LOOP_MINIMUM = 16
_LOOP_REPEATS = 3
_LONG_LOOP = 200
_LONG_LOOP_REPEATS = 8
_DIGITS_LOOP = 100
"""Decimals of a fraction repeat as well, and are right."""


def empty_text(reply: str) -> str:
    """Nothing but blanks."""
    return "" if reply.strip() else "the reply is empty"


def repeated_char(reply: str) -> str:
    """One character, over and over, for a large part of the reply."""
    text = reply.strip()
    runs = [(len(list(group)), char) for char, group in itertools.groupby(text)]
    length, char = max(((n, c) for n, c in runs if not c.isspace()), default=(0, ""))
    whole = length == len(text) and not char.isdigit()
    if length > _RUN_SHARE * len(text) and length >= (
        _WHOLE_RUN_MINIMUM if whole else _RUN_MINIMUM
    ):
        return f"{char!r} {length} times in a row, of {len(text)} characters"
    return ""


def normal_char_ratio(reply: str) -> str:
    """Few characters that texts consist of: letters of any language, digits, punctuation."""
    text = reply.strip()
    if len(text) < _NORMAL_MINIMUM:
        return ""
    normal = sum(_is_normal(char) for char in text) / len(text)
    if normal < _NORMAL_SHARE:
        return f"only {normal:.0%} of the characters are those of a text"
    words = sum(char.isalnum() or unicodedata.category(char) == "Mn" for char in text) / len(text)
    if len(text) >= _WORD_MINIMUM and words < _WORD_SHARE:
        return f"only {words:.0%} of the characters are letters or digits"
    return ""


def control_char(reply: str) -> str:
    """Control characters other than line breaks and tabs."""
    count = sum(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in reply)
    if count > _CONTROL_SHARE * len(reply):
        return f"{count} control characters in {len(reply)}"
    return ""


def repeated_pattern(reply: str) -> str:
    """Two characters or more, over and over, anywhere in the reply.

    A loop counts when it makes up half of the reply, or is long enough by itself, as at the end
    of a reply that began well.
    """
    text = reply.strip()
    for period in range(2, min(len(text) // _LOOP_REPEATS, _LONGEST_PERIOD) + 1):
        start, length = _longest_loop(text, period)
        unit, repeats = text[start : start + period], length // period
        if repeats < _LOOP_REPEATS or length < _LOOP_MINIMUM or len(set(unit)) == 1:
            continue
        if length < _DIGITS_LOOP and all(char.isdigit() for char in unit):
            continue
        long = length >= _LONG_LOOP and repeats >= _LONG_LOOP_REPEATS
        if long or length >= _LOOP_SHARE * len(text):
            return f"{unit!r} {repeats} times in a row, of {len(text)} characters"
    return ""


SYMPTOMS: Mapping[Symptom, Callable[[str], str]] = {
    "empty_text": empty_text,
    "repeated_char": repeated_char,
    "normal_char_ratio": normal_char_ratio,
    "control_char": control_char,
    "repeated_pattern": repeated_pattern,
}


def _is_normal(char: str) -> bool:
    """Letters, marks, digits, punctuation, blanks, signs; no pictures, nothing unassigned."""
    if char.isspace():
        return True
    category = unicodedata.category(char)
    return category[0] in "LMNPZ" or category in ("Sc", "Sm", "Sk")


def _longest_loop(text: str, period: int) -> tuple[int, int]:
    """Start and length of the longest part that repeats itself after ``period`` characters."""
    best = (0, 0)
    run = 0
    for index in range(period, len(text)):
        run = run + 1 if text[index] == text[index - period] else 0
        if run + period > best[1] and run:
            best = (index - run - period + 1, run + period)
    return best
