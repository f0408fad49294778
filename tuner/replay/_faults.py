"""What is wrong with a replay, said at once, and names of columns as people remember them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tuner.experiment import ExperimentError, Problem

T = TypeVar("T")


class Faults:
    """Collects what is wrong in several parts of a request."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def attempt(self, make: Callable[[], T]) -> T | None:
        """What ``make`` returns; None after it raised ``ExperimentError``, which is kept."""
        try:
            return make()
        except ExperimentError as error:
            self._problems += error.problems
            return None

    def check(self) -> None:
        """Raises ``ExperimentError`` when there is anything to say."""
        if self._problems:
            raise ExperimentError("replay", self._problems)


def fault(place: str, *messages: str) -> ExperimentError:
    """An error at an option or a file."""
    return ExperimentError("replay", [Problem(place, message) for message in messages])


class UnknownColumn(ValueError):
    """No column, or more than one, is meant by a name; the message says which there are."""


def find_column(name: str, columns: Sequence[str]) -> str:
    """The column a person means by ``name``.

    In this order: the column of that name; the same but for case; the same but for case, blanks
    and punctuation; the only one that contains the name. Raises :class:`UnknownColumn`.
    """
    forms: list[Callable[[str], str]] = [str, str.casefold, plain]
    for form in forms:
        found = [column for column in columns if form(column) == form(name)]
        if len(found) == 1:
            return found[0]
    inside = [column for column in columns if plain(name) and plain(name) in plain(column)]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise UnknownColumn(f"{name!r} could be {listed(inside)}; write one of them")
    close = difflib.get_close_matches(plain(name), [plain(column) for column in columns], n=1)
    meant = [column for column in columns if plain(column) in close]
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    raise UnknownColumn(f"no column {name!r}; there are: {', '.join(columns)}{hint}")


def plain(name: str) -> str:
    """A name without case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def listed(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
