"""Arguments of an engine's command line, written as a mapping in an experiment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Json: TypeAlias = Any


def argument_name(key: str) -> str:
    """The argument that ``key`` means, however it is spelled: ``--max_len`` is ``max-len``."""
    return key.lstrip("-").replace("_", "-")


def argument_list(args: Mapping[str, Json]) -> list[str]:
    """Command-line arguments in the order and spelling given.

    A key without dashes gets two. ``True`` makes a flag, ``False`` and ``None`` leave the
    argument out, dicts and lists become compact JSON, anything else its text.
    """
    arguments: list[str] = []
    for key, value in args.items():
        if value is None or value is False:
            continue
        arguments.append(key if key.startswith("-") else f"--{key}")
        if value is not True:
            arguments.append(_rendered(value))
    return arguments


def merged(args: Mapping[str, Json], tuned: Mapping[str, Json]) -> dict[str, Json]:
    """``args`` with ``tuned`` over them, where a different spelling is the same argument."""
    names = {argument_name(key) for key in tuned}
    return {k: v for k, v in args.items() if argument_name(k) not in names} | dict(tuned)


def without(args: Mapping[str, Json], names: Iterable[str]) -> dict[str, Json]:
    """``args`` without the arguments of these names."""
    unwanted = set(names)
    return {key: value for key, value in args.items() if argument_name(key) not in unwanted}


def canonical(args: Mapping[str, Json]) -> dict[str, Json]:
    """What ``args`` mean: the same for all spellings, orders and types that make one command."""
    meant = {
        argument_name(key): True if value is True else _rendered(value, sort_keys=True)
        for key, value in args.items()
        if value is not None and value is not False
    }
    return dict(sorted(meant.items()))


def argument_problems(args: Mapping[str, Json]) -> list[tuple[str, str]]:
    """Faults of the mapping itself, as (key, message)."""
    problems = []
    seen: dict[str, str] = {}
    for key, value in args.items():
        name = argument_name(key)
        if not name or any(c.isspace() or c in "=\0" for c in key):
            problems.append((key, f"{key!r} is no name of an argument; its value goes after it"))
        elif name in seen:
            problems.append((key, f"the same argument as {seen[name]}; give it once"))
        seen.setdefault(name, key)
        if isinstance(value, str) and value.startswith(("./", "../", "~")):
            problems.append((key, "the engine runs in the trial's folder; give an absolute path"))
        if isinstance(value, str) and "\0" in value:
            problems.append((key, "a NUL character cannot be passed to a program"))
    return problems


def _rendered(value: Json, *, sort_keys: bool = False) -> str:
    if isinstance(value, dict | list):
        return json.dumps(
            value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=sort_keys
        )
    return str(value)
