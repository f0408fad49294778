"""Everything wrong with an experiment, said at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One fault of an experiment file.

    Attributes:
        path: Dotted path of the value, such as ``search.rollback_path``; empty: the whole file.
        message: What is wrong and what to do about it.
        line: Line in the file, from 1; None when the value does not stand in the file.
    """

    path: str
    message: str
    line: int | None = None


class ExperimentError(Exception):
    """The experiment cannot be run as it is written.

    Attributes:
        source: The file, as the user named it.
        problems: All faults found, in the order of the file.
    """

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = sorted(
            problems, key=lambda problem: (problem.line or 10**9, problem.path, problem.message)
        )
        super().__init__("\n".join(self._describe(problem) for problem in self.problems))

    def _describe(self, problem: Problem) -> str:
        line = "" if problem.line is None else f":{problem.line}"
        path = f" {problem.path}:" if problem.path else ""
        return f"{self.source}{line}:{path} {problem.message}"


def from_pydantic(
    prefix: str, data: Any, errors: Sequence[Any], known: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """(path, message) pairs of a pydantic ``ValidationError.errors()``, in plain words.

    One pair for each path: where several forms of a value are allowed, pydantic complains once for
    each. ``data`` is what was validated, ``known`` the keys an unknown one may have been meant as.
    """
    messages: dict[str, list[str]] = {}
    for error in errors:
        message = _message(error, known)
        said = messages.setdefault(_path(prefix, data, error), [])
        if message not in said:
            said.append(message)
    return [(path, ", or ".join(said)) for path, said in messages.items()]


def _path(prefix: str, data: Any, error: Any) -> str:
    """The path in the user's file: pydantic also names union branches it tried, which are none."""
    parts = [prefix] if prefix else []
    last = len(error["loc"]) - 1
    for position, part in enumerate(error["loc"]):
        if _leads_on(data, part):
            data = data[part]
        elif not (position == last and error["type"] == "missing"):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _leads_on(data: Any, part: int | str) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _message(error: Any, known: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        names = f"; known keys: {', '.join(known)}" if known else ""
        return f"unknown key{names}"
    if error["type"] == "missing":
        return "is required"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = error.get("input")
    if isinstance(given, (str, int, float, bool)) and error["type"] != "value_error":
        return f"{message[0].lower()}{message[1:]}, not {given!r}"
    return message
