"""What of a run's story the original tool would have recorded: its measured practices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from searchers import Json
from trainables import Measurement
from tuner.views._contract import Finished, Story
from tuner.views.msmodelslim._repository import file_name


@dataclass(frozen=True)
class Candidate:
    """One measured practice.

    Attributes:
        index: From 0, in the order of telling; the number that the tool would give it.
        practice: Its document.
    """

    index: int
    finished: Finished
    measurement: Measurement
    practice: Mapping[str, Json]

    @property
    def config_id(self) -> str:
        """The name of its practice; the strategies number theirs as they propose them."""
        named = self.practice.get("metadata", {}).get("config_id", "Unknown")
        return file_name(f"{named}_{self.index}")

    @property
    def weights(self) -> Path | None:
        """Where its weights were written; they may be gone."""
        path = self.measurement.artifacts["weights"].get("path")
        return None if path is None else Path(path)

    def benchmark(self, dataset: str) -> Mapping[str, Json]:
        """What the benchmark of a dataset left: ``log``, ``values`` as printed... May be empty."""
        found = self.measurement.data.get("datasets", {}).get(dataset, {})
        return found if isinstance(found, Mapping) else {}


def candidates(story: Story) -> list[Candidate]:
    """Every measured practice. A failure is none: it says nothing about a practice."""
    found: list[Candidate] = []
    for item in story.finished:
        if item.kind != "candidate" or item.measurement is None:
            continue
        practice = item.measurement.artifacts.get("weights", {}).get("practice")
        if practice is not None:
            found.append(Candidate(len(found), item, item.measurement, practice))
    return found


def winner(story: Story, among: Iterable[Candidate]) -> Candidate | None:
    """The candidate that was delivered; None while there is none."""
    if not story.delivered or story.best is None:
        return None
    best = dict(story.best)
    found = [item for item in among if dict(item.finished.parameters) == best]
    return found[-1] if found else None
