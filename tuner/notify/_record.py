"""The best that was ever measured, and what beats it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from searchers import Json
from tuner._judge import BaselineMissing, judge
from tuner.experiment import Objective
from tuner.notify._notice import Score, Subject


@dataclass(frozen=True)
class Entry:
    """A measurement as the record sees it.

    Attributes:
        kind: ``candidate`` or ``baseline``; others never hold a record.
        fresh: Measured just now, and not known before.
        subject: The trial that measured it, of a fresh one.
    """

    kind: str
    parameters: Mapping[str, Json]
    metrics: Mapping[str, float]
    data: Mapping[str, Json]
    fresh: bool = False
    subject: Subject | None = None


@dataclass(frozen=True)
class Lead:
    """A new best.

    Attributes:
        entry: What was measured, now or before the baseline it had to wait for.
    """

    entry: Entry
    score: Score


class Record:
    """Tells a new best from one that only looks new.

    What a resumed run knew before counts as much as what it measures: a value is a new best only
    if it satisfies and is better than every other measurement that satisfies, the baseline and
    everything in the ledger included.

    Args:
        known: Measurements of the same question from before, looked at when first needed.

    Attributes:
        best: What leads; None while nothing satisfies, or nothing is optimised.
        score: Its value.
    """

    def __init__(
        self, objective: Objective, known: Callable[[], Iterable[Entry]] = lambda: ()
    ) -> None:
        self._objective = objective
        self._known: Callable[[], Iterable[Entry]] | None = known
        self._held: list[Entry] = []
        self._baseline: Mapping[str, float] | None = None
        self.best: Entry | None = None
        self.score: Score | None = None

    def enter(self, entry: Entry) -> Lead | None:
        """Take a measurement in; the new best, if there is one.

        Where demands are relative to a baseline that is still to come, what is entered before it
        is judged with it.
        """
        if self._known is not None:
            known, self._known = self._known, None
            for one in known():
                self._take(one)
        return self._take(entry)

    def _take(self, entry: Entry) -> Lead | None:
        if entry.kind == "baseline":
            self._baseline = entry.metrics
        self._held.append(entry)
        before, leader = self.score, None
        held, self._held = self._held, []
        for one in held:
            try:
                leader = one if self._leads(one) else leader
            except BaselineMissing:
                self._held.append(one)
        if leader is None or self.score is None or not leader.fresh or leader.kind != "candidate":
            return None
        score = replace(self.score, before=None if before is None else before.value)
        return Lead(leader, score)

    def _leads(self, entry: Entry) -> bool:
        """Whether an entry takes the lead, which then is the score."""
        ranking = self._objective.ranking
        if ranking is None or not _counts(entry):
            return False
        judgement = judge(self._objective, entry.metrics, self._baseline)
        if not judgement.satisfied or judgement.objective is None:
            return False
        metric, sign = ranking
        value = sign * judgement.objective
        beaten = self.score is None or sign * value > sign * self.score.value
        if not (beaten and math.isfinite(value)):
            return False
        self.best, self.score = entry, Score(metric, value)
        return True


def _counts(entry: Entry) -> bool:
    """Ended early, or only predicted, a measurement proves nothing."""
    real = entry.data.get("real_evaluation", True) or "simulation" in entry.data
    return entry.kind in ("candidate", "baseline") and "stopped" not in entry.data and bool(real)
