"""Strategies as a comma list names them: types, short names, options in braces."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from searchers import Json, Space, Strategy, make_strategy, strategy_options, strategy_types
from tuner.experiment import from_pydantic
from tuner.replay._faults import fault
from tuner.replay._yaml import parse_yaml

OPTION = "--search"

ALIASES: Mapping[str, tuple[str, Mapping[str, Json]]] = {
    "tpe": ("optuna", {"sampler": "tpe"}),
    "gp": ("optuna", {"sampler": "gp"}),
    "cma_es": ("optuna", {"sampler": "cma_es"}),
    "cmaes": ("optuna", {"sampler": "cma_es"}),
    "nsga2": ("optuna", {"sampler": "nsga2"}),
    "pso": ("particle_swarm", {}),
    "pso-constriction": ("particle_swarm", {"preset": "constriction"}),
    "pso-serviceparam": ("particle_swarm", {"preset": "serviceparam"}),
}
"""Short names: the type they stand for, and its options."""

_NOT_POINTS = ("binary_fallback", "pd_split", "standing_high", "standing_high_with_experience")
_NAMED = re.compile(r"([\w.-]+)\s*(\{.*\})?", re.DOTALL)


@dataclass(frozen=True)
class Contender:
    """A strategy to be replayed.

    Attributes:
        label: As the user wrote it.
        type: The registered type.
        options: Its options, ``trials`` left out where the user gave no length.
    """

    label: str
    type: str
    options: Mapping[str, Json] = field(default_factory=dict)

    def strategy(self, space: Space, *, seed: int, trials: int) -> Strategy:
        """A fresh one; its length is ``trials`` where it needs one and the options say none.

        Raises ``ValueError`` when the options are wrong or do not suit the space.
        """
        options = _with_length(self.type, self.options, trials)
        return make_strategy(self.type, options, space=space, seed=seed)


def read_contenders(text: str) -> list[Contender]:
    """The strategies of a list such as ``auto,random,optuna{sampler: gp}``.

    Raises ``ExperimentError`` with everything that is wrong.
    """
    contenders, problems = [], []
    for item in filter(None, map(str.strip, _items(text))):
        match = _NAMED.fullmatch(item)
        if match is None:
            problems.append(f"{item!r}: write a name, or name{{option: value}}")
            continue
        name = match[1]
        kind, options = (name, {}) if name in strategy_types() else ALIASES.get(name, (name, {}))
        try:
            given = _options(match[2], item)
            contenders.append(Contender(item, kind, {**options, **given}))
            problems += _problems(contenders[-1])
        except ValueError as error:
            problems.append(str(error))
    labels = [contender.label for contender in contenders]
    problems += [f"{one} stands twice" for one in sorted(set(labels)) if labels.count(one) > 1]
    if not contenders and not problems:
        problems.append(f"names no strategy; there are: {_known()}")
    if problems:
        raise fault(OPTION, *problems)
    return contenders


def check_contenders(contenders: Sequence[Contender], spaces: Sequence[Space]) -> None:
    """Raises ``ExperimentError`` naming every strategy that cannot search one of the spaces."""
    problems = []
    for contender in contenders:
        for space in spaces:
            try:
                contender.strategy(space, seed=0, trials=1)
            except ValueError as error:
                problems.append(f"{contender.label}: {error}")
                break
    if problems:
        raise fault(OPTION, *problems)


def expected_asks(budget: int, space_size: int | None, known: int | None, *, free: bool) -> int:
    """The length to give a strategy that shall spend ``budget`` evaluations.

    Where proposals without a record are free it is told as many more as a search that looks
    everywhere needs, to be safe, with three standard deviations on top.
    """
    if not free or not space_size or not known or known >= space_size:
        return budget
    share = known / space_size
    asks = budget / share + 3 * math.sqrt(budget * (1 - share)) / share
    return min(math.ceil(asks), space_size)


def _with_length(kind: str, options: Mapping[str, Json], trials: int) -> dict[str, Json]:
    """The options, and ``trials`` where nothing says how long it is and it has to be told.

    What ends by itself only when all is measured is not told: the replay ends it.
    """
    model = strategy_options(kind)
    given = dict(options)
    if "trials" not in model.model_fields or {"trials", "iterations"} & given.keys():
        return given
    try:
        model.model_validate(given)
    except ValidationError:
        given["trials"] = trials
    return given


def _items(text: str) -> list[str]:
    """Splits at commas outside of braces and brackets."""
    items, depth, start = [], 0, 0
    for index, sign in enumerate(text):
        depth += (sign in "{[") - (sign in "}]")
        if sign == "," and depth == 0:
            items.append(text[start:index])
            start = index + 1
    return [*items, text[start:]]


def _options(text: str | None, item: str) -> dict[str, Any]:
    if text is None:
        return {}
    options = parse_yaml(text, OPTION)
    if not isinstance(options, dict):
        raise ValueError(f"{item!r}: the braces must hold options such as {{sampler: gp}}")
    return options


def _problems(contender: Contender) -> Sequence[str]:
    """Faults of the options, the length apart."""
    try:
        model = strategy_options(contender.type)
    except KeyError:
        return [f"unknown strategy {contender.type!r}; there are: {_known()}"]
    except ImportError as error:
        return [str(error)]
    options = _with_length(contender.type, contender.options, 1)
    try:
        model.model_validate(options)
    except ValidationError as error:
        found = from_pydantic("", options, error.errors(), sorted(model.model_fields))
        return [f"{contender.label}: {path or 'options'}: {said}" for path, said in found]
    return []


def _known() -> str:
    types = [name for name in strategy_types() if name not in _NOT_POINTS]
    return ", ".join([*types, *(alias for alias in ALIASES if ALIASES[alias][0] in types)])
