"""Where each tuned parameter goes: the ``positions`` of a serving trial. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainables._trial import Json

ARGUMENT, ENV = "argument", "env"
CONCURRENCY, REQUEST_RATE = "concurrency", "request_rate"
NOWHERE = "none"
"""Position of a parameter that only others are derived from."""
_LOADS = {"concurrency": CONCURRENCY, "requestrate": REQUEST_RATE}


@dataclass(frozen=True)
class Placed:
    """Tuned parameters by where they go.

    Attributes:
        arguments: Engine arguments by name.
        env: Environment variables by name.
        config: Entries of the engine's configuration file by dotted path.
        concurrency, request_rate: The load, where the search decides it; a rate or concurrency
            of 0 or less means no limit and is None, and so is one that is not searched.
        searched: Which of ``concurrency`` and ``request_rate`` the search decides.
    """

    arguments: Mapping[str, Json] = field(default_factory=dict)
    env: Mapping[str, Json] = field(default_factory=dict)
    config: Mapping[str, Json] = field(default_factory=dict)
    concurrency: int | None = None
    request_rate: float | None = None
    searched: frozenset[str] = frozenset()


def position(name: str, positions: Mapping[str, str]) -> str:
    """Where a parameter goes: as written, else by its name.

    ``concurrency`` and ``request_rate``, in any case and with or without underscores, are the
    load; all else is an argument of the engine.
    """
    if name in positions:
        return positions[name]
    return _LOADS.get(name.lower().replace("_", ""), ARGUMENT)


def place(parameters: Mapping[str, Json], positions: Mapping[str, str]) -> Placed:
    """Sort parameters by their positions.

    An argument whose value is an empty string is left out, as is one that is None.
    """
    arguments: dict[str, Json] = {}
    env: dict[str, Json] = {}
    config: dict[str, Json] = {}
    load: dict[str, float | None] = {}
    for name, value in parameters.items():
        where = position(name, positions)
        if where == ARGUMENT:
            arguments[name] = None if value == "" else value
        elif where == ENV:
            env[name.upper()] = value
        elif where in (CONCURRENCY, REQUEST_RATE):
            load[where] = _limit(value)
        elif where != NOWHERE:
            config[where] = value
    concurrency = load.get(CONCURRENCY)
    return Placed(
        arguments,
        env,
        config,
        None if concurrency is None else max(1, round(concurrency)),
        load.get(REQUEST_RATE),
        frozenset(load),
    )


def position_problems(positions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Positions that cannot be meant, and two parameters in one place."""
    problems: list[tuple[str, str]] = []
    simple = {ARGUMENT, ENV, CONCURRENCY, REQUEST_RATE, NOWHERE}
    taken: dict[str, str] = {}
    for name, where in positions.items():
        path = f"positions.{name}"
        if where not in simple and "." not in where:
            said = "is neither argument, env, concurrency, request_rate nor none"
            problems.append((path, f"{where!r} {said}, nor a dotted path of a configuration file"))
        if where in (CONCURRENCY, REQUEST_RATE) or "." in where:
            if where in taken:
                problems.append((path, f"{where} is set by {taken[where]} already"))
            taken.setdefault(where, name)
    return problems


def load_parameters(names: Iterable[str], positions: Mapping[str, str]) -> dict[str, str]:
    """Which of the parameters are the load: ``{concurrency: NAME}``."""
    placed = {position(name, positions): name for name in names}
    return {key: placed[key] for key in (CONCURRENCY, REQUEST_RATE) if key in placed}


def _limit(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
