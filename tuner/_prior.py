"""What earlier runs and other tools measured, for a search to start from.

``search.known`` of an experiment names them: folders of earlier runs, and tables of the original
optimizer (``data_storage_*.csv``) or a folder of such. What they hold guides the strategy; it is
never delivered, for nobody knows that the model, machine and load were the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from searchers import Json, Outcome, Space, Strategy
from tuner._judge import BaselineMissing, judge
from tuner._ledger import Ledger
from tuner.compat.serviceparam import data_storage_files, read_data_storage, wanted_rows
from tuner.experiment import Experiment, Objective


@dataclass(frozen=True)
class Prior:
    """Points that were measured elsewhere.

    Attributes:
        points: Parameters and the outcome of each, judged by this run's objective.
        notes: What could not be used and why, for the user.
    """

    points: tuple[tuple[Mapping[str, Json], Outcome], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def teach(self, strategy: Strategy) -> Strategy:
        """The strategy, which has learned all points."""
        for parameters, outcome in self.points:
            strategy.learn(parameters, outcome)
        return strategy


def read_prior(experiment: Experiment) -> Prior:
    """Read what ``search.known`` names. What cannot be read is a note, never an error: a search
    without it is still a search."""
    space, objective = experiment.search.space, experiment.objective
    if space is None or not experiment.search.known:
        return Prior()
    points: list[tuple[Mapping[str, Json], Outcome]] = []
    notes: list[str] = []
    for name in experiment.search.known:
        try:
            rows = list(_measured(Path(name), experiment, space, notes))
        except (OSError, ValueError) as error:
            notes.append(f"search.known: {name}: {error}")
            continue
        fitting = [(values, found) for values, found in rows if space.contains(values)]
        if len(fitting) < len(rows):
            skipped = len(rows) - len(fitting)
            notes.append(f"search.known: {name}: {skipped} points lie outside the space")
        points += [(values, _judged(found, objective)) for values, found in fitting]
    return Prior(tuple(points), tuple(notes))


def _measured(
    path: Path, experiment: Experiment, space: Space, notes: list[str]
) -> Iterator[tuple[Mapping[str, Json], Outcome]]:
    """Parameters and what became of them, not judged yet."""
    if (path / "ledger.jsonl").is_file():
        for item in Ledger(path / "ledger.jsonl"):
            if item.kind == "candidate" and item.data.get("real_evaluation", True):
                kept = {key: item.data[key] for key in ("stopped",) if key in item.data}
                yield item.parameters, Outcome("measured", item.metrics, kept)
        return
    tables = data_storage_files(path) if path.is_dir() else [path]
    if not tables:
        raise ValueError("holds neither ledger.jsonl nor data_storage_*.csv")
    for table in tables:
        found = read_data_storage(table, space, **wanted_rows(experiment.views))
        notes += [f"search.known: {note}" for note in found.notes]
        for parameters, metrics in found.points:
            failed = Outcome("failed", error="failed in an earlier run")
            yield parameters, failed if metrics is None else Outcome("measured", metrics)


def _judged(outcome: Outcome, objective: Objective) -> Outcome:
    """The outcome in the light of this run's objective, where that needs no baseline."""
    if outcome.status != "measured":
        return outcome
    try:
        verdict = judge(objective, outcome.metrics, None)
    except BaselineMissing:
        return outcome
    return replace(
        outcome,
        metrics={**outcome.metrics, **verdict.derived},
        satisfied=verdict.satisfied and "stopped" not in outcome.data,
        objective=verdict.objective,
    )
