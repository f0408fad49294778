"""The folder ``history``: index, accuracies, and every practice that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from cluster import write_atomic
from searchers import Json
from tuner.views._contract import Story
from tuner.views.msmodelslim._accuracy import NotAnAccuracyFile, entry_key, read_entries
from tuner.views.msmodelslim._candidates import Candidate, winner
from tuner.views.msmodelslim._documents import (
    dump,
    expectations,
    practice_document,
    quantization_md5,
)
from tuner.views.msmodelslim._links import set_aside
from tuner.views.msmodelslim._ownership import ACCURACIES, INDEX, Ownership


class History:
    """Writes the folder of one run. The index comes last, so it names no file that is missing."""

    def __init__(self, folder: Path, evaluation: Mapping[str, Json]) -> None:
        self._folder = folder
        self._evaluation = evaluation
        self._practices: dict[tuple[str, str], str] = {}

    def update(self, story: Story, told: list[Candidate]) -> list[str]:
        """Let the folder tell ``story``; what the user should know. Raises ``OSError``."""
        notes = []
        ownership = Ownership(self._folder, str(story.store.folder))
        if aside := ownership.take_over():
            notes.append(f"{self._folder}: the history found there was moved to {aside}")
        names = {f"{item.config_id}.yaml" for item in told}
        index, ours = dump({"records": self._records(story, told)}), ownership.files()
        ownership.claim(ours | names, [ownership.index(), index])
        for item in told:
            self._write(f"{item.config_id}.yaml", self._practice(item))
        notes += self._merge_accuracies(told)
        self._write(INDEX, index)
        for stale in ours - names:
            (self._folder / stale).unlink(missing_ok=True)
        ownership.claim(names, [index])
        return notes

    def _records(self, story: Story, told: list[Candidate]) -> list[Json]:
        """The index; its last record is the answer, as with the tool, once there is one."""
        records = [self._record(item, item.finished.at) for item in told]
        answer = winner(story, told)
        if answer is not None and answer is not told[-1]:
            verified = [item.at for item in story.finished if item.kind == "verification"]
            records.append(self._record(answer, (verified or [answer.finished.at])[-1]))
        return records

    def _record(self, item: Candidate, at: str) -> dict[str, Json]:
        return {
            "practice_id": item.config_id,
            "evaluation": self._evaluated(item),
            "quant_config_md5": quantization_md5(item.practice),
            "time": _local(at),
        }

    def _evaluated(self, item: Candidate) -> dict[str, Json]:
        demands = expectations(self._evaluation)
        measured = {
            demand["dataset"]: value
            for demand in demands
            if (value := _accuracy(item, demand["dataset"])) is not None
        }
        satisfied = item.finished.satisfied
        if satisfied is None:
            satisfied = all(_met(demand, measured.get(demand["dataset"])) for demand in demands)
        return {
            "accuracies": [{"dataset": n, "accuracy": str(v)} for n, v in measured.items()],
            "expectations": demands,
            "is_satisfied": satisfied,
        }

    def _practice(self, item: Candidate) -> str:
        key = (item.measurement.identity, item.config_id)
        if key not in self._practices:
            self._practices[key] = dump(practice_document(item.practice, item.config_id))
        return self._practices[key]

    def _merge_accuracies(self, told: list[Candidate]) -> list[str]:
        """Add what was measured to the accuracies; entries of others stay."""
        file, notes = self._folder / ACCURACIES, []
        try:
            entries = read_entries(file)
        except NotAnAccuracyFile as error:
            notes.append(f"{error}; moved to {set_aside(file).name}")
            entries = {}
        ours = {entry_key(item.practice, self._evaluation): self._evaluated(item) for item in told}
        if any(entries.get(key) != entry for key, entry in ours.items()):
            write_atomic(file, dump(entries | ours))
        return notes

    def _write(self, name: str, text: str) -> None:
        """Write a file unless it says so already."""
        file = self._folder / name
        try:
            same = file.read_text(encoding="utf-8") == text
        except (OSError, UnicodeDecodeError):
            same = False
        if not same:
            write_atomic(file, text)


def _accuracy(item: Candidate, dataset: str) -> Decimal | None:
    """What the demand on a dataset was held against; None where it was not evaluated.

    As the benchmark printed it, if that is known: ``70.0`` and ``70`` are one number and two texts.
    """
    keys = [check.metric for check in item.finished.checks]
    named = [key for key in keys if key.rpartition("/")[0] == dataset]
    key = (named or [f"{dataset}/accuracy"])[-1]
    value = item.measurement.metrics.get(key)
    if value is None:
        return None
    printed = item.benchmark(dataset).get("values", {}).get(key.rpartition("/")[2])
    return Decimal(repr(float(value)) if printed is None else printed)


def _met(demand: Mapping[str, str], value: Decimal | None) -> bool:
    if value is None:
        return False
    return Decimal(demand["target"]) - value <= Decimal(demand["tolerance"])


def _local(at: str) -> str:
    """A moment as the tool writes it: in local time, without saying so."""
    return str(datetime.fromisoformat(at).astimezone().replace(tzinfo=None))
