"""A repository of practices, as ``msmodelslim quant --quant_type`` searches it."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yaml

from cluster import sync_folder, write_atomic
from searchers import Json
from tuner.views.msmodelslim._documents import dump, practice_document
from tuner.views.msmodelslim._label import right_label

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]|^\.")


@dataclass(frozen=True)
class Saved:
    """Where a practice stands.

    Attributes:
        new: Whether it did not stand there before.
        corrected: What its label claimed wrongly.
    """

    file: Path
    new: bool
    corrected: tuple[str, ...] = ()


def file_name(config_id: str) -> str:
    """``config_id`` in the characters that the tool allows in a path."""
    return _UNSAFE.sub("_", config_id)


def save_practice(
    folder: Path,
    practice: Mapping[str, Json],
    config_id: str,
    *,
    model_type: str,
    tags: Sequence[str] = (),
) -> Saved:
    """File a practice under ``<folder>/<config_id>.yaml``, verified for ``model_type``.

    The tool takes a practice only if its file is named like its id and it is verified for the
    model asked for. No file is ever replaced: an id that another practice has gets ``_2``,
    ``_3``...; a practice that stands there already under any id is not saved again. Several runs
    may save into one folder at the same time. Raises ``OSError`` when the folder cannot be
    written.
    """
    label, corrected = right_label(practice)
    document = practice_document(practice, "")
    document["metadata"] |= {
        "label": label,
        "verified_model_types": [model_type],
        "verified_tags": {model_type: [list(tags)]} if tags else {},
    }
    wanted = file_name(config_id)
    folder.mkdir(parents=True, exist_ok=True)
    if (known := _find(folder, document)) is not None:
        return Saved(known, new=False, corrected=tuple(corrected))
    for name in _names(wanted):
        document["metadata"]["config_id"] = name
        file = folder / f"{name}.yaml"
        if _create(file, dump(document)):
            return Saved(file, new=True, corrected=tuple(corrected))
    raise AssertionError("names do not end")


def _names(wanted: str) -> Iterator[str]:
    yield wanted
    for number in count(2):
        yield f"{wanted}_{number}"


def _find(folder: Path, document: Mapping[str, Json]) -> Path | None:
    """The file with this practice, whatever its id. Files that are none are passed over."""
    for file in sorted(folder.glob("*.yaml")):
        try:
            there = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        named = {**document, "metadata": {**document["metadata"], "config_id": file.stem}}
        if there == named:
            return file
    return None


def _create(file: Path, text: str) -> bool:
    """Write a whole file that does not exist yet; False if it does."""
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}.draft")
    write_atomic(draft, text)
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    sync_folder(file.parent)
    return True
