"""What good means for a table: from a sentence, or from an experiment's ``objective`` block."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from tuner.experiment import Objective, from_pydantic
from tuner.replay._faults import UnknownColumn, fault, find_column, plain
from tuner.replay._yaml import read_yaml

OPTION = "--objective"
EXAMPLE = "write for example 'max throughput, ttft <= 2, tpot <= 0.03'"

_DIRECTIONS = {
    "maximize": ("max", "maximise", "maximize", "highest", "most"),
    "minimize": ("min", "minimise", "minimize", "lowest", "least"),
}
_WORDS = {word: key for key, words in _DIRECTIONS.items() for word in words}
_SEPARATOR = re.compile(
    r"[;&\n]|,(?!\d{3}\b)|\bs\.t\."
    r"|\b(?:and|subject to|such that|so that|under|where|with|while|if)\b",
    re.IGNORECASE,
)
_AIM = re.compile(rf"({'|'.join(_WORDS)})\b[\s:]*(.+)", re.IGNORECASE | re.DOTALL)
_SIGN = re.compile(r"\s*(<=|>=|==|=<|=>|<|>|=|≤|≥)\s*")
_AMOUNT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)")
_UPPER = ("<=", "=<", "<", "≤")
_LOWER = (">=", "=>", ">", "≥")


def read_objective(text: str, columns: Sequence[str], say: Callable[[str], None]) -> Objective:
    """The objective a person wrote, its metrics being columns of the table.

    ``text`` is a sentence such as ``maximize output_throughput subject to mean_ttft_ms <= 2000``,
    an inline YAML mapping, or the path of a YAML file with an ``objective`` block. ``say`` is told
    when a column is meant that was not written out. Raises ``ExperimentError`` with everything
    that is wrong.
    """
    document = read_yaml(text, OPTION)
    if document is None:
        data = _parse(text, columns)
    elif isinstance(document, dict):
        data = document.get("objective", document)
    else:
        raise fault(OPTION, f"must be a mapping or a sentence; {EXAMPLE}")
    objective = _validated(data)
    problems: list[str] = []

    def meant(name: str) -> str:
        try:
            column = find_column(name, columns)
        except UnknownColumn as error:
            problems.append(str(error))
            return name
        if column != name:
            say(f"{name} in the objective is taken for column {column!r}")
        return column

    changed = {
        "maximize": tuple(map(meant, objective.maximize)),
        "minimize": tuple(map(meant, objective.minimize)),
        "limits": [
            one.model_copy(update={"metric": meant(one.metric)}) for one in objective.limits
        ],
    }
    exact = [one.key for one in objective.expectations]
    exact += [] if objective.fitness is None else objective.fitness.metrics
    problems += [f"no column {name!r}, which is needed" for name in exact if name not in columns]
    if problems:
        raise fault(OPTION, *problems)
    return objective.model_copy(update=changed)


def metrics_of(objective: Objective) -> list[str]:
    """The columns that decide, each once."""
    goal = objective.goal()
    aims = [name for name, _ in goal.objectives]
    if objective.fitness is not None:
        aims = list(objective.fitness.metrics)
    limited = [bound.metric for bound in goal.bounds]
    return list(dict.fromkeys([*aims, *limited, *(one.key for one in objective.expectations)]))


def _validated(data: Any) -> Objective:
    if not isinstance(data, dict):
        raise fault(OPTION, f"must be a mapping; {EXAMPLE}")
    try:
        objective = Objective.model_validate(data)
    except ValidationError as error:
        known = sorted(Objective.model_fields)
        found = from_pydantic("", data, error.errors(), known)
        raise fault(
            OPTION, *(f"{path}: {said}".removeprefix(": ") for path, said in found)
        ) from error
    if not objective.goal().objectives:
        raise fault(OPTION, f"name a metric to maximize or minimize; {EXAMPLE}")
    if objective.needs_baseline:
        raise fault(OPTION, "a table has no baseline: give a number as target")
    return objective


def _parse(text: str, columns: Sequence[str]) -> dict[str, Any]:
    text, names = _protect(text, columns)
    data: dict[str, Any] = {"maximize": [], "minimize": [], "limits": []}
    problems = []
    for clause in filter(None, map(str.strip, _SEPARATOR.split(text))):
        try:
            _read_clause(clause, names, data)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise fault(OPTION, *problems)
    return {key: value for key, value in data.items() if value}


def _read_clause(clause: str, names: dict[str, str], data: dict[str, Any]) -> None:
    parts = _SIGN.split(clause)
    if len(parts) == 1:
        aim = _AIM.fullmatch(clause)
        if aim is None:
            said = _restored(clause, names)
            raise ValueError(f"cannot understand {said!r}; {EXAMPLE}")
        data[_WORDS[aim[1].lower()]].append(_restored(aim[2].strip(), names))
        return
    if len(parts) != 3:
        raise ValueError(f"{_restored(clause, names)!r} has several signs; write one limit each")
    left, sign, right = parts
    if _AMOUNT.fullmatch(left) and not _AMOUNT.fullmatch(right):
        left, right = right, left
        sign = {**dict.fromkeys(_UPPER, ">="), **dict.fromkeys(_LOWER, "<=")}.get(sign, sign)
    name, limit = _restored(left, names), {}
    amount = _amount(right, name)
    if sign not in _LOWER:
        limit["max"] = amount
    if sign not in _UPPER:
        limit["min"] = amount
    data["limits"].append({"metric": name, **limit})


def _amount(text: str, name: str) -> float:
    match = _AMOUNT.fullmatch(text.replace(",", ""))
    if match is None:
        raise ValueError(f"the limit of {name} must be a number, not {text!r}")
    unit = match[2]
    if unit and not plain(name).endswith(plain(unit) or unit):
        raise ValueError(f"write the limit of {name} in the column's unit, without {unit!r}")
    return float(match[1])


def _protect(text: str, columns: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The text with names that have blanks or punctuation, or stand in quotes, as single words."""
    names: dict[str, str] = {}

    def replaced(name: str) -> str:
        key = f"\x00{len(names)}\x00"
        names[key] = name
        return key

    text = re.sub(r"([`\"'])(.+?)\1", lambda match: replaced(match[2]), text)
    awkward = [name for name in columns if not re.fullmatch(r"\w+", name)]
    for column in sorted(awkward, key=len, reverse=True):
        exact = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)", re.IGNORECASE)
        key = replaced(column)
        text = exact.sub(key, text)
    return text, names


def _restored(text: str, names: dict[str, str]) -> str:
    for key, name in names.items():
        text = text.replace(key, name)
    return text
