"""``others``: arguments as one text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from searchers import Json
from trainables.engines import split_arguments
from trainables.engines._arguments import argument_name

_FLAG = re.compile(r"-{1,2}[A-Za-z]")


def flags(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag by its name without dashes, with the words that belong to it; words before the
    first flag belong to an empty one."""
    name, values = "", list[str]()
    for word in words:
        if _FLAG.match(word):
            if name or values:
                yield name, values
            flag, equals, value = word.partition("=")
            name, values = argument_name(flag), [value] if equals else []
        else:
            values.append(word)
    if name or values:
        yield name, values


def parse_others(text: str) -> dict[str, Json]:
    """Arguments by name; ``true`` for a flag alone, JSON as what it holds.

    Raises:
        ValueError: A quote is not closed, a flag stands twice or has several values, or a word
            belongs to no flag.
    """
    found: dict[str, Json] = {}
    for name, values in flags(split_arguments(text)):
        if not name:
            raise ValueError(f"{values[0]!r} belongs to no flag; flags begin with --")
        if name in found:
            raise ValueError(f"--{name} stands there twice; give it once")
        if len(values) > 1:
            raise ValueError(f"--{name} has several values, as {values[1]!r}; give one")
        found[name] = _value(values[0]) if values else True
    return found


def _value(word: str) -> Json:
    """JSON objects are what they hold, so that variables in them keep their types."""
    if not word.startswith(("{", "[")):
        return word
    try:
        return json.loads(word)
    except ValueError:
        return word
