"""Tuned variables in the arguments of a program: ``$NAME`` and ``${NAME}``. Pure.

Only names that are given are replaced; any other ``$X`` stays as it is. A name ends where a shell
would end it: ``$AB`` is never ``$A`` and a B. What is put in is not looked at again.

A value is void when it is None, empty, blank, NaN or infinite. A void variable is not set, and an
argument that is nothing but the variable is left out, together with the flag before it.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = Any

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
_ALONE = re.compile(rf"(?:-{{1,2}}[^\s=]+=)?{_VARIABLE.pattern}", re.ASCII)
_FLAG_AND_VALUE = re.compile(r"(-\S+)\s+(\S.*)", re.DOTALL)
_FULL_WIDTH = str.maketrans("，：（）“”‘’｛｝［］", ",:()\"\"''{}[]")
_VOID: Any = object()


def is_void(value: Json) -> bool:
    """Whether a value means that there is none."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def variables(
    own: Mapping[str, str], tuned: Mapping[str, Json]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables of a program: the engine's own with the tuned over them, and those to unset."""
    void = [name for name, value in tuned.items() if is_void(value)]
    given = {name: _text(value) for name, value in tuned.items() if name not in void}
    kept = {name: value for name, value in own.items() if name not in void}
    return {**kept, **given}, tuple(sorted(void))


def in_list(arguments: Sequence[str], values: Mapping[str, Json]) -> list[str]:
    """A command line with its variables replaced.

    Raises ``ValueError`` for a void variable inside a longer argument: nothing sensible is left.
    """
    replaced: list[str] = []
    for argument in arguments:
        text = _in_text(argument, values)
        if text is not _VOID:
            replaced.append(text)
        elif not argument.startswith("-") and replaced and _is_flag(replaced[-1]):
            replaced.pop()
    return replaced


def in_mapping(arguments: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    """Arguments written as a mapping with their variables replaced.

    A value that is nothing but a variable becomes the variable's value with its type, so that
    ``{num_speculative_tokens: $N}`` stays a number; a void one makes its key vanish.

    Raises ``ValueError`` as :func:`in_list`.
    """
    found = {key: _in_json(value, values) for key, value in arguments.items()}
    return {key: value for key, value in found.items() if value is not _VOID}


def split_arguments(text: str) -> list[str]:
    """The words of a command line, as a shell would split it.

    A word that holds a flag and its JSON, such as ``"--compilation-config '{...}'"``, becomes two.
    JSON is cleaned of what copying leaves in it: escaped quotes, quotes around it, full-width
    punctuation outside of its strings.

    Raises ``ValueError`` when a quote is not closed.
    """
    words: list[str] = []
    for word in shlex.split(text):
        parts = _FLAG_AND_VALUE.fullmatch(word)
        value = None if parts is None else _clean_json(parts[2])
        if parts is not None and value is not None:
            words += [parts[1], value]
        else:
            words.append(_clean_json(word) or word)
    return words


def _is_flag(word: str) -> bool:
    return word.startswith("-") and "=" not in word


def _in_json(value: Json, values: Mapping[str, Json]) -> Json:
    if isinstance(value, dict):
        return in_mapping(value, values)
    if isinstance(value, list):
        found = [_in_json(item, values) for item in value]
        return [item for item in found if item is not _VOID]
    if not isinstance(value, str):
        return value
    whole = _VARIABLE.fullmatch(value)
    name = "" if whole is None else whole[1] or whole[2]
    if name in values:
        return _VOID if is_void(values[name]) else values[name]
    return _in_text(value, values)


def _in_text(argument: str, values: Mapping[str, Json]) -> Any:
    """An argument with its variables replaced; ``_VOID`` when it is nothing but a void one."""
    is_json = argument.lstrip().startswith(("{", "["))
    alone = _ALONE.fullmatch(argument)

    def put(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in values:
            return found[0]
        if is_void(values[name]):
            raise ValueError(
                f"${name} has no value in this trial, so {argument!r} cannot be completed; make "
                "the variable an argument of its own, which is then left out"
            )
        return _json_text(values[name]) if is_json else _text(values[name])

    if alone is not None and is_void(values.get(alone[1] or alone[2], "set")):
        return _VOID
    return _VARIABLE.sub(put, argument)


def _text(value: Json) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return str(value)


def _json_text(value: Json) -> str:
    """A value inside JSON; text is put in bare, as the JSON has the quotes where it wants them."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _clean_json(text: str) -> str | None:
    """The JSON object or list that ``text`` is meant to be; None when it is none."""
    bare = text.strip().strip("'\"‘’“”").strip()
    unescaped = bare.replace('\\"', '"').replace("\\\\", "\\")
    for candidate in (
        bare,
        unescaped,
        _outside_strings(unescaped),
        unescaped.translate(_FULL_WIDTH),
    ):
        # Variables stand for values that are not there yet.
        if candidate[:1] in ("{", "[") and _parses(_VARIABLE.sub("0", candidate)):
            return candidate
    return None


def _outside_strings(text: str) -> str:
    """``text`` with full-width punctuation replaced, except in its strings."""
    pieces = re.split(r'("(?:[^"\\]|\\.)*")', text)
    return "".join(
        piece if index % 2 else piece.translate(_FULL_WIDTH) for index, piece in enumerate(pieces)
    )


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
