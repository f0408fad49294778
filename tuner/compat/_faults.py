"""Faults of a plan in plain words, with the keys that an unknown one may have been meant as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tuner.compat._options import Problems
from tuner.experiment import from_pydantic


def faults(
    path: str,
    data: Any,
    error: ValidationError,
    model: type[BaseModel],
    below: tuple[str, ...] = (),
) -> Problems:
    """The faults of ``data`` in plain words; ``below``: only those there, ``path`` being that."""
    found: dict[str, list[str]] = {}
    for step in below:
        data = data[step]
    for fault in error.errors():
        location, depth = fault["loc"], len(below)
        if location[:depth] != below:
            continue
        known = _keys_at(model, location[:-1])
        moved = [{**fault, "loc": location[depth:]}]
        for place, said in from_pydantic(path, data, moved, known):
            if said not in found.setdefault(place, []):
                found[place].append(said)
    return [(place, ", or ".join(said)) for place, said in found.items()]


def _keys_at(model: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """Keys of the block at a place that pydantic names, tags of unions included."""
    models = [model]
    for step in location:
        inner = [
            found
            for each in models
            if step in each.model_fields
            for found in _models_in(each.model_fields[str(step)].annotation)
        ]
        tagged = [each for each in models if _tag(each) == step]
        models = inner or tagged or models
    return sorted({key for each in models for key in each.model_fields})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models_in(part)


def _tag(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    if field is None or get_origin(field.annotation) is not Literal:
        return "other"
    return get_args(field.annotation)[0]
