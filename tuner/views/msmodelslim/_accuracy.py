"""``accuracy.yaml``: the accuracies that ``msmodelslim tune`` remembers, in both directions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import yaml

from cluster import write_atomic
from searchers import Json
from tuner.views.msmodelslim._documents import dump, evaluation_md5, quantization_md5

Entries: TypeAlias = dict[str, Json]
"""``<evaluation md5>-<quantization md5>`` to ``{accuracies, expectations, is_satisfied}``."""
IMPORTED = "imported/accuracy.yaml"
"""Where a run keeps what was imported, below its folder."""
_KEY = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}")


class NotAnAccuracyFile(Exception):
    """A file is not an ``accuracy.yaml``; the message says what is wrong with it."""


def read_entries(file: Path) -> Entries:
    """All of an ``accuracy.yaml``, unusable entries included; empty when there is no file.

    Raises:
        NotAnAccuracyFile: It cannot be understood.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise NotAnAccuracyFile(f"{file}: {str(error).splitlines()[0]}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise NotAnAccuracyFile(f"{file}: holds no mapping of keys to accuracies")
    return content


def merge_imported(file: Path, run: Path) -> tuple[Path, int]:
    """Add all entries of ``file`` to what was imported into a run's folder before.

    Returns where they are now and how many earlier ones they replace. Raises
    :class:`NotAnAccuracyFile` for either file, ``OSError`` when the folder cannot be written.
    """
    stored = run / IMPORTED
    before, new = read_entries(stored), read_entries(file)
    write_atomic(stored, dump(before | new))
    return stored, sum(before.get(key, entry) != entry for key, entry in new.items())


def entry_key(practice: Mapping[str, Json], evaluation: Mapping[str, Json]) -> str:
    """The key of one practice under one evaluation block with all its defaults."""
    return f"{evaluation_md5(evaluation)}-{quantization_md5(practice)}"


class ImportedAccuracy:
    """What an ``accuracy.yaml`` of the original tool says of a practice.

    Its keys name neither the model nor any version, so whoever uses it has to know that the model
    was the same. An accuracy of zero is not used: the tool also writes one for a benchmark that
    failed. Nor is an entry that lacks what an entry has to have.

    Attributes:
        file: Where the entries come from.
        usable: How many can answer.
        zeros: How many were left out for an accuracy of zero.
        broken: How many were left out for anything else.
    """

    def __init__(self, file: Path) -> None:
        """Raises :class:`NotAnAccuracyFile`."""
        self.file = file
        self._accuracies: dict[str, dict[str, float]] = {}
        self.zeros = self.broken = 0
        for key, entry in read_entries(file).items():
            accuracies = _accuracies(entry) if _KEY.fullmatch(key) else None
            if not accuracies:
                self.broken += 1
            elif 0.0 in accuracies.values():
                self.zeros += 1
            else:
                self._accuracies[key] = accuracies

    @classmethod
    def of_run(cls, folder: Path) -> ImportedAccuracy | None:
        """What was imported into a run's folder; None when nothing was.

        Raises:
            NotAnAccuracyFile: It was damaged since.
        """
        file = folder / IMPORTED
        return cls(file) if file.exists() else None

    @property
    def usable(self) -> int:
        return len(self._accuracies)

    def keys(self) -> frozenset[str]:
        """Keys of the usable entries."""
        return frozenset(self._accuracies)

    def find(
        self, practice: Mapping[str, Json], evaluation: Mapping[str, Json], metric: str = "accuracy"
    ) -> Mapping[str, float] | None:
        """Metrics ``<dataset>/<metric>`` of a practice, or None.

        Both documents have to be what they were then, to the port and the order of excluded
        layers. The datasets after a failed one are missing, as they were not measured.

        Args:
            practice: A practice's document; its metadata does not matter.
            evaluation: The plan's evaluation block with all its defaults.
            metric: The demand's name for what the tool calls accuracy.
        """
        found = self._accuracies.get(entry_key(practice, evaluation))
        if found is None:
            return None
        return {f"{dataset}/{metric}": value for dataset, value in found.items()}


def _accuracies(entry: Json) -> dict[str, float] | None:
    """Dataset to accuracy; None for an entry that is not one."""
    try:
        found = {str(item["dataset"]): float(item["accuracy"]) for item in entry["accuracies"]}
    except (TypeError, KeyError, ValueError):
        return None
    return found if all(map(math.isfinite, found.values())) else None
