"""Adapters by the name an experiment gives them: our own, and those of third parties."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """Classes of one sort by name.

    Args:
        what: The sort, for messages: ``quantizer``.
        group: Entry-point group of third parties: the name is the type, the value the class.
        built_in: Name to the module of ours that registers it when it is imported.
        default: The name that a block means which has no ``type``; by default it needs one.
    """

    def __init__(
        self, what: str, group: str, built_in: Mapping[str, str], *, default: str = ""
    ) -> None:
        self._what = what
        self._group = group
        self._built_in = built_in
        self._default = default
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that makes a class available under ``name``.

        Raises ``ValueError`` when the name is taken.
        """

        def decorate(cls: C) -> C:
            if name in self._classes:
                raise ValueError(f"{self._what} {name!r} is taken by {self._classes[name]}")
            self._classes[name] = cls
            return cls

        return decorate

    def names(self) -> list[str]:
        """All names, those of installed third parties included, without loading any."""
        theirs = (point.name for point in entry_points(group=self._group))
        return sorted({*self._built_in, *self._classes, *theirs})

    def make(self, block: Mapping[str, Any], **others: Any) -> T:
        """What a block of an experiment describes: ``type`` and the options of that class, which
        has a pydantic model ``Options`` of the whole block and is called with one, and ``others``.

        Raises:
            KeyError, ImportError: As :meth:`find`.
            pydantic.ValidationError: The options are wrong.
        """
        kind: Any = self.find(str(block.get("type", self._default)))
        made: T = kind(kind.Options.model_validate(dict(block)), **others)
        return made

    def find(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            KeyError: There is none; the message lists those there are.
            ImportError: A third party's entry point cannot be loaded; the message names it.
        """
        if name not in self._classes and name in self._built_in:
            importlib.import_module(self._built_in[name])
        if name not in self._classes:
            for point in entry_points(group=self._group, name=name):
                try:
                    self._classes[name] = point.load()
                except Exception as error:
                    said = f"{self._what} {name!r} of {point.value} cannot be loaded: {error}"
                    raise ImportError(said) from error
        if name not in self._classes:
            raise KeyError(
                f"there is no {self._what} {name!r}; there are {', '.join(self.names())}"
            )
        return self._classes[name]
