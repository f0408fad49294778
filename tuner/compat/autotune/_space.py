"""The search of ``auto_tune.py``: where it starts, what it tries, in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searchers import Json
from trainables.script import rouge_preset
from tuner.compat._options import Problems

_MOST_BYTES = 2**20


def search_block(
    base: Mapping[str, str], candidates: Mapping[str, list[str]]
) -> tuple[dict[str, Json], dict[str, str]]:
    """The ``search`` block, and the parameters of ``base`` that are not searched.

    A parameter of ``candidates`` that has no value yet starts without one, as in the original: the
    variable is not set until its own group comes.
    """
    preset = rouge_preset()
    block = preset.search(base, candidates)
    for name, parameter in block["space"].items():
        if name not in preset.base and name not in base:
            parameter["values"] = [None, *parameter["values"]]
            block["start"][name] = None
    fixed = {name: value for name, value in base.items() if name not in block["space"]}
    return block, fixed


def read_candidates(file: Path, place: str, problems: Problems) -> dict[str, list[str]]:
    """An external search space, ``{"PARAM": ["v1", ...]}``; one value may stand without a list."""
    document = _read(file, place, problems)
    if document is None:
        return {}
    if not isinstance(document, dict):
        problems.append((place, f'{file} must be an object {{"PARAM": ["v1", ...]}}'))
        return {}
    found = {}
    for name, values in document.items():
        if values is None:
            continue
        items = values if isinstance(values, list) else [values]
        texts = [_text(item) for item in items]
        if not name or "=" in name or "|" in name:
            problems.append((place, f"{file}: {name!r} cannot be the name of a variable"))
        elif not texts or any(text is None for text in texts):
            problems.append((place, f"{file}: {name}: give texts or numbers, at least one"))
        else:
            found[name] = [text for text in texts if text is not None]
    return found


def read_base(file: Path, place: str, problems: Problems) -> dict[str, str]:
    """``best_params.json``; empty where it does not exist or holds nothing."""
    if not file.exists():
        return {}
    document = _read(file, place, problems)
    if document is None:
        return {}
    texts = {name: _text(value) for name, value in document.items()} if _is_object(document) else {}
    if not _is_object(document) or None in texts.values():
        said = f"{file} must be an object of parameters and their values; repair or remove it"
        problems.append((place, said))
        return {}
    return {name: text for name, text in texts.items() if text is not None}


def _is_object(document: Any) -> bool:
    return isinstance(document, dict)


def _read(file: Path, place: str, problems: Problems) -> Any:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"is larger than {_MOST_BYTES} bytes")
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append((place, f"{file}: {error}"))
        return None


def _text(value: Any) -> str | None:
    """A value as the environment has it; None for what it cannot have."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str | int | float):
        return str(value)
    return None
