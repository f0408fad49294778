"""Which run a call goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner._store import RunStore
from tuner.experiment import ExperimentError, read_document

_QUESTION = ("trial", "search", "objective")


def unfinished(folder: Path) -> Mapping[str, Any] | None:
    """The experiment of the run in ``folder``, if it has come to no verdict yet."""
    record = RunStore(folder).record()
    if record is None or record.finished:
        return None
    try:
        return read_document(folder / "experiment.yaml").data
    except ExperimentError:
        return None


def start_of(experiment: Mapping[str, Any]) -> dict[str, str]:
    """The base that a translated experiment was started from."""
    try:
        constants = experiment["trial"].get("constants", {})
        start = {**constants, **experiment["search"]["start"]}
        return {name: value for name, value in start.items() if value is not None}
    except (KeyError, TypeError, AttributeError):
        return {}


def asks_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two experiments are the same search of the same thing."""
    return all(one.get(key) == other.get(key) for key in _QUESTION)


def fresh_name(storage: Path, stem: str) -> str:
    """The name of a run that knows nothing of earlier ones: a new one, or the last such one where
    it is unfinished."""
    number = 2
    while (storage / f"{stem}-{number}").exists():
        number += 1
    last = f"{stem}-{number - 1}"
    if number > 2 and unfinished(storage / last) is not None:
        return last
    return f"{stem}-{number}"
