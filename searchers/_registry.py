"""Strategies by the name that ``search: {type: ...}`` of an experiment gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from searchers._contract import Goal, Json, Strategy
from searchers._space import Space

GROUP = "npu_tuner.strategies"
"""Entry points of third parties: the name is the type, the value a module or class whose import
runs :func:`register_strategy` for that type."""

S = TypeVar("S", bound=type[Strategy])


class _Entry(NamedTuple):
    make: Callable[..., Strategy]
    options: type[BaseModel]


_REGISTRY: dict[str, _Entry] = {}


def register_strategy(name: str, options: type[BaseModel]) -> Callable[[S], S]:
    """Class decorator that makes a strategy available under ``search: {type: name}``.

    The class is constructed as ``Class(options, space=space, seed=seed)``, with ``options`` an
    instance of the model given here (which should forbid unknown keys), ``space`` the experiment's
    :class:`Space` or None. It raises ``ValueError`` when these do not suit it.
    """

    def decorate(cls: S) -> S:
        if name in _REGISTRY:
            raise ValueError(f"strategy type {name!r} is registered already: {_REGISTRY[name]}")
        _REGISTRY[name] = _Entry(cls, options)
        return cls

    return decorate


def strategy_types() -> list[str]:
    """Names of all strategies, those of installed third parties included, without loading any."""
    return sorted({*_REGISTRY, *(point.name for point in entry_points(group=GROUP))})


def strategy_options(name: str) -> type[BaseModel]:
    """Model of a strategy's options, which are the other keys of its ``search`` block.

    Raises:
        KeyError: Nothing is registered under that name.
        ImportError: A third party's entry point cannot be loaded; the message names it.
    """
    return _entry(name).options


def make_strategy(
    name: str,
    options: BaseModel | Mapping[str, Json],
    *,
    space: Space | None,
    seed: int,
    width: int = 1,
    goal: Goal | None = None,
) -> Strategy:
    """A fresh strategy.

    Raises:
        ValueError: The options are wrong (pydantic's ``ValidationError`` is one), or the strategy
            cannot work with this space.
        KeyError, ImportError: As :func:`strategy_options`.
    """
    entry = _entry(name)
    if not isinstance(options, BaseModel):
        options = entry.options.model_validate(options)
    strategy = entry.make(options, space=space, seed=seed)
    strategy.width = width
    if goal is not None:
        strategy.goal = goal
    return strategy


def _entry(name: str) -> _Entry:
    if name not in _REGISTRY:
        for point in entry_points(group=GROUP, name=name):
            _load(name, point)
    if name not in _REGISTRY:
        raise KeyError(f"unknown strategy type {name!r}; known types: {strategy_types()}")
    return _REGISTRY[name]


def _load(name: str, point: Any) -> None:
    package = f" of package {point.dist.name} {point.dist.version}" if point.dist else ""
    said = f"strategy plug-in {name!r} ({point.value}{package})"
    try:
        point.load()
    except Exception as error:
        raise ImportError(f"{said} cannot be loaded: {type(error).__name__}: {error}") from error
    if name not in _REGISTRY:
        raise ImportError(f"{said} was loaded but registers no strategy type {name!r}")
